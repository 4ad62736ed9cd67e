"""Metres for a map of arbitrary scale: its depths beside hands, whose size in metres is known.

Here: how far away each hand is, and the mapped points beside it. Not here: how ratios become a
scale (`metric_scale`), hands (`hand_masks`).

Hands that work are at what they work on: on average they are as far away as the surfaces beside
them. A hand high above a table makes the scale too small, and its distance is as exact as the
hand's size: the network knows an average one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ego_assets.operator import Intrinsics
from ego_assets.scene.colmap.metric_scale import MetricScale, ScaleError, robust_scale
from ego_assets.scene.colmap.registration import Registration, depths_in
from ego_assets.vision.cameras import seen_points

_COLUMNS = ("frame_index", "keypoints_px", "keypoints_hand_m", "presence", "score")
_SURE = 0.8
"""Presence from which a hand is measured."""
_LIVELY = 0.5
"""Score under which it may be a robot's or a statue's."""
_BESIDE = 0.5
"""How far beyond a hand's box its surroundings reach, in sizes of the hand."""
_LEAST_POINTS = 4


def scale_from_hands(
    hand_masks: pa.Table,
    registrations: Mapping[int, Registration],
    points: np.ndarray,
    intrinsics: Intrinsics,
    zoom: np.ndarray,
) -> MetricScale:
    """The scale on which the hands of a clip agree. Raises ScaleError if there are none.

    registrations: by frame index; points: (P, 3) of the map; intrinsics: of the full-size picture;
    zoom: (2,) pixels of that picture to one of those that `Registration.xy` is in.
    """
    if not set(_COLUMNS) <= set(hand_masks.column_names) or not _have_joints(hand_masks):
        raise ScaleError("the hand masks bring no joints")
    ratios, frames = [], set()
    for hand in _hands(hand_masks):
        found = registrations.get(hand["frame_index"])
        if found is None or found.pose is None or found.points is None or found.xy is None:
            continue
        pixels = np.asarray(hand["keypoints_px"], np.float64)
        near = _beside(pixels, (found.xy + 0.5) * zoom - 0.5)
        distance = _distance_m(pixels, np.asarray(hand["keypoints_hand_m"]), intrinsics)
        if near.sum() < _LEAST_POINTS or distance is None:
            continue
        depth = float(np.median(depths_in(found.pose, points[found.points[near]])))
        if depth > 0:
            ratios.append(distance / depth)
            frames.add(hand["frame_index"])
    if not ratios:
        raise ScaleError("no hand is seen beside mapped points")
    scale = robust_scale(np.array(ratios), len(frames))
    return MetricScale(scale.factor, scale.spread, scale.samples, scale.frames, "metric_hands")


def _hands(hand_masks: pa.Table) -> Sequence[dict[str, Any]]:
    """Rows of hands whose joints are known and sure."""
    rows: list[dict[str, Any]] = hand_masks.select(_COLUMNS).to_pylist()
    return [
        row
        for row in rows
        if row["keypoints_px"] is not None
        and row["keypoints_hand_m"] is not None
        and (row["presence"] or 0.0) >= _SURE
        and row["score"] >= _LIVELY
    ]


def _have_joints(hand_masks: pa.Table) -> bool:
    joints = hand_masks["keypoints_hand_m"]
    return not hand_masks.num_rows or joints.null_count < len(joints)


def _beside(pixels: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(n,) bool: which (n, 2) places lie beside a hand of (21, 2) joints."""
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    margin = _BESIDE * float((high - low).max())
    found: np.ndarray = ((places > low - margin) & (places < high + margin)).all(axis=1)
    return found


def _distance_m(pixels: np.ndarray, hand: np.ndarray, intrinsics: Intrinsics) -> float | None:
    """Depth along z of a hand of (21, 3) metres, along the axes of the picture around it, that
    looks as large as (21, 2) pixels; None where the lens cannot have seen it.

    Weak perspective about the hand's own ray: in the picture's plane it would look larger, and so
    nearer, the further it is off the axis.
    """
    flat = seen_points(intrinsics, pixels)
    if flat is None:
        return None
    rays = np.column_stack([flat, np.ones(len(flat))])
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    ahead = rays.mean(axis=0)
    ahead /= np.linalg.norm(ahead)
    around = rays / (rays @ ahead)[:, None] - ahead
    seen = float(((around - around.mean(axis=0)) ** 2).sum())
    real = float(((hand[:, :2] - hand[:, :2].mean(axis=0)) ** 2).sum())
    if seen <= 0 or real <= 0:
        return None
    return float(np.sqrt(real / seen) * ahead[2])
