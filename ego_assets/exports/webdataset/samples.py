"""The samples of an episode: one of the whole, or one a frame."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ego_assets.exports.episode import ExportEpisode
from ego_assets.exports.grid import ExportError
from ego_assets.exports.pictures import jpeg, pictures_of, write_video
from ego_assets.exports.webdataset.settings import WebDatasetSettings
from ego_assets.exports.webdataset.shards import ShardWriter

_KEY = re.compile(r"[A-Za-z0-9_-]+")
_TICKS = ("true_time_s", "source_frame", "is_held")


def check_names(episode: ExportEpisode) -> None:
    """Raise ExportError unless the episode's name is a key: readers cut keys at the first dot."""
    if not _KEY.fullmatch(episode.episode_id):
        raise ExportError(
            f"episode {episode.episode_id}: a key has letters, digits, _ and - only: rename it"
        )
    if len(set(map(_camera, episode.pictures))) != len(episode.pictures):
        raise ExportError(f"episode {episode.episode_id}: cameras that end alike: rename one")


def write_samples(episode: ExportEpisode, path: Path, settings: WebDatasetSettings) -> int:
    """Write the samples of an episode to a tar of their own. Returns how many there are."""
    with ShardWriter(path) as shard:
        if settings.content == "clips":
            _write_clip(episode, shard, path, settings)
            return 1
        return _write_frames(episode, shard, settings)


def _write_clip(
    episode: ExportEpisode, shard: ShardWriter, path: Path, settings: WebDatasetSettings
) -> None:
    key = episode.episode_id
    sizes = {}
    for camera in episode.pictures:
        clip = path.with_suffix(".mp4")
        sizes[_camera(camera)] = write_video(episode, camera, clip, settings)
        shard.add(f"{key}.{_field(episode, camera, 'mp4')}", clip)
        clip.unlink()
    said = _said(episode) | {
        "frames": len(episode),
        "sizes": sizes,
        "names": {name: column.names for name, column in episode.columns.items()},
        "words": [vars(words) for words in (*(episode.persistent or ()), *(episode.events or ()))],
    }
    shard.add(f"{key}.json", _json(said))
    grid = episode.grid
    arrays = {name: column.values for name, column in episode.columns.items()}
    arrays |= dict(zip(_TICKS, (grid.pts_s, grid.frames, grid.is_held), strict=True))
    data = io.BytesIO()
    np.savez(data, allow_pickle=False, **arrays)
    shard.add(f"{key}.npz", data.getvalue())


def _write_frames(episode: ExportEpisode, shard: ShardWriter, settings: WebDatasetSettings) -> int:
    cameras = list(episode.pictures)
    readers = [pictures_of(episode, camera, settings.max_side_px)[1] for camera in cameras]
    samples = 0
    for tick, pictures in enumerate(zip(*readers, strict=True)):
        if tick % settings.every:
            continue
        key = f"{episode.episode_id}-{tick:06d}"
        for camera, picture in zip(cameras, pictures, strict=True):
            data = jpeg(picture, settings.jpeg_quality)
            shard.add(f"{key}.{_field(episode, camera, 'jpg')}", data)
        shard.add(f"{key}.json", _json(_said(episode) | _row(episode, tick)))
        samples += 1
    return samples


def _said(episode: ExportEpisode) -> dict[str, Any]:
    return {
        "episode_id": episode.episode_id,
        "task": episode.task,
        "fps": episode.grid.fps,
        "provenance": episode.provenance,
    }


def _row(episode: ExportEpisode, tick: int) -> dict[str, Any]:
    grid = episode.grid
    values = (grid.pts_s[tick].item(), grid.frames[tick].item(), grid.is_held[tick].item())
    columns = {name: column.values[tick].tolist() for name, column in episode.columns.items()}
    return columns | {"tick": tick} | dict(zip(_TICKS, values, strict=True))


def _field(episode: ExportEpisode, camera: str, kind: str) -> str:
    """The part of a name behind the key. It has the camera if there are several."""
    return kind if len(episode.pictures) == 1 else f"{_camera(camera)}.{kind}"


def _camera(key: str) -> str:
    """The last word of a camera's key. Readers take fields in lower case."""
    return key.rpartition(".")[2].lower()


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def names_of_columns(episode: ExportEpisode) -> Iterator[tuple[str, Any]]:
    """What the numbers of each column are called, as the index has it."""
    for name, column in episode.columns.items():
        yield name, list(column.names) if column.names else None
