"""Writes pictures and their annotations as COCO does: `annotations.json`, and `images/`.

What is known of an episode lies in `episodes/{id}.json`; `annotations.json` is joined from those,
since its numbers go through all of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ego_assets.exports.coco.settings import CocoSettings
from ego_assets.exports.files import naming
from ego_assets.exports.folder import (
    EpisodeFiles,
    ExportFolder,
    ExportReport,
    FolderPart,
    Progress,
    digest_of,
    write_episodes,
)
from ego_assets.exports.grid import ExportError
from ego_assets.exports.pictures import jpeg

VERSION = "1"
"""Raised when the same episode would be written otherwise."""
ANNOTATIONS = "annotations.json"
HANDS = ("left hand", "right hand")
KEYPOINTS = (
    "wrist",
    *(f"{f}_{n}" for f in ("thumb", "index", "middle", "ring", "little") for n in range(1, 5)),
)
_FRAGMENT = "episode.json"


@dataclass(frozen=True)
class AnnotatedEpisode:
    """Some pictures of an episode, and what is in them.

    images: a row a picture, with `frame_index`, `width`, `height`; annotations: a row a mask, with
    `frame_index`, `category` (a name) and fields of COCO; pictures: begins to read (frame_index,
    picture) of the images, in order; fingerprint: changes whenever the pictures do.
    """

    episode_id: str
    fingerprint: str
    images: Sequence[Mapping[str, Any]]
    annotations: Sequence[Mapping[str, Any]]
    pictures: Callable[[], Iterable[tuple[int, np.ndarray]]]
    provenance: Mapping[str, Any]


def write_coco(
    out: Path,
    episodes: Iterable[AnnotatedEpisode],
    settings: CocoSettings | None = None,
    *,
    provenance: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> ExportReport:
    """Make `out` the pictures and annotations of exactly these episodes, taken one at a time.

    Raises ExportError for pictures that are not as their rows say.
    """
    settings = settings or CocoSettings()
    under = settings.model_dump() | {"version": VERSION}
    said = provenance or {}
    with ExportFolder.opened(out, "coco") as folder:
        return write_episodes(
            folder,
            episodes,
            lambda episode: _files_of(episode, settings, under),
            under,
            said,
            progress or (lambda what, frames: None),
            lambda parts: {ANNOTATIONS: _joined(folder, parts, said)},
        )


def file_name(episode_id: str, frame_index: int) -> str:
    """The name of a picture below `images`."""
    return f"{episode_id}/{frame_index:06d}.jpg"


def _files_of(
    episode: AnnotatedEpisode, settings: CocoSettings, under: Mapping[str, Any]
) -> EpisodeFiles:
    name = episode.episode_id
    fragment = {
        "images": [dict(image) for image in episode.images],
        "annotations": [dict(row) for row in episode.annotations],
        "provenance": episode.provenance,
    }

    def make(folder: Path) -> None:
        _write_pictures(episode, folder, settings)
        path = folder / _FRAGMENT
        with naming(path):
            path.write_text(json.dumps(fragment, sort_keys=True))

    def named(file: str) -> str:
        return f"episodes/{name}.json" if file == _FRAGMENT else f"images/{name}/{file}"

    digest = digest_of(fragment, episode.fingerprint, under)
    return EpisodeFiles(name, digest, len(episode.images), make, named)


def _write_pictures(episode: AnnotatedEpisode, folder: Path, settings: CocoSettings) -> None:
    wanted = {image["frame_index"]: image for image in episode.images}
    for frame_index, picture in episode.pictures():
        image = wanted.pop(frame_index)
        if picture.shape[:2] != (image["height"], image["width"]):
            raise ExportError(
                f"episode {episode.episode_id}: frame {frame_index} has "
                f"{picture.shape[1]}x{picture.shape[0]} pixels, its masks "
                f"{image['width']}x{image['height']}"
            )
        path = folder / Path(file_name("", frame_index)).name
        with naming(path):
            path.write_bytes(jpeg(picture, settings.jpeg_quality))
    if wanted:
        raise ExportError(
            f"episode {episode.episode_id}: {len(wanted)} frames were not decoded, the first is "
            f"{min(wanted)}"
        )


def _joined(
    folder: ExportFolder, parts: Sequence[FolderPart], provenance: Mapping[str, Any]
) -> bytes:
    """The annotations of all episodes, numbered."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for part in parts:
        name = part.members[0].episode_id
        found = json.loads(folder.where(f"episodes/{name}.json").read_text())
        numbers = {}
        for image in found["images"]:
            numbers[image["frame_index"]] = len(images) + 1
            place = {"id": len(images) + 1, "file_name": file_name(name, image["frame_index"])}
            images.append(place | image | {"episode_id": name})
        for row in found["annotations"]:
            place = {"id": len(annotations) + 1, "image_id": numbers[row["frame_index"]]}
            annotations.append(place | row)
    categories = _categories({row["category"] for row in annotations})
    number_of = {category["name"]: category["id"] for category in categories}
    for row in annotations:
        row["category_id"] = number_of[row.pop("category")]
        del row["frame_index"]
    whole = {
        "info": {"description": "hands and objects of first-person video", **provenance},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }
    return json.dumps(whole).encode()


def _categories(names: set[str]) -> list[dict[str, Any]]:
    """Both hands, which have keypoints, then objects by name."""
    # COCO counts keypoints of a skeleton from 1.
    skeleton = [
        [1 if joint == first else joint, joint + 1]
        for first in range(1, 21, 4)
        for joint in range(first, first + 4)
    ]
    hands = [
        {
            "id": number,
            "name": name,
            "supercategory": "hand",
            "keypoints": list(KEYPOINTS),
            "skeleton": skeleton,
        }
        for number, name in enumerate(HANDS, 1)
    ]
    others = sorted(names - set(HANDS))
    return hands + [
        {"id": number, "name": name, "supercategory": "object"}
        for number, name in enumerate(others, 1 + len(hands))
    ]
