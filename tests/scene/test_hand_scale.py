"""Metres of a map from the hands in its pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.spatial.transform import Rotation

from ego_assets.operator import Intrinsics
from ego_assets.scene.colmap.hand_scale import scale_from_hands
from ego_assets.scene.colmap.metric_scale import MetricScale, ScaleError
from ego_assets.scene.colmap.registration import Registration
from ego_assets.vision.cameras import project_points
from samples.hand import GRASP, joints_in_hand

LENSES = [
    Intrinsics("PINHOLE", 500, 500, 320, 240),
    Intrinsics("OPENCV_FISHEYE", 300, 300, 320, 240, (-0.02, 0.03, -0.01, 0.002)),
]
METRES_A_UNIT = 0.04
FRAMES = 30
ZOOM = np.array([2.0, 2.0])
"""The map was made of pictures of half the size."""


def scene(
    lens: Intrinsics, *, presence: float = 0.95, score: float = 0.9, aside: float = 0.0
) -> tuple[list[dict[str, Any]], dict[int, Registration], np.ndarray]:
    """Hands that work at 0.5 m on a cluttered wall at that depth, in units of 4 cm.

    aside: how far off the middle they are, metres. The net says where joints are along the axes of
    a picture that is turned to the hand.
    """
    rng = np.random.default_rng(0)
    wall = np.column_stack(
        [rng.uniform(-0.4, 0.4, (400, 2)) + np.array([aside, 0.0]), rng.normal(0.5, 0.02, 400)]
    )
    pixels = project_points(lens, wall)
    found = Registration(
        np.eye(4), points=np.arange(400), xy=((pixels + 0.5) / ZOOM - 0.5).astype(np.float32)
    )
    hand = joints_in_hand(GRASP, side=1, scale=1.0)
    hand = hand - hand.mean(axis=0)
    rows = []
    for frame in range(FRAMES):
        middle = np.array(
            [aside + 0.1 * np.sin(frame), 0.05 * np.cos(frame), rng.normal(0.5, 0.02)]
        )
        axis = np.cross([0.0, 0.0, 1.0], middle / np.linalg.norm(middle))
        turn = axis / np.linalg.norm(axis) * np.arcsin(np.linalg.norm(axis))
        seen = hand @ Rotation.from_rotvec(turn).as_matrix()
        at = hand + middle
        rows.append(
            {
                "frame_index": frame,
                "keypoints_px": project_points(lens, at).tolist(),
                "keypoints_hand_m": seen.tolist(),
                "presence": presence,
                "score": score,
            }
        )
    return rows, dict.fromkeys(range(FRAMES), found), wall / METRES_A_UNIT


@pytest.mark.parametrize("lens", LENSES, ids=lambda lens: lens.model)
@pytest.mark.parametrize("aside", [0.0, 0.45])
def test_hands_at_work_tell_how_large_the_world_is(lens: Intrinsics, aside: float) -> None:
    """Also those that are far off the middle of the picture, as below a head camera."""
    rows, found, points = scene(lens, aside=aside)
    scale = scale_from_hands(pa.Table.from_pylist(rows), found, points, lens, ZOOM)
    assert scale.factor == pytest.approx(METRES_A_UNIT, rel=0.08)
    assert (scale.kind, scale.samples, scale.frames) == ("metric_hands", FRAMES, FRAMES)
    assert 0 < scale.spread < 0.15
    assert MetricScale.from_carried(scale.to_carried()) == scale, "the take goes on in it"


def test_hands_that_are_unsure_say_nothing() -> None:
    rows, found, points = scene(LENSES[0], presence=0.5)
    with pytest.raises(ScaleError, match="no hand"):
        scale_from_hands(pa.Table.from_pylist(rows), found, points, LENSES[0], ZOOM)


def test_a_robots_hand_is_no_measure() -> None:
    rows, found, points = scene(LENSES[0], score=0.38)
    with pytest.raises(ScaleError, match="no hand"):
        scale_from_hands(pa.Table.from_pylist(rows), found, points, LENSES[0], ZOOM)


def test_masks_without_joints_say_nothing() -> None:
    _, found, points = scene(LENSES[0])
    bare = pa.Table.from_pylist([{"frame_index": 0, "track_id": "t-h000"}])
    with pytest.raises(ScaleError, match="bring no joints"):
        scale_from_hands(bare, found, points, LENSES[0], ZOOM)


def test_a_frame_without_a_camera_says_nothing() -> None:
    rows, found, points = scene(LENSES[0])
    found |= {frame: Registration(None, reason="lost") for frame in range(0, FRAMES, 2)}
    scale = scale_from_hands(pa.Table.from_pylist(rows), found, points, LENSES[0], ZOOM)
    assert scale.frames == FRAMES // 2
