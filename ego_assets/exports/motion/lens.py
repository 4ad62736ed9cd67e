"""The camera of an episode's pictures at the size of an export, and pictures without its lens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ego_assets.exports.episode import ExportEpisode
from ego_assets.exports.grid import ExportError
from ego_assets.exports.pictures import pictures_of
from ego_assets.exports.video import Size
from ego_assets.operator import BadInputError, Intrinsics


def only_camera(episode: ExportEpisode) -> str:
    """The key of the pictures. Raises ExportError unless the episode has one camera, of which the
    intrinsics are known."""
    if len(episode.pictures) != 1:
        raise ExportError(
            f"episode {episode.episode_id}: it has {len(episode.pictures)} cameras, "
            "and the format one"
        )
    if episode.provenance.get("camera", {}).get("fx_px") is None:
        raise ExportError(
            f"episode {episode.episode_id}: the intrinsics of its camera are not known"
        )
    return next(iter(episode.pictures))


def lens_at(episode: ExportEpisode, size: Size) -> Intrinsics:
    """The camera of upright pictures that were shrunk to `size`."""
    from ego_assets.vision.cameras import scaled_intrinsics

    camera = episode.provenance["camera"]
    fx, fy, cx, cy = (camera[f"{name}_px"] for name in ("fx", "fy", "cx", "cy"))
    lens = Intrinsics(camera["camera_model"], fx, fy, cx, cy, tuple(camera["distortion"] or ()))
    return scaled_intrinsics(lens, size[0] / camera["width_px"], size[1] / camera["height_px"])


def pinhole_pictures(
    episode: ExportEpisode, key: str, max_side_px: int, *, centred: bool = False
) -> tuple[Size, np.ndarray, Iterator[np.ndarray]]:
    """Returns the size of the pictures as a pinhole camera sees them, its matrix (3, 3), and a
    picture a tick. centred: its principal point is in the middle, to a pixel. Raises ExportError
    if the lens cannot be undone."""
    from ego_assets.vision.lenses.undistorted import UndistortedView

    size, pictures = pictures_of(episode, key, max_side_px)
    try:
        view = UndistortedView.of(lens_at(episode, size), *size)
    except BadInputError as error:
        raise ExportError(
            f"episode {episode.episode_id}: it cannot be undistorted: {error}"
        ) from error
    camera, (cx, cy) = view.camera, (np.array(size) - 1) / 2
    if centred and max(abs(camera.cx - cx), abs(camera.cy - cy)) > 1:
        view = replace(view, camera=replace(camera, cx=float(cx), cy=float(cy)), _maps={})
    return size, view.camera.matrix(), map(view.picture, pictures)
