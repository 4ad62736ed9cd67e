"""Seam error: how much two clips of a take disagree about the frames that both have.

Adjacent clips overlap, and each is worked on without knowing the other's result there (but for
what is carried over). Where they disagree one of them is wrong: an accuracy figure without truth.
Here: the disagreement of each table. Not here: which clips there are, what is too much (checks).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from ego_assets.vision.geometry import matrix_from_quaternion, rotation_angle_deg
from ego_assets.vision.patches import Patch
from ego_assets.vision.rle import decode_crop

Row = Mapping[str, Any]
Frames = dict[int, dict[str, Row]]

SEAM_UNITS = {
    "object_masks": "1 - IoU",
    "hand_masks": "1 - IoU",
    "hand_poses": "pixels, mean over the joints",
    "scene_reconstruction": "degrees, rotation since the first common frame",
    "object_poses": "share of the distance to the camera",
}
"""The tables that have a seam error, and its unit."""


def seam_errors(table: str, rows: pa.Table, clips: pa.Table) -> np.ndarray:
    """(N,) disagreements, one a frame (and track) that both of two adjacent clips have.

    rows: of `table`; clips: of the table `clips`, of the same videos. A mask that only one of them
    has disagrees by 1; a pose that only one has does not count. Raises KeyError for a table
    without a seam error.
    """
    measure = _MEASURES[table]
    by_clip: dict[str, Frames] = {}
    columns = [c for c in _COLUMNS[table] if c in rows.column_names]
    for row in rows.select(columns).to_pylist():
        track = row.get("track_id") or ""
        by_clip.setdefault(row["clip_id"], {}).setdefault(row["frame_index"], {})[track] = row
    takes: dict[str, list[Row]] = {}
    for clip in sorted(clips.to_pylist(), key=lambda c: (c["take_id"], c["index_in_take"])):
        takes.setdefault(clip["take_id"], []).append(clip)
    found: list[float] = []
    for take in takes.values():
        for before, after in pairwise(take):
            common = range(after["start_frame"], before["end_frame"])
            first, second = (by_clip.get(c["clip_id"], {}) for c in (before, after))
            found += measure(
                {i: first.get(i, {}) for i in common}, {i: second.get(i, {}) for i in common}
            )
    return np.array(found, np.float64)


def _masks(first: Frames, second: Frames) -> list[float]:
    found = []
    for index in first:
        for track in first[index].keys() | second[index].keys():
            a, b = first[index].get(track), second[index].get(track)
            found.append(1.0 if a is None or b is None else 1.0 - _iou(a, b))
    return found


def _iou(a: Row, b: Row) -> float:
    crops = (decode_crop(r["rle"], r["height_px"], r["width_px"]) for r in (a, b))
    first, second = (Patch.of(c.pixels, (c.left, c.top), c.shape) for c in crops)
    return first.iou(second) if first.shape == second.shape else 0.0


def _hands(first: Frames, second: Frames) -> list[float]:
    found = []
    for index in first:
        for track in first[index].keys() & second[index].keys():
            a, b = first[index][track], second[index][track]
            if a["is_valid"] and b["is_valid"]:
                apart = np.array(a["joints_px"]) - np.array(b["joints_px"])
                found.append(float(np.linalg.norm(apart, axis=1).mean()))
    return found


def _cameras(first: Frames, second: Frames) -> list[float]:
    """Relative to the first common frame: each clip may have a world of its own."""
    pairs = []
    for index in sorted(first):
        a, b = first[index].get(""), second[index].get("")
        if a and b and a["is_valid"] and b["is_valid"]:
            name = "world_from_camera_xyzw"
            pairs.append([matrix_from_quaternion(np.array(r[name])) for r in (a, b)])
    if len(pairs) < 2:
        return []
    (a0, b0), *rest = pairs
    return [float(rotation_angle_deg(a0.T @ a, b0.T @ b)) for a, b in rest]


def _objects(first: Frames, second: Frames) -> list[float]:
    found = []
    for index in first:
        for track in first[index].keys() & second[index].keys():
            a, b = first[index][track], second[index][track]
            valid = a["is_valid"] and b["is_valid"]
            if valid and a["object_frame"] == b["object_frame"]:
                at_a, at_b = (np.array(r["camera_from_object_m"]) for r in (a, b))
                distance = np.linalg.norm(at_b)
                if distance > 0:
                    found.append(float(np.linalg.norm(at_a - at_b) / distance))
    return found


_MEASURES: dict[str, Callable[[Frames, Frames], list[float]]] = {
    "object_masks": _masks,
    "hand_masks": _masks,
    "hand_poses": _hands,
    "scene_reconstruction": _cameras,
    "object_poses": _objects,
}
_ROW = ("clip_id", "frame_index", "track_id")
_COLUMNS = {
    "object_masks": (*_ROW, "rle", "height_px", "width_px"),
    "hand_masks": (*_ROW, "rle", "height_px", "width_px"),
    "hand_poses": (*_ROW, "is_valid", "joints_px"),
    "scene_reconstruction": (*_ROW, "is_valid", "world_from_camera_xyzw"),
    "object_poses": (*_ROW, "is_valid", "object_frame", "camera_from_object_m"),
}
