"""Which frames of a clip make the map, and whether the clip has parallax at all.

Here: choices made from point tracks alone. Not here: tracking, mapping, poses.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from ego_assets.operator import Intrinsics
from ego_assets.scene.colmap.mapping import MappingError
from ego_assets.scene.colmap.point_tracks import TrackTable
from ego_assets.scene.settings import ReconstructSettings
from ego_assets.vision.cameras import normalised_points

_MIN_SHARED = 20
_MIN_SURVIVAL = 0.5
_LEAST_MOTION = 0.008
_FEW = 10
_STILL_PX = 0.5
_STILL_STEP_S = 0.45
_MIN_COMMON_SHARE = 0.25
_ZOOM_ROUNDS = 5
_OFF_MIDDLE = 0.1
"""Distance from the optical axis on z = 1 from which a point tells of a zoom."""


def checked_keyframes(
    tracks: TrackTable,
    work: Intrinsics,
    focal_is_known: bool,
    settings: ReconstructSettings,
    notes: dict[str, Any],
) -> list[int]:
    """Keyframes of a clip that can be mapped. Raises `MappingError` with the reason if none can."""
    if len(tracks) < settings.min_keyframes:
        raise MappingError("too few frames", f"{len(tracks)}")
    typical = float(np.median(np.diff(tracks.starts)))
    notes["tracks"] = int(typical)
    if typical < settings.min_texture_tracks:
        raise MappingError("too little texture", f"{typical:.0f} points in the median frame")
    still = still_share(tracks)
    notes["still_share"] = round(still, 3)
    if still > settings.max_still_share:
        raise MappingError("no parallax", f"{100 * still:.0f} % of the points never move")
    chosen = choose_keyframes(tracks, settings.keyframe_motion, settings.max_keyframes)
    notes["keyframes"] = len(chosen)
    if len(chosen) < settings.min_keyframes:
        raise MappingError("no parallax", f"{len(chosen)} keyframes, the picture hardly moves")
    flat = [normalised_points(work, tracks.at(p)[1]) for p in chosen]
    parallax = parallax_px(tracks, chosen, flat, work.fx, focal_is_known)
    notes["parallax_px"] = round(parallax, 2)
    if parallax < settings.min_parallax_px:
        how = "a turn explains" if focal_is_known else "a turn and a zoom explain"
        raise MappingError("no parallax", f"{how} all but {parallax:.2f} px")
    return chosen


def choose_keyframes(tracks: TrackTable, motion: float, most: int) -> list[int]:
    """Positions (ascending) of the keyframes: the first frame with tracks, then one whenever the
    median track moved by `motion` of the picture's diagonal or half of the tracks are gone.

    The step shrinks for clips that move little (about ten keyframes are wanted) and grows until
    at most `most` are chosen.
    """
    usable = [p for p in range(len(tracks)) if len(tracks.at(p)[0]) >= _MIN_SHARED]
    if not usable:
        return []
    chosen = _walk(tracks, usable, motion)
    while len(chosen) < min(_FEW, len(usable)) and motion > _LEAST_MOTION:
        motion = max(motion / 1.6, _LEAST_MOTION)
        chosen = _walk(tracks, usable, motion)
    while len(chosen) > most and motion < 0.5:
        motion *= 1.25
        chosen = _walk(tracks, usable, motion)
    if len(chosen) > most:
        chosen = [chosen[i] for i in np.unique(np.linspace(0, len(chosen) - 1, most).astype(int))]
    return chosen


def _walk(tracks: TrackTable, usable: list[int], motion: float) -> list[int]:
    step = motion * float(np.hypot(*tracks.size))
    chosen = [usable[0]]
    for before, position in itertools.pairwise(usable):
        last = chosen[-1]
        ids, a, b = tracks.common(last, position)
        alive = len(ids) / max(1, len(tracks.at(last)[0]))
        if len(ids) < _MIN_SHARED or (alive < _MIN_SURVIVAL / 2 and before != last):
            # Too late: the frame before still sees what the last keyframe saw.
            if before != last:
                chosen.append(before)
            if len(tracks.common(chosen[-1], position)[0]) < _MIN_SHARED:
                chosen.append(position)
        elif alive < _MIN_SURVIVAL or np.median(np.linalg.norm(b - a, axis=1)) > step:
            chosen.append(position)
    if chosen[-1] != usable[-1]:
        chosen.append(usable[-1])
    return chosen


def still_share(tracks: TrackTable) -> float:
    """Share of the points that stay in place over half a second, in the liveliest stretches.

    Under a camera on a stand the background stays in place all the time, however much of the
    picture moves before it; under a moving one, hardly a point does. The 5th percentile over the
    clip is taken, so that a camera that rests most of the time still counts as moving.
    """
    shares = []
    last = 0
    for position in range(1, len(tracks)):
        if tracks.pts_s[position] - tracks.pts_s[last] < _STILL_STEP_S:
            continue
        _, a, b = tracks.common(last, position)
        last = position
        if len(a) >= _MIN_SHARED:
            shares.append(float(np.mean(np.linalg.norm(b - a, axis=1) < _STILL_PX)))
    return float(np.percentile(shares, 5)) if shares else 0.0


def rotation_between(rays_a: np.ndarray, rays_b: np.ndarray) -> np.ndarray:
    """Rotation R with rays_b ≈ R rays_a, robust to a minority of outliers; unit rays (N, 3)."""
    weight = np.ones(len(rays_a))
    rotation = np.eye(3)
    for _ in range(6):
        u, _, vt = np.linalg.svd((rays_b * weight[:, None]).T @ rays_a)
        sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt)) or 1.0])
        rotation = (u * sign) @ vt
        error = np.linalg.norm(rays_b - rays_a @ rotation.T, axis=1)
        weight = 1.0 / np.maximum(error, max(float(np.median(error)), 1e-7))
    return rotation


def parallax_px(
    tracks: TrackTable,
    keyframes: list[int],
    normalised: list[np.ndarray],
    focal_px: float,
    focal_is_known: bool,
) -> float:
    """The largest median motion, over pairs of keyframes, that no pure rotation explains.

    A lens that is not known may be a zoom, whose picture grows like that of a wall which comes
    nearer: then a rotation and a zoom together must not explain it either.

    normalised: (n, 2) coordinates on z = 1 of each keyframe's tracks, in `tracks.at` order.
    While the focal length is a guess, others are tried too and the one that explains most
    counts: else a wrong guess would look like parallax.
    """
    ratios = (1.0,) if focal_is_known else (0.6, 0.7, 0.8, 0.9, 1.0, 1.15, 1.3, 1.5, 1.8)
    best, zoomed = np.zeros(len(ratios)), 0.0
    # What few points a pair has in common may all lie on one thing that moves.
    few = max(_MIN_SHARED, _MIN_COMMON_SHARE * float(np.median(np.diff(tracks.starts))))
    for i, first in enumerate(keyframes):
        for j in range(i + 1, min(i + 13, len(keyframes))):
            ids, xy_a, xy_b = tracks.common(first, keyframes[j])
            if len(ids) < few or np.median(np.linalg.norm(xy_b - xy_a, axis=1)) < 0.5:
                continue
            a = normalised[i][np.isin(tracks.at(first)[0], ids, assume_unique=True)]
            b = normalised[j][np.isin(tracks.at(keyframes[j])[0], ids, assume_unique=True)]
            for k, ratio in enumerate(ratios):
                best[k] = max(best[k], _rotation_residual_px(a, b, focal_px, ratio))
            if not focal_is_known:
                zoomed = max(zoomed, _zoom_residual_px(a, b, focal_px))
    return float(best.min()) if focal_is_known else min(zoomed, float(best.min()))


def _rotation_residual_px(a: np.ndarray, b: np.ndarray, focal_px: float, ratio: float) -> float:
    rays_a, rays_b = _rays(a / ratio), _rays(b / ratio)
    predicted = rays_a @ rotation_between(rays_a, rays_b).T
    ahead = predicted[:, 2] > 0.1
    if not ahead.any():
        return 0.0
    flat = predicted[ahead, :2] / predicted[ahead, 2:]
    return float(np.median(np.linalg.norm(flat * ratio - b[ahead], axis=1))) * focal_px


def _zoom_residual_px(a: np.ndarray, b: np.ndarray, focal_px: float) -> float:
    """Median motion that is left of a rotation and a zoom about the middle of the picture."""
    zoom, flat = 1.0, a
    for _ in range(_ZOOM_ROUNDS):
        rays_a = _rays(a)
        turned = rays_a @ rotation_between(rays_a, _rays(b / zoom)).T
        flat = turned[:, :2] / np.maximum(turned[:, 2:], 0.1)
        out = np.linalg.norm(flat, axis=1) > _OFF_MIDDLE
        if not out.any():
            break
        along = np.einsum("ni,ni->n", b, flat)[out] / np.einsum("ni,ni->n", flat, flat)[out]
        zoom = max(float(np.median(along)), 0.1)
    return float(np.median(np.linalg.norm(flat * zoom - b, axis=1))) * focal_px


def _rays(normalised: np.ndarray) -> np.ndarray:
    rays = np.column_stack([normalised, np.ones(len(normalised))])
    unit: np.ndarray = rays / np.linalg.norm(rays, axis=1, keepdims=True)
    return unit
