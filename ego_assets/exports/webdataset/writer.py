"""Writes WebDataset shards, or brings a folder of them up to date.

Shards hold whole episodes. What has not changed is left alone to the byte; new episodes get shards
of their own; a shard that held an episode which changed or is gone is copied without it. Numbers of
shards that are gone are not given again, so readers take names from the index.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ego_assets.exports import video
from ego_assets.exports.episode import ExportEpisode
from ego_assets.exports.files import naming
from ego_assets.exports.folder import (
    ExportFolder,
    ExportReport,
    FolderMember,
    FolderPart,
    NewPart,
    Progress,
    digest_of,
)
from ego_assets.exports.grid import ExportError
from ego_assets.exports.webdataset.samples import check_names, names_of_columns, write_samples
from ego_assets.exports.webdataset.settings import WebDatasetSettings
from ego_assets.exports.webdataset.shards import ShardWriter, TarFiles

VERSION = "1"
"""Raised when the same episode would be written otherwise."""
SIZES = "sizes.json"
_TAR, _MEMBERS = "shard.tar", "members.json"


def write_shards(
    out: Path,
    episodes: Iterable[ExportEpisode],
    settings: WebDatasetSettings | None = None,
    *,
    provenance: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> ExportReport:
    """Make `out` the shards of exactly these episodes, which are taken one at a time.

    Raises ExportError for episodes that cannot be written, and OSError with the path of a file that
    cannot be.
    """
    settings = settings or WebDatasetSettings()
    with ExportFolder.opened(out, "webdataset") as folder:
        return _Shards(
            folder, settings, provenance or {}, progress or (lambda what, frames: None)
        ).run(episodes)


@dataclass(frozen=True)
class _Place:
    """Where the samples of an episode lie."""

    member: FolderMember
    tar_files: TarFiles


@dataclass
class _Shards:
    folder: ExportFolder
    settings: WebDatasetSettings
    provenance: Mapping[str, Any]
    progress: Progress
    columns: dict[str, Any] = field(default_factory=dict)
    encoded: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    _waiting: list[_Place] = field(default_factory=list)
    _new: list[tuple[list[FolderMember], Path]] = field(default_factory=list)

    def run(self, episodes: Iterable[ExportEpisode]) -> ExportReport:
        before = self.folder.before
        if before and before.made_under.get("split") != self.settings.split:
            raise ExportError(
                f"{self.folder.out} is of the split {before.made_under.get('split')}: export "
                f"{self.settings.split} to a folder of its own"
            )
        self._under = self.settings.encoded_under() | {"version": VERSION}
        if self.settings.content == "clips":
            self._under["by"] = video.LIBRARY
        self._staged = {place.member.digest: place for place in self._look_at_staging()}
        there = {m.episode_id: m.digest for part in self.folder.parts for m in part.members}
        wanted: dict[str, str] = {}
        for episode in episodes:
            digest = self._check(episode)
            if episode.episode_id in wanted or episode.episode_id in self.skipped:
                raise ExportError(f"episode {episode.episode_id} comes twice")
            if there.get(episode.episode_id) == digest:
                self.progress("kept", len(episode))
            elif not self._take(episode, digest):
                continue
            wanted[episode.episode_id] = digest
        if not wanted:
            self.folder.refuse(self.skipped, self.provenance, _sizes)
        self._close()
        return self._publish(wanted)

    def _take(self, episode: ExportEpisode, digest: str) -> bool:
        """Encode an episode, unless its pictures cannot be read. Returns whether it is in."""
        name = episode.episode_id
        try:
            place = self._encode(episode, digest)
        except ExportError as error:
            self.skipped[name] = str(error).removeprefix(f"episode {name}: ")
            self.progress("skipped", len(episode))
            return False
        self._add(place)
        return True

    def _check(self, episode: ExportEpisode) -> str:
        """Raise ExportError unless the episode can be written. Returns its digest."""
        episode.check()
        check_names(episode)
        columns = dict(names_of_columns(episode))
        if self.columns and columns != self.columns:
            raise ExportError(
                f"episode {episode.episode_id} has other columns than those before it"
            )
        self.columns = columns
        return digest_of(episode.digest(), self._under)

    def _encode(self, episode: ExportEpisode, digest: str) -> _Place:
        """Write the samples of an episode, unless an export that was killed has done so."""
        if digest not in self._staged:

            def make(aside: Path) -> None:
                samples = write_samples(episode, aside / _TAR, self.settings)
                files = samples * (len(episode.pictures) + (2 if self._is_clips else 1))
                facts = {"samples": samples, "files": files}
                facts["bytes"] = (aside / _TAR).stat().st_size
                member = FolderMember(episode.episode_id, digest, len(episode), facts)
                _write_members(aside, [member])

            made = self.folder.staged(f"parts/{digest}", make)
            self._staged[digest] = next(_places(made))
        self.encoded += 1
        self.progress("encoded", len(episode))
        return self._staged[digest]

    def _add(self, place: _Place) -> None:
        """Let an episode wait for others that share its shard."""
        facts = [p.member.facts for p in (*self._waiting, place)]
        if (
            sum(f["bytes"] for f in facts) > self.settings.shard_mb * 2**20
            or sum(f["samples"] for f in facts) > self.settings.shard_samples
        ):
            self._close()
        self._waiting.append(place)

    def _close(self) -> None:
        """Write a shard of those that wait, and remove what they were staged in."""
        if self._waiting:
            self._new.append(self._join(self._waiting))
            for place in self._waiting:
                parts = self.folder.staging / "parts" / place.member.digest
                shutil.rmtree(parts, ignore_errors=True)
            self._waiting = []

    def _join(self, places: Sequence[_Place]) -> tuple[list[FolderMember], Path]:
        members = [place.member for place in places]

        def make(aside: Path) -> None:
            with ShardWriter(aside / _TAR) as shard:
                shard.copy([place.tar_files for place in places])
            _write_members(aside, members)

        name = digest_of([member.digest for member in members])
        made = self.folder.staged(f"shards/{name}", make)
        self.progress("joined", sum(member.frames for member in members))
        return members, made / _TAR

    def _publish(self, wanted: Mapping[str, str]) -> ExportReport:
        kept: list[FolderPart] = []
        new: list[NewPart] = []
        for part in self.folder.parts:
            (name,) = part.files
            stay = [
                place
                for place in _placed(self.folder.out / name, part.members)
                if wanted.get(place.member.episode_id) == place.member.digest
            ]
            if len(stay) == len(part.members):
                kept.append(part)
            elif stay:
                members, path = self._join(stay)
                new.append(NewPart(members, {name: path}))
        for number, (members, path) in enumerate(self._new, self._first_number()):
            new.append(NewPart(members, {f"{self.settings.split}-{number:06d}.tar": path}))
        made_under = self._under | {"split": self.settings.split, "columns": self.columns}
        report = self.folder.publish(
            kept, new, made_under, self.provenance, _sizes, encoded=self.encoded
        )
        return replace(report, skipped=self.skipped)

    def _first_number(self) -> int:
        before = self.folder.before
        names = [name for part in before.parts for name in part.files] if before else []
        return 1 + max((int(name[-10:-4]) for name in names), default=-1)

    def _look_at_staging(self) -> Iterator[_Place]:
        staging = self.folder.staging
        for made in sorted((*staging.glob("shards/*"), *staging.glob("parts/*"))):
            if made.suffix != ".unfinished":
                yield from _places(made)

    @property
    def _is_clips(self) -> bool:
        return self.settings.content == "clips"


def _sizes(parts: Sequence[FolderPart]) -> dict[str, bytes]:
    """Samples by shard, as loaders ask for them."""
    samples = {next(iter(p.files)): sum(m.facts["samples"] for m in p.members) for p in parts}
    return {SIZES: (json.dumps(samples, indent=1) + "\n").encode()}


def _write_members(folder: Path, members: Sequence[FolderMember]) -> None:
    path = folder / _MEMBERS
    with naming(path):
        path.write_text(json.dumps([asdict(member) for member in members]))


def _places(folder: Path) -> Iterator[_Place]:
    """Where the episodes of a staged tar lie."""
    members = [FolderMember(**m) for m in json.loads((folder / _MEMBERS).read_text())]
    return _placed(folder / _TAR, members)


def _placed(path: Path, members: Sequence[FolderMember]) -> Iterator[_Place]:
    first = 0
    for member in members:
        yield _Place(member, TarFiles(path, first, member.facts["files"]))
        first += member.facts["files"]
