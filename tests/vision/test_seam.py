"""The disagreement of adjacent clips about the frames that both have, for planted differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ego_assets.quality.seam import seam_errors, seam_of
from ego_assets.vision.geometry import quaternion_from_matrix
from ego_assets.vision.rle import encode_mask

CLIPS = pa.Table.from_pylist(
    [
        {"clip_id": "a0", "take_id": "a", "index_in_take": 0, "start_frame": 0, "end_frame": 10},
        {"clip_id": "a1", "take_id": "a", "index_in_take": 1, "start_frame": 6, "end_frame": 16},
        {"clip_id": "b0", "take_id": "b", "index_in_take": 0, "start_frame": 16, "end_frame": 20},
    ]
)
COMMON = 4


def frames(clip: str) -> range:
    row = next(c for c in CLIPS.to_pylist() if c["clip_id"] == clip)
    return range(row["start_frame"], row["end_frame"])


def mask(clip: str, frame: int, shift: int, track: str = "o1") -> dict[str, Any]:
    picture = np.zeros((20, 30), bool)
    picture[5:15, 5 + shift : 15 + shift] = True
    return {
        "clip_id": clip,
        "frame_index": frame,
        "track_id": track,
        "rle": encode_mask(picture),
        "height_px": 20,
        "width_px": 30,
    }


@pytest.mark.parametrize("table", ["object_masks", "hand_masks"])
def test_masks(table: str) -> None:
    same = [mask(c, f, 0) for c in ("a0", "a1", "b0") for f in frames(c)]
    np.testing.assert_array_equal(
        seam_errors(table, pa.Table.from_pylist(same), CLIPS), [0] * COMMON
    )
    shifted = [mask(c, f, 5 if c == "a1" else 0) for c in ("a0", "a1") for f in frames(c)]
    found = seam_errors(table, pa.Table.from_pylist(shifted), CLIPS)
    np.testing.assert_allclose(found, [1 - 50 / 150] * COMMON)
    lost = [mask("a0", f, 0) for f in frames("a0")]
    np.testing.assert_array_equal(
        seam_errors(table, pa.Table.from_pylist(lost), CLIPS), [1] * COMMON
    )


def hand(clip: str, frame: int, shift: float, is_valid: bool = True) -> dict[str, Any]:
    joints = [[shift, 0.0]] * 21
    return {
        "clip_id": clip,
        "frame_index": frame,
        "track_id": "h1",
        "is_valid": is_valid,
        "joints_px": joints,
    }


def test_hands_count_where_both_are_valid() -> None:
    rows = [hand("a0", f, 0) for f in frames("a0")]
    rows += [hand("a1", f, 3.0, is_valid=f != 7) for f in frames("a1")]
    found = seam_errors("hand_poses", pa.Table.from_pylist(rows), CLIPS)
    np.testing.assert_allclose(found, [3.0] * (COMMON - 1))


def turn(degrees: float) -> np.ndarray:
    a = np.radians(degrees)
    return np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])


def camera(clip: str, frame: int, rotation: np.ndarray) -> dict[str, Any]:
    quaternion = quaternion_from_matrix(rotation).tolist()
    return {
        "clip_id": clip,
        "frame_index": frame,
        "is_valid": True,
        "world_from_camera_xyzw": quaternion,
    }


def test_cameras_are_compared_whatever_their_world() -> None:
    rows = [camera("a0", f, turn(f)) for f in frames("a0")]
    other_world = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]])
    same = rows + [camera("a1", f, other_world @ turn(f)) for f in frames("a1")]
    found = seam_errors("scene_reconstruction", pa.Table.from_pylist(same), CLIPS)
    np.testing.assert_allclose(found, [0] * (COMMON - 1), atol=1e-4)
    twice = rows + [camera("a1", f, other_world @ turn(2 * f)) for f in frames("a1")]
    found = seam_errors("scene_reconstruction", pa.Table.from_pylist(twice), CLIPS)
    np.testing.assert_allclose(found, [1, 2, 3], atol=1e-4)


def test_objects_and_tables_without_overlap() -> None:
    rows = [
        {
            "clip_id": c,
            "frame_index": f,
            "track_id": "o1",
            "is_valid": True,
            "object_frame": "first_sight:0",
            "camera_from_object_m": [0.0, 0.0, 1.0 if c == "a1" else 1.1],
        }
        for c in ("a0", "a1")
        for f in frames(c)
    ]
    found = seam_errors("object_poses", pa.Table.from_pylist(rows), CLIPS)
    np.testing.assert_allclose(found, [0.1] * COMMON)
    assert len(seam_errors("object_poses", pa.Table.from_pylist(rows[:1]), CLIPS)) == 0
    with pytest.raises(KeyError):
        seam_errors("detections", pa.Table.from_pylist(rows), CLIPS)
    assert seam_of("detections") is None
