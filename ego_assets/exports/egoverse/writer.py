"""Writes episodes in the layout of EgoVerse: a Zarr v3 store each, and a preview beside it.

Names of stores are times in EgoVerse. When a recording was made is not known here, so a name is a
time of the year 1970 that is made from the name of the episode, which no recording has.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from ego_assets.exports import video
from ego_assets.exports.egoverse.poses import hand_pose_of, keypoints_of, nowhere, pose_of
from ego_assets.exports.egoverse.settings import EgoVerseSettings
from ego_assets.exports.episode import ExportEpisode
from ego_assets.exports.files import naming
from ego_assets.exports.folder import (
    EpisodeFiles,
    ExportFolder,
    ExportReport,
    Progress,
    digest_of,
    write_episodes,
)
from ego_assets.exports.grid import ExportError
from ego_assets.exports.motion.columns import CAMERA, KnownNumbers, hand_in, joints_in
from ego_assets.exports.motion.lens import only_camera, pinhole_pictures
from ego_assets.exports.motion.names import task_name
from ego_assets.exports.pictures import jpeg
from ego_assets.exports.settings import VideoSettings
from ego_assets.rows import SIDES

VERSION = "2"
"""Raised when the same episode would be written otherwise."""
RATES = (30, 60)
OFF = 0.03
"""How far the rate of footage may be from a multiple of that of the grid, as a share."""
FRONT = "images.front_1"
_CHUNK = 100
_YEAR_US = 365 * 24 * 3600 * 10**6
_STORE, _PREVIEW = "episode.zarr", "episode.mp4"


def write_egoverse(
    out: Path,
    episodes: Iterable[ExportEpisode],
    settings: EgoVerseSettings | None = None,
    *,
    provenance: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> ExportReport:
    """Make `out` the stores of exactly these episodes, which are taken one at a time.

    They have one camera, 30 or 60 ticks a second of footage with that rate or a multiple, and those
    of the columns of `motion.columns` that are in the world, the camera in every tick. Others are
    left out.
    """
    settings = settings or EgoVerseSettings()
    zarr = _zarr()
    under = settings.model_dump() | {
        "version": VERSION,
        "by": [video.LIBRARY, f"zarr {zarr.__version__}"],
    }
    with ExportFolder.opened(out, "egoverse") as folder:
        return write_episodes(
            folder,
            episodes,
            _named_files(settings, under),
            under,
            provenance or {},
            progress or (lambda what, frames: None),
        )


def store_name(episode_id: str) -> str:
    """What EgoVerse calls an episode hash: a UTC time, here one of 1970."""
    number = int(hashlib.sha256(episode_id.encode()).hexdigest(), 16) % _YEAR_US
    return (_EPOCH + timedelta(microseconds=number)).strftime("%Y-%m-%d-%H-%M-%S-%f")


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _named_files(
    settings: EgoVerseSettings, under: Mapping[str, Any]
) -> Callable[[ExportEpisode], EpisodeFiles]:
    names: dict[str, str] = {}

    def files_of(episode: ExportEpisode) -> EpisodeFiles:
        name = store_name(episode.episode_id)
        other = names.setdefault(name, episode.episode_id)
        if other != episode.episode_id:
            raise ExportError(f"episodes {other} and {episode.episode_id} have one name: {name}")
        return _files_of(episode, settings, under, name)

    return files_of


def _files_of(
    episode: ExportEpisode, settings: EgoVerseSettings, under: Mapping[str, Any], name: str
) -> EpisodeFiles:
    episode.check()
    only_camera(episode)
    camera = KnownNumbers.of(episode, CAMERA)
    if episode.grid.fps not in RATES:
        raise ExportError(
            f"episode {episode.episode_id}: it has {episode.grid.fps} ticks a second, EgoVerse "
            "takes 30 or 60"
        )
    _check_rate(episode)
    if camera is None:
        raise ExportError(f"episode {episode.episode_id}: its cameras are not known in metres")
    head = camera.values
    return EpisodeFiles(
        episode.episode_id,
        digest_of(episode.digest(), under),
        len(episode),
        lambda folder: _write(episode, head, folder, settings, name),
        lambda file: name + file.removeprefix("episode"),
        {"task": task_name(episode.task)},
    )


def _check_rate(episode: ExportEpisode) -> None:
    """Raise ExportError unless the footage has the rate of the grid, or a multiple of it."""
    fps = episode.grid.fps
    frames, at = np.unique(episode.grid.frames, return_index=True)
    if len(frames) < 2:
        return
    rate = 1 / float(np.median(np.diff(episode.grid.pts_s[at]) / np.diff(frames)))
    nearest = fps * max(1, round(rate / fps))
    if abs(rate / nearest - 1) > OFF:
        raise ExportError(
            f"episode {episode.episode_id}: its footage has {rate:.4g} frames a second, which is "
            f"no multiple of {fps}: pictures would come twice, or at uneven times"
        )


def _write(
    episode: ExportEpisode,
    head: np.ndarray,
    folder: Path,
    settings: EgoVerseSettings,
    name: str,
) -> None:
    key, count = only_camera(episode), len(episode)
    size, matrix, pictures = pinhole_pictures(episode, key, settings.max_side_px)
    jpegs: list[bytes] = []

    def coded() -> Iterator[np.ndarray]:
        for picture in pictures:
            jpegs.append(jpeg(picture, settings.jpeg_quality))
            yield picture

    video.encode(
        coded(), folder / _PREVIEW, size, episode.grid.fps, VideoSettings(), index_first=True
    )
    arrays = dict(_arrays(episode, head, name))
    features = {
        key: {
            "dtype": str(values.dtype),
            "shape": list(values.shape[1:]),
            "names": [f"dim_{n}" for n in range(values.ndim - 1)],
        }
        for key, values in arrays.items()
    }
    features[FRONT] = {
        "dtype": "jpeg",
        "shape": [size[1], size[0], 3],
        "names": ["height", "width", "channel"],
    }
    spans = _spans(episode)
    features["annotations"] = {
        "dtype": "json",
        "shape": [len(spans)],
        "names": ["json"],
        "format": "annotation_v1",
    }
    said = {
        "embodiment": "human_bimanual",
        "total_frames": count,
        "fps": episode.grid.fps,
        "task_name": task_name(episode.task),
        "task_description": episode.task,
        "intrinsics": {"front_1": np.c_[matrix, np.zeros(3)].tolist()},
        "extrinsics": None,
        "features": features,
        "ego_episode_id": episode.episode_id,
        "ego_provenance": dict(episode.provenance),
    }
    path = folder / _STORE
    with naming(path):
        group = _zarr().create_group(str(path), zarr_format=3, attributes=said)
        for key, values in arrays.items():
            chunk = (_CHUNK, *values.shape[1:])
            shard = (-(-count // _CHUNK) * _CHUNK, *values.shape[1:])
            made = group.create_array(
                key, shape=values.shape, dtype=values.dtype, chunks=chunk, shards=shard
            )
            made[:] = values
        _write_bytes(group, FRONT, jpegs, 1)
        _write_bytes(group, "annotations", spans, max(1, len(spans)))


def _arrays(
    episode: ExportEpisode, head: np.ndarray, name: str
) -> Iterator[tuple[str, np.ndarray]]:
    grid, count = episode.grid, len(episode)
    yield "obs_head_pose", pose_of(head, np.ones(count, bool))
    for side in SIDES:
        wrist = KnownNumbers.of(episode, hand_in("world", side))
        joints = KnownNumbers.of(episode, joints_in("world", side))
        if wrist is None or joints is None:
            yield f"{side}.obs_ee_pose", nowhere(count)
            continue
        yield f"{side}.obs_ee_pose", hand_pose_of(joints.values, joints.known, side)
        yield f"{side}.obs_wrist_pose", pose_of(wrist.values, wrist.known)
        yield f"{side}.obs_keypoints", keypoints_of(joints.values, joints.known)
    start = datetime.strptime(name, "%Y-%m-%d-%H-%M-%S-%f").replace(tzinfo=UTC) - _EPOCH
    first = start // timedelta(microseconds=1) * 1000
    ticks = np.round(np.arange(count) * 1e9 / grid.fps).astype(np.int64)
    yield "obs_rgb_timestamps_ns", first + ticks
    yield "ego.true_time_s", grid.pts_s
    yield "ego.source_frame", grid.frames.astype(np.int64)
    yield "ego.is_held", grid.is_held


def _spans(episode: ExportEpisode) -> list[bytes]:
    """Words that hold from a tick to the next of their style, but for the task itself."""
    found = []
    words = list(episode.persistent or ())
    for n, said in enumerate(words):
        later = (w.tick for w in words[n + 1 :] if w.style == said.style and w.tick > said.tick)
        if said.content != episode.task:
            end = min(later, default=len(episode))
            span = {"text": said.content, "start_idx": said.tick, "end_idx": end}
            found.append(json.dumps(span).encode())
    return found


def _write_bytes(group: Any, key: str, values: Sequence[bytes], chunk: int) -> None:
    from zarr.core.dtype import VariableLengthBytes

    with warnings.catch_warnings():
        # EgoVerse has this type, whether or not Zarr's specification has it yet.
        warnings.simplefilter("ignore")
        count = len(values)
        shards = (max(1, count),) if count else None
        made = group.create_array(
            key, shape=(count,), dtype=VariableLengthBytes(), chunks=(chunk,), shards=shards
        )
        if count:
            made[:] = np.array([*values, None], object)[:-1]  # an array of objects, whatever length


def _zarr() -> Any:
    try:
        import zarr
    except ImportError as error:
        raise ExportError("zarr is not installed: pip install 'ego-assets[egoverse]'") from error
    return zarr
