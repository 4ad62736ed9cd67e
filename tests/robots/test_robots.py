"""Robot hands: the generated files are up to date, the frames are as promised, names resolve."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ego_assets.operator import BadInputError
from ego_assets.robots import build_ego_hand
from ego_assets.robots.robot_hands import (
    FINGERS,
    UnknownRobotError,
    find_robot,
    known_robots,
    mimic_joints,
)
from ego_assets.robots.solver import HandSolver

HANDS = ("ego_hand", "allegro_hand", "shadow_hand", "inspire_hand")
MIRROR = np.array([1.0, -1.0, 1.0])


@pytest.fixture
def robots_dir(real_data: Path) -> Path:
    return real_data / "robots"


def _solver(name: str, folder: Path | None, side: str = "right") -> HandSolver:
    spec = find_robot(name, folder)
    urdf = spec.urdf(side)[0]
    return HandSolver(spec.of(urdf), urdf, "position")


def test_generated_files_are_up_to_date():
    for name, text in build_ego_hand.files().items():
        path = build_ego_hand.FOLDER / name
        assert path.read_text(encoding="utf-8") == text, (
            f"{name} is stale: run python -m ego_assets.robots.build_ego_hand"
        )


def test_own_hand_has_sixteen_free_joints_and_a_human_size():
    solver = _solver("ego_hand", None)
    assert len(solver.free) == 16
    assert 0.17 < solver.reach_m < 0.21
    assert {m.joint for m in mimic_joints(find_robot("ego_hand").urdf("right")[0])} == {
        f"{finger}_distal_joint" for finger in FINGERS if finger != "thumb"
    }


def test_left_hand_mirrors_the_right_one_joint_by_joint():
    right, left = _solver("ego_hand", None), _solver("ego_hand", None, "left")
    assert right.joint_names == left.joint_names
    rng = np.random.default_rng(1)
    lower, upper = right.free_limits.T
    for _ in range(20):
        q = right.expand(rng.uniform(lower, upper))
        np.testing.assert_allclose(left.fingertips(q), right.fingertips(q) * MIRROR, atol=1e-6)


@pytest.mark.parametrize("name", HANDS)
def test_hand_frame_has_fingers_along_x_thumb_at_y_and_palm_at_minus_z(name, robots_dir):
    solver = _solver(name, robots_dir)
    to_hand = solver.spec.wrist_from_hand
    zero = solver.expand(np.clip(np.zeros(len(solver.free)), *solver.free_limits.T))
    curled = solver.expand(np.clip(solver.free_limits[:, 1] * 0.4, *solver.free_limits.T))
    open_tips, closed_tips = solver.fingertips(zero) @ to_hand, solver.fingertips(curled) @ to_hand
    index, last = solver.fingers.index("index"), len(solver.fingers) - 1
    assert open_tips[index, 0] > 0.15
    assert open_tips[0, 1] > open_tips[index, 1] > open_tips[last, 1]
    assert closed_tips[index, 2] < open_tips[index, 2] - 0.03


def test_stored_float32_positions_stay_inside_the_limits():
    solver = _solver("ego_hand", None)
    beyond = solver.clip(solver.limits[:, 1] + 1.0).astype(np.float32).astype(np.float64)
    below = solver.clip(solver.limits[:, 0] - 1.0).astype(np.float32).astype(np.float64)
    assert (beyond <= solver.limits[:, 1]).all()
    assert (below >= solver.limits[:, 0]).all()


def test_unknown_names_list_what_there_is(robots_dir, tmp_path):
    assert known_robots(robots_dir) == sorted(HANDS)
    with pytest.raises(UnknownRobotError, match=r"'gripper'.*allegro_hand.*shadow_hand"):
        find_robot("gripper", robots_dir)
    with pytest.raises(UnknownRobotError, match="robots_dir"):
        find_robot("allegro_hand")
    with pytest.raises(UnknownRobotError, match="not a folder"):
        find_robot("allegro_hand", tmp_path / "absent")
    assert issubclass(UnknownRobotError, BadInputError)


def test_a_right_hand_only_serves_left_hands_mirrored(robots_dir):
    path, mirrored = find_robot("shadow_hand", robots_dir).urdf("left")
    assert mirrored and "right" in path.name
    assert find_robot("ego_hand").urdf("left")[1] is False


def test_a_urdf_of_another_version_is_refused(tmp_path):
    folder = tmp_path / "allegro_hand"
    folder.mkdir()
    (folder / "allegro_hand_right.urdf").write_text(build_ego_hand.urdf("right"))
    spec = find_robot("allegro_hand", tmp_path)
    with pytest.raises(BadInputError, match=r"link_15\.0_tip"):
        HandSolver(spec, spec.urdf("right")[0], "vector")
    (folder / "allegro_hand_right.urdf").write_text("no xml")
    with pytest.raises(BadInputError):
        HandSolver(spec, spec.urdf("right")[0], "vector")
