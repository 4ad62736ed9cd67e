"""What the confidence of cameras is fitted to: which poses count as right, and the fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.fitted_curve import fit, most_likely
from benchmarks.rendered_rooms import are_right, judged_rows, report, room
from ego_assets.scene.confidence import evidence_of
from ego_assets.vision.geometry import pose_matrix, quaternion_from_matrix
from tests.support.plane_scene import head_motion

FRAMES = 40


def row(frame: int, pose: np.ndarray, kind: str = "pnp") -> dict[str, Any]:
    return {
        "frame_index": frame,
        "is_valid": True,
        "registration": kind,
        "world_from_camera_m": pose[:3, 3].tolist(),
        "world_from_camera_xyzw": quaternion_from_matrix(pose[:3, :3]).tolist(),
    }


def turned(deg: float) -> np.ndarray:
    angle = np.radians(deg)
    c, s = np.cos(angle), np.sin(angle)
    return pose_matrix(np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]), np.zeros(3))


def test_poses_are_right_in_any_world_of_any_scale_and_wrong_where_they_are_off() -> None:
    truth = np.array([head_motion(f) for f in range(FRAMES)])
    world = pose_matrix(turned(40.0)[:3, :3], np.array([3.0, -2.0, 1.0]))
    poses = [world @ pose for pose in truth]
    for pose in poses:
        pose[:3, 3] *= 7.0
    path = 7.0 * float(np.linalg.norm(np.diff(truth[:, :3, 3], axis=0), axis=1).sum())
    rows = [row(f, pose) for f, pose in enumerate(poses)]
    assert are_right(rows, truth).all()
    poses[10][0, 3] += 0.1 * path
    poses[20] = poses[20] @ turned(5.0)
    rows = [row(f, pose) for f, pose in enumerate(poses)]
    assert np.flatnonzero(~are_right(rows, truth)).tolist() == [10, 20]


def test_a_static_camera_is_wrong_once_it_has_left_its_place() -> None:
    truth = np.tile(np.eye(4), (FRAMES, 1, 1))
    truth[30:, 0, 3] = 0.02
    rows = [row(f, np.eye(4), "static") for f in range(FRAMES)]
    assert np.flatnonzero(~are_right(rows, truth)).tolist() == list(range(30, FRAMES))


def test_a_curve_is_found_again() -> None:
    rng = np.random.default_rng(0)
    evidence = np.column_stack([np.ones(4000), rng.normal(size=4000)])
    odds = evidence @ [0.5, 2.0]
    right = (rng.random(4000) < 1 / (1 + np.exp(-odds))).astype(float)
    assert most_likely(evidence, right, np.arange(4000)) == pytest.approx([0.5, 2.0], abs=0.2)


def test_rows_of_a_room_are_judged_by_curves_of_other_rooms() -> None:
    """A room whose rows are all wrong, with the evidence of right ones, is not foreseen."""
    good = {"inlier_share": 0.95, "reprojection_error_px": 0.2, "fx_px": 300.0}
    good |= {"registration": "static", "is_valid": True}
    rows = [good | {"group": n, "is_right": n != 3} for n in range(10) for _ in range(20)]
    found = fit(rows, evidence_of)
    assert min(found.held_out[60:80]) > 0.9
    assert report(rows).count("off by") == 2
    alone = report([r for r in rows if r["group"] == 3])
    assert "in use: off by" in alone
    assert "held out" not in alone, "there is nothing else to fit a curve to"


@pytest.mark.slow
def test_a_room_is_rendered_and_judged_by_what_its_rows_say() -> None:
    seed = next(n for n in range(100) if room(n).pace == 1.0 and room(n).is_calibrated)
    assert room(seed) == room(seed)
    rows = judged_rows(room(seed))
    assert {r["group"] for r in rows} == {seed}
    assert np.mean([r["is_right"] for r in rows]) > 0.5
    assert all(np.isfinite(evidence_of(r)).all() for r in rows)
