"""Writes episodes in the layout of EgoDex: `{task}/{n}.hdf5`, and `{task}/{n}.mp4` beside it.

Pictures are those of a pinhole camera, since the layout has no place for a lens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ego_assets.exports import video
from ego_assets.exports.egodex.joints import CAMERA
from ego_assets.exports.egodex.settings import FPS, EgoDexSettings
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
from ego_assets.exports.motion.lens import only_camera, pinhole_pictures
from ego_assets.exports.motion.names import task_name

VERSION = "2"
"""Raised when the same episode would be written otherwise."""
TRANSFORMS, CONFIDENCES = "transforms/", "confidences/"
_HDF5, _VIDEO = "episode.hdf5", "episode.mp4"


def write_egodex(
    out: Path,
    episodes: Iterable[ExportEpisode],
    settings: EgoDexSettings | None = None,
    *,
    provenance: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> ExportReport:
    """Make `out` the files of exactly these episodes, which are taken one at a time.

    They have one camera, 30 ticks a second, columns `transforms/{joint}` (T, 16), of which one is
    `transforms/camera`, and `confidences/{joint}` (T, 1); and in their provenance, as `camera`, the
    intrinsics of a row of `video_manifest`. Raises ExportError for others.
    """
    settings = settings or EgoDexSettings()
    _h5py()
    under = settings.encoded_under() | {"version": VERSION, "by": video.LIBRARY}
    with ExportFolder.opened(out, "egodex") as folder:
        numbers = _Numbers.of(folder)
        return write_episodes(
            folder,
            episodes,
            lambda episode: _files_of(episode, settings, under, numbers),
            under,
            provenance or {},
            progress or (lambda what, frames: None),
        )


class _Numbers:
    """Gives each episode a number within its task, which it keeps."""

    def __init__(self) -> None:
        self._of: dict[str, tuple[str, int]] = {}
        self._next: dict[str, int] = {}

    @classmethod
    def of(cls, folder: ExportFolder) -> _Numbers:
        made = cls()
        for part in folder.before.parts if folder.before else ():
            member = part.members[0]
            task, number = member.facts["task"], member.facts["number"]
            made._of[member.episode_id] = task, number
            made._next[task] = max(made._next.get(task, 0), number + 1)
        return made

    def number(self, episode_id: str, task: str) -> int:
        if self._of.get(episode_id, ("",))[0] != task:
            self._of[episode_id] = task, self._next.get(task, 0)
            self._next[task] = self._of[episode_id][1] + 1
        return self._of[episode_id][1]


def _files_of(
    episode: ExportEpisode, settings: EgoDexSettings, under: Mapping[str, Any], numbers: _Numbers
) -> EpisodeFiles:
    episode.check()
    _check(episode)
    task = task_name(episode.task)
    number = numbers.number(episode.episode_id, task)

    def make(folder: Path) -> None:
        matrix = _write_video(episode, folder / _VIDEO, settings)
        _write_hdf5(episode, folder / _HDF5, matrix)

    return EpisodeFiles(
        episode.episode_id,
        digest_of(episode.digest(), under),
        len(episode),
        make,
        lambda name: f"{task}/{number}{Path(name).suffix}",
        {"task": task, "number": number},
    )


def _check(episode: ExportEpisode) -> None:
    def refuse(why: str) -> None:
        raise ExportError(f"episode {episode.episode_id}: {why}")

    if episode.grid.fps != FPS:
        refuse(f"it has {episode.grid.fps} ticks a second, EgoDex has {FPS}")
    if TRANSFORMS + CAMERA not in episode.columns:
        refuse(f"it has no column {TRANSFORMS}{CAMERA}")
    only_camera(episode)


def _write_video(episode: ExportEpisode, path: Path, settings: EgoDexSettings) -> np.ndarray:
    """Write the pictures as a pinhole camera sees them. Returns its matrix."""
    (key,) = episode.pictures
    size, matrix, pictures = pinhole_pictures(episode, key, settings.max_side_px)
    video.encode(pictures, path, size, FPS, settings, index_first=True)
    return matrix


def _write_hdf5(episode: ExportEpisode, path: Path, matrix: np.ndarray) -> None:
    h5py = _h5py()
    grid, said = episode.grid, episode.provenance
    with naming(path), h5py.File(path, "w") as file:
        file["camera/intrinsic"] = matrix.astype(np.float32)
        for name, column in episode.columns.items():
            if name.startswith(TRANSFORMS):
                file[name] = column.values.reshape(-1, 4, 4).astype(np.float32)
            elif name.startswith(CONFIDENCES):
                file[name] = column.values[:, 0].astype(np.float32)
        file["ego/source_frame"] = grid.frames
        file["ego/true_time_s"] = grid.pts_s
        file["ego/is_held"] = grid.is_held
        file.attrs["llm_description"] = file.attrs["description"] = episode.task
        file.attrs["task"] = task_name(episode.task)
        objects = [str(each) for each in said.get("objects") or ()]
        file.attrs.create("llm_objects", np.array(objects, object), dtype=h5py.string_dtype())
        file.attrs["session_name"] = str(said.get("take_id") or episode.episode_id)
        file.attrs["ego_episode_id"] = episode.episode_id
        file.attrs["ego_provenance"] = json.dumps(said, sort_keys=True)


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ExportError("h5py is not installed: pip install 'ego-assets[egodex]'") from error
    return h5py
