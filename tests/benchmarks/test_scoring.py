"""Metrics against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import scoring


def mask(*columns: int, width: int = 10) -> np.ndarray:
    """(1, width) mask of the given columns."""
    made = np.zeros((1, width), dtype=bool)
    made[0, list(columns)] = True
    return made


def turn_z(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def poses(centres: list[list[float]], rotation: np.ndarray | None = None) -> np.ndarray:
    made = np.tile(np.eye(4), (len(centres), 1, 1))
    made[:, :3, 3] = centres
    if rotation is not None:
        made[:, :3, :3] = rotation
    return made


def test_cuts_match_one_to_one_within_the_tolerance():
    score = scoring.score_cuts([10, 11, 50, 99], [10, 52, 100, 200], tolerance=1)
    assert (score.hits, score.false_alarms, score.misses) == (2, 2, 2)
    assert (score.precision, score.recall, score.f1) == (0.5, 0.5, 0.5)


def test_neighbouring_cuts_take_the_matching_with_most_hits():
    assert scoring.score_cuts([11, 12], [10, 12], tolerance=1).hits == 2
    assert scoring.score_cuts([9, 11], [10, 12], tolerance=1).hits == 2


def test_no_cuts_at_all_is_perfect_and_one_false_cut_is_not():
    assert scoring.score_cuts([], []).f1 == 1.0
    assert scoring.score_cuts([5], []).f1 == 0.0
    assert scoring.score_cuts([5], []).precision == 0.0
    assert scoring.score_cuts([], [5]).recall == 0.0


def test_gradual_changes_match_anywhere_inside_once():
    score = scoring.score_intervals([92, 104, 300], [(90, 105), (195, 225)])
    assert (score.hits, score.false_alarms, score.misses) == (1, 2, 1)


def test_scores_add_up():
    total = scoring.DetectionScore(1, 0, 1) + scoring.DetectionScore(2, 1, 0)
    assert total == scoring.DetectionScore(3, 1, 1)


def test_mask_iou_over_visible_frames_counts_missing_masks_as_zero():
    scorer = scoring.MaskScorer()
    scorer.add({"cup": mask(0, 1, 2, 3)}, {"o0": mask(1, 2, 3, 4)})  # 3 of 5
    scorer.add({"cup": mask(0, 1)}, {"o0": mask(0, 1)})  # 1
    scorer.add({"cup": mask(0, 1)}, {})  # 0
    scorer.add({"cup": mask()}, {"o0": mask(7)})  # not visible
    assert scorer.mean_iou() == pytest.approx((0.6 + 1.0 + 0.0) / 3)
    assert scorer.assignment() == {"cup": "o0"}
    assert scorer.unmatched == 1


def test_tracks_are_assigned_one_to_one_by_the_hungarian_method():
    scorer = scoring.MaskScorer()
    # Greedily a takes x (0.75) and leaves b with nothing; together a-y and b-x is better.
    true = {"a": mask(0, 1, 2, 3), "b": mask(2, 3)}
    scorer.add(true, {"x": mask(1, 2, 3), "y": mask(0, 1, 2)})
    # a-x 3/4, a-y 3/4, b-x 2/3, b-y 1/4
    assert scorer.assignment() == {"a": "y", "b": "x"}
    assert scorer.mean_iou() == pytest.approx((3 / 4 + 2 / 3) / 2)


def test_switches_count_changes_of_identity_also_after_a_gap():
    scorer = scoring.MaskScorer()
    cup, jug = mask(0, 1), mask(5, 6)
    scorer.add({"cup": cup, "jug": jug}, {"1": cup, "2": jug})
    scorer.add({"cup": cup, "jug": jug}, {"1": jug, "2": cup})  # two switches
    scorer.add({"cup": cup, "jug": jug}, {"1": jug})
    scorer.add({"cup": cup, "jug": jug}, {"1": jug, "3": cup})  # cup: 2 to 3
    assert scorer.switches == 3


def test_one_object_in_two_tracks_has_half_the_frames_and_one_switch():
    scorer = scoring.MaskScorer()
    for track in ("1", "1", "1", "2"):
        scorer.add({"cup": mask(0, 1)}, {track: mask(0, 1)})
    assert scorer.mean_iou() == pytest.approx(0.75)
    assert scorer.switches == 1


def test_masks_without_truth_are_nan():
    assert np.isnan(scoring.MaskScorer().mean_iou())


def test_cameras_are_compared_up_to_a_similarity():
    true = poses([[0, 0, 0], [3, 0, 0], [3, 4, 0], [3, 4, 2]])
    moved = poses((true[:, :3, 3] @ turn_z(40).T * 0.1 + [5, 6, 7]).tolist(), turn_z(40))
    score = scoring.score_cameras(moved, true)
    assert score.path_length == pytest.approx(9.0)
    assert score.scale == pytest.approx(10.0)
    assert score.position_share == pytest.approx(0.0, abs=1e-9)
    assert score.rotation_deg == pytest.approx(0.0, abs=1e-5)


def test_camera_error_is_rms_over_the_path_length():
    # A square of side 2: one corner lifted by d and the next lowered, which no fit takes away.
    true = poses([[1, 1, 0], [-1, 1, 0], [-1, -1, 0], [1, -1, 0]])
    bent = true.copy()
    bent[:, 2, 3] = [0.3, -0.3, 0.3, -0.3]
    score = scoring.score_cameras(bent, true)
    scale = 8.0 / (8.0 + 4 * 0.09)  # least squares: <a, b> over <a, a>
    expected = np.sqrt(2 * (1 - scale) ** 2 + (scale * 0.3) ** 2) / 6.0
    assert score.position_share == pytest.approx(expected)
    assert scoring.score_cameras(bent, true, 60.0).position_share == pytest.approx(expected / 10)


def test_camera_rotation_error_is_what_the_path_does_not_explain():
    true = poses([[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]])
    found = true.copy()
    found[:, :3, :3] = turn_z(3.0)
    score = scoring.score_cameras(found, true)
    assert score.rotation_deg == pytest.approx(3.0)
    assert score.own_rotation_deg == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(ValueError, match="three"):
        scoring.score_cameras(found[:2], true[:2])


def test_object_rotation_is_relative_to_first_sight():
    true = np.stack([turn_z(10), turn_z(30), turn_z(70)])
    frame = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])
    found = np.stack([turn_z(10), turn_z(32), turn_z(65)]) @ frame
    np.testing.assert_allclose(
        scoring.relative_rotation_errors_deg(found, true), [0, 2, 5], atol=1e-6
    )


def test_joint_errors_are_shares_of_the_hand_box():
    true = np.array([[[0.0, 0.0], [40.0, 20.0], [10.0, np.nan]]])
    found = true + np.array([3.0, 4.0])
    errors = scoring.joint_errors(found, true)
    np.testing.assert_allclose(errors, [[0.125, 0.125, np.nan]])
    assert scoring.pck(errors, 0.2) == 1.0
    assert scoring.pck(errors, 0.1) == 0.0
    assert scoring.pck(np.array([0.05, 0.15, 0.25, 0.1]), 0.1) == 0.5


def test_aligned_joint_error_forgives_a_similarity_only():
    rng = np.random.default_rng(0)
    joints = rng.normal(size=(21, 3))
    assert scoring.aligned_joint_error(joints @ turn_z(33).T * 2 + 1, joints) < 1e-9
    assert scoring.aligned_joint_error(joints * [1, 1, 2], joints) > 0.1
