"""What a data set says of itself: which packs it has, of which episodes, and how large their files
are.

Here: `meta/ego_provenance.json`, and names of files. Not here: how packs come about.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ego_assets.exports.grid import ExportError
from ego_assets.exports.lerobot.packs import PackFiles

PROVENANCE = "meta/ego_provenance.json"
INFO, STATS, TASKS = "meta/info.json", "meta/stats.json", "meta/tasks.parquet"
FILES_A_CHUNK = 1000
"""Readers sort files by name, so numbers have three digits."""
_FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
DATA_PATH = f"data/{_FILE}.parquet"
VIDEO_PATH = f"videos/{{video_key}}/{_FILE}.mp4"
_EPISODES_PATH = f"meta/episodes/{_FILE}.parquet"
_RECORDS_PATH = f"meta/ego_episodes/{_FILE}.parquet"


_OF_A_PACK = re.compile(
    r"(data|meta/episodes|meta/ego_episodes|videos/observation\.images\.[^/\\\0]+)"
    r"/chunk-(\d{3,})/file-(\d{3})\.(parquet|mp4)"
)


def is_name_of_ours(name: str) -> bool:
    """Whether an export may write or delete a file of this name, relative to its folder.

    Names are read from files of the folder, which may come from anybody.
    """
    return name in (PROVENANCE, INFO, STATS, TASKS) or bool(_OF_A_PACK.fullmatch(name))


@dataclass(frozen=True)
class PackNames:
    """Names of the files of a pack, relative to the folder of the data set."""

    rows: str
    videos: dict[str, str]
    episodes: str
    records: str

    def files(self, folder: Path) -> PackFiles:
        videos = {key: folder / name for key, name in self.videos.items()}
        return PackFiles(folder / self.rows, videos, folder / self.records)


def place_of(number: int) -> dict[str, int]:
    """Returns the indices of chunk and file of a pack."""
    chunk, file = divmod(number, FILES_A_CHUNK)
    return {"chunk_index": chunk, "file_index": file}


def names_of(number: int, cameras: Sequence[str]) -> PackNames:
    place = place_of(number)
    videos = {key: VIDEO_PATH.format(video_key=key, **place) for key in cameras}
    rows, episodes, records = (
        path.format(**place) for path in (DATA_PATH, _EPISODES_PATH, _RECORDS_PATH)
    )
    return PackNames(rows, videos, episodes, records)


@dataclass(frozen=True)
class Member:
    """An episode of a pack."""

    episode_id: str
    digest: str
    task: str
    frames: int


@dataclass(frozen=True)
class Pack:
    """A pack of a data set. numbers: of its first episode, of its first row, of its tasks; sizes:
    bytes by name of file."""

    number: int
    episodes: list[Member]
    numbers: list[int]
    sizes: dict[str, int]


@dataclass(frozen=True)
class DatasetContents:
    """All of it. encoded_under: settings and version that its episodes depend on."""

    encoded_under: dict[str, Any]
    sizes: dict[str, list[int]]
    packs: list[Pack]
    provenance: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> DatasetContents | None:
        """What the folder holds; None if it is no data set of ours."""
        path = folder / PROVENANCE
        try:
            found = json.loads(path.read_text())
            packs = [
                Pack(**p | {"episodes": [Member(**e) for e in p["episodes"]]})
                for p in found.pop("packs")
            ]
            for pack in packs:
                _check(pack)
            return cls(**found, packs=packs)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise ExportError(
                f"{path} cannot be read ({error}): another release wrote it, or it is damaged. "
                "Export to an empty folder"
            ) from error

    def text(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"

    def intact(self, folder: Path) -> dict[str, str]:
        """Digests by episode of the packs whose files are all there, of their sizes."""
        return {
            e.episode_id: e.digest
            for pack in self.packs
            if all(_size(folder / name) == size for name, size in pack.sizes.items())
            for e in pack.episodes
        }


def _check(pack: Pack) -> None:
    """Raise ValueError unless number and names are those of a pack."""
    place = place_of(int(pack.number))
    for name in pack.sizes:
        found = _OF_A_PACK.fullmatch(name)
        if not found or place != {"chunk_index": int(found[2]), "file_index": int(found[3])}:
            raise ValueError(f"{name!r} is no file of pack {pack.number}")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1
