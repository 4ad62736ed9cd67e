"""Operator input made by hand from a sample and its truth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ego_assets.media.decode import ClipFrames
from ego_assets.media.frame_index import index_frames
from ego_assets.operator import ClipInput, Intrinsics
from ego_assets.vision.geometry import quaternion_from_matrix
from ego_assets.vision.rle import encode_mask, mask_box
from samples import Truth

SIDES = ("left", "right")
NO_JOINTS = dict.fromkeys(("keypoints_px", "keypoints_hand_m", "presence", "side_score"))
"""What a mask says that was not found by joints."""


def clip_input(
    path: Path,
    intrinsics: Intrinsics,
    start: int = 0,
    end: int | None = None,
    number: int = 0,
    context: int = 0,
) -> ClipInput:
    """A clip of one take of a video, without tables."""
    index = index_frames(path)
    end = len(index) if end is None else end
    clip = {
        "video_id": "0" * 16,
        "shard": "20260101-0000",
        "clip_id": f"{'0' * 16}-{number:04d}",
        "clip_index": number,
        "take_id": f"{'0' * 16}-t000",
        "index_in_take": number,
        "start_frame": start,
        "end_frame": end,
        "start_pts_s": float(index.pts_s[start]),
        "end_pts_s": float(index.pts_s[end - 1]),
        "context_frames": context,
    }
    return ClipInput(clip, {}, ClipFrames(path, start, end), intrinsics)


def intrinsics_of(truth: Truth) -> Intrinsics:
    return Intrinsics("PINHOLE", truth.fx, truth.fy, truth.cx, truth.cy, (), "calibration_file")


def with_truth(clip: ClipInput, truth: Truth) -> ClipInput:
    """The clip with true masks and cameras as its upstream tables."""
    hands: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    cameras: list[dict[str, Any]] = []
    for frame in range(clip.clip["start_frame"], clip.clip["end_frame"]):
        base = clip.row(frame, float(truth.pts_s[frame]))
        for side in (0, 1):
            if truth.hand_visible[frame, side]:
                mask = _mask_row(base, f"t-h{side:03d}", truth.hand_mask(frame, side))
                hands.append(mask | {"side": SIDES[side], "is_wearer": True} | NO_JOINTS)
        for index in range(len(truth.object_names)):
            if truth.object_mask(frame, index).sum() >= 40:
                mask = truth.object_mask(frame, index)
                objects.append(_mask_row(base, f"t-o{index:03d}", mask))
        pose = truth.world_from_camera[frame]
        cameras.append(
            base
            | {
                "world_id": "w",
                "is_valid": True,
                "world_from_camera_m": pose[:3, 3].tolist(),
                "world_from_camera_xyzw": quaternion_from_matrix(pose[:3, :3]).tolist(),
                "scale_kind": "metric",
            }
        )
    tables = {
        "hand_masks": pa.Table.from_pylist(hands),
        "object_masks": pa.Table.from_pylist(objects),
        "scene_reconstruction": pa.Table.from_pylist(cameras),
    }
    return replace(clip, tables=tables)


def _mask_row(base: dict[str, Any], track: str, mask: np.ndarray) -> dict[str, Any]:
    return base | {
        "track_id": track,
        "rle": encode_mask(mask),
        "height_px": mask.shape[0],
        "width_px": mask.shape[1],
        "box": mask_box(mask),
        "area_px": int(mask.sum()),
        "score": 1.0,
    }


def empty_tables(clip: ClipInput) -> ClipInput:
    """The clip with upstream tables that hold nothing."""
    from ego_assets.catalog import TABLES

    names = ("hand_masks", "object_masks", "scene_reconstruction", "object_poses", "hand_poses")
    return replace(clip, tables={n: TABLES[n].arrow_schema().empty_table() for n in names})
