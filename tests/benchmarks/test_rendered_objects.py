"""What the confidence of object poses is fitted to: spoilt masks, and which poses are right."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from benchmarks.rendered_objects import judged, judged_rows, report, spoilt
from ego_assets.objects.confidence import evidence_of
from ego_assets.vision.rle import decode_mask, encode_mask, mask_box, mask_iou

FRAMES = 10


def row_of(mask: np.ndarray) -> dict[str, Any]:
    height, width = mask.shape
    area = int(mask.sum())
    size = {"height_px": height, "width_px": width, "area_px": area}
    return size | {"rle": encode_mask(mask), "box": mask_box(mask)}


@pytest.mark.parametrize("how", ["true", "small", "large", "beside"])
def test_a_spoilt_mask_is_a_mask_of_another_place(how: str) -> None:
    mask = np.zeros((60, 80), bool)
    mask[20:40, 30:50] = True
    row = spoilt(row_of(mask), how)
    drawn = decode_mask(row["rle"], 60, 80)
    assert row["area_px"] == drawn.sum()
    assert row["box"] == mask_box(drawn)
    assert (mask_iou(drawn, mask) == 1.0) == (how == "true")
    assert {"small": drawn.sum() < 400, "large": drawn.sum() > 400}.get(how, drawn.sum() == 400)


def test_a_mask_of_which_nothing_would_be_left_stays() -> None:
    speck = np.zeros((60, 80), bool)
    speck[20, 30] = True
    assert spoilt(row_of(speck), "small")["area_px"] == 1


def test_a_turn_is_right_whatever_the_frame_of_the_object() -> None:
    turns = Rotation.from_rotvec(
        np.radians(5.0 * np.arange(FRAMES))[:, None] * [0, 1, 0]
    ).as_matrix()
    world_from_object = np.tile(np.eye(4), (FRAMES, 1, 1, 1))
    world_from_object[:, 0, :3, :3] = turns
    truth = SimpleNamespace(
        world_from_camera=np.tile(np.eye(4), (FRAMES, 1, 1)), world_from_object=world_from_object
    )
    other = Rotation.from_euler("xz", [30, 70], degrees=True).as_matrix()
    found = Rotation.from_matrix(turns @ other)
    quaternions = found.as_quat()
    off = Rotation.from_euler("z", 11, degrees=True)
    quaternions[7] = (off * found[7]).as_quat()
    rows = [
        {
            "frame_index": f,
            "is_valid": f != 3,
            "track_id": "t-o000",
            "object_frame": "first_sight:0",
            "camera_from_object_xyzw": quaternions[f].tolist(),
        }
        for f in range(FRAMES)
    ]
    right = {r["frame_index"]: r["is_right"] for r in judged(rows, truth)}
    assert right == {f: f != 7 for f in range(FRAMES) if f != 3}


@pytest.mark.slow
def test_a_sample_is_rendered_and_judged_by_what_its_rows_say() -> None:
    rows = judged_rows(100)
    assert rows
    assert {r["group"] for r in rows} == {100}
    assert all(np.isfinite(evidence_of(r)).all() for r in rows)
    assert "off by" in report(rows)
