"""The hands of dex-urdf: selected by name from its folders, with dex_retargeting's own names.

The URDFs here are our own hand under the names, and in the frames, of each of those robots.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from dex_retargeting.constants import (
    HandType,
    RetargetingType,
    RobotName,
    get_default_config_path,
)
from scipy.spatial.transform import Rotation

from ego_assets.robots import build_ego_hand
from ego_assets.robots.retargeting import DexRetargeter
from ego_assets.robots.robot_hands import UnknownRobotError, find_robot, known_robots
from ego_assets.robots.solver import HandSolver
from tests.robots.test_retarget import clip_of, errors_mm, pose_row, reachable_hands, settings

FINGERS = ("thumb", "index", "middle", "ring", "little")
# Where fingers, thumb and palm are in the wrist frames of dex-urdf's files, measured by forward
# kinematics of its version of December 2024.
WRIST_FRAMES = {
    "shadow_left": ("+z", "-x", "-y"),
    "svh_right": ("+z", "-x", "+y"),
    "svh_left": ("+z", "+x", "+y"),
}
HANDS = [(robot, side) for robot in RobotName if robot is not RobotName.panda for side in HandType]


def shipped(robot: RobotName, side: HandType) -> dict[str, Any]:
    path = get_default_config_path(robot, RetargetingType.dexpilot, side)
    assert path is not None
    return yaml.safe_load(path.read_text())["retargeting"]


def tiny_urdf(robot: RobotName, side: HandType) -> str:
    """Our own hand, hung on a wrist link with the name and the frame of that robot's."""
    config = shipped(robot, side)
    text = build_ego_hand.urdf(side.name)
    for finger, link in zip(FINGERS, config["finger_tip_link_names"], strict=False):
        text = text.replace(f'"{finger}_tip"', f'"{link}"')
    axes = {"x": np.eye(3)[0], "y": np.eye(3)[1], "z": np.eye(3)[2]}
    usual = ("+z", "+y" if side is HandType.right else "-y", "+x")
    names = WRIST_FRAMES.get(f"{robot.name}_{side.name}", usual)
    fingers, thumb, palm = (axes[n[1]] * (1 if n[0] == "+" else -1) for n in names)
    turn = np.column_stack([fingers, np.cross(-palm, fingers), -palm])
    assert np.allclose(turn[:, 1], thumb if side is HandType.right else -thumb)
    rpy = " ".join(
        str(v) for v in Rotation.from_matrix(turn).as_euler("xyz", suppress_warnings=True)
    )
    text = text.replace('"wrist"', '"of_the_hand_frame"')
    wrist = config["wrist_link_name"]
    joints = "".join(
        f'<link name="{parent}"/><joint name="{name}" type="revolute"><parent link="{parent}"/>'
        f'<child link="{child}"/><axis xyz="1 0 0"/><limit lower="-0.5" upper="0.3" effort="1" '
        'velocity="1"/></joint>'
        for name, parent, child in (("WRJ2", "world", "forearm"), ("WRJ1", "forearm", wrist))
        if robot is RobotName.shadow
    )
    added = (
        f'{joints}<link name="{wrist}"/><joint name="to_the_hand" type="fixed"><parent '
        f'link="{wrist}"/><child link="of_the_hand_frame"/><origin xyz="0 0 0" rpy="{rpy}"/>'
        "</joint></robot>"
    )
    return text.replace("</robot>", added)


@pytest.fixture(scope="module")
def dex_urdf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dex-urdf")
    for robot, side in HANDS:
        path = root / "robots" / "hands" / shipped(robot, side)["urdf_path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(tiny_urdf(robot, side))
        path.with_name(f"{path.stem}_glb.urdf").write_text("not this one")
    (root / "robots/hands/shadow_hand/bimanual.urdf").write_text("nor this one")
    return root


def test_each_hand_is_that_of_the_shipped_configuration(dex_urdf: Path) -> None:
    for robot, side in HANDS:
        config = shipped(robot, side)
        spec = find_robot(robot.name, dex_urdf)
        urdf, mirrored = spec.urdf(side.name)
        assert not mirrored
        assert urdf == dex_urdf / "robots" / "hands" / config["urdf_path"]
        assert spec.of(urdf).wrist_link == config["wrist_link_name"]
        assert [*spec.of(urdf).fingertips.values()] == config["finger_tip_link_names"]
        assert [*spec.of(urdf).fingertips] == list(FINGERS[: len(spec.fingertips)])


@pytest.mark.parametrize("place", ["", "robots", "robots/hands"])
def test_any_part_of_a_checkout_will_do(dex_urdf: Path, place: str) -> None:
    names = ["ability", "allegro", "inspire", "leap", "schunk_svh", "shadow"]
    wanted = sorted(["ego_hand", *[f"{n}_hand" for n in names]])
    assert known_robots(dex_urdf / place) == wanted
    assert find_robot("svh", dex_urdf / place).name == "schunk_svh_hand"


def test_every_hand_in_one_run(dex_urdf: Path) -> None:
    """Both sides of all robots; a left hand gets the left URDF, and the right one's joints."""
    robots = [robot.name for robot in RobotName if robot is not RobotName.panda]
    operator = DexRetargeter(settings(robots=robots, robots_dir=str(dex_urdf), low_pass_alpha=1.0))
    hands = reachable_hands(operator, "schunk_svh_hand", 5)
    rows = [pose_row(hand, i) for i, hand in enumerate(hands)]
    rows += [
        pose_row(hand * [1.0, -1.0, 1.0], i, side="left", track_id="0-t000-h001")
        for i, hand in enumerate(hands)
    ]
    found = operator.process(clip_of(rows, 0, 5), None).tables["robot_mappings"]
    assert len(found) == 6 * 2 * 5
    for name in {r["robot"] for r in found}:
        mine = [r for r in found if r["robot"] == name]
        for side in ("right", "left"):
            errors = errors_mm([r for r in mine if r["side"] == side])
            assert errors.mean() < 4.0, (name, side)
        right, left = (
            [r["joint_positions"] for r in mine if r["side"] == s] for s in ("right", "left")
        )
        np.testing.assert_allclose(right, left, atol=0.02, err_msg=name)
    wrist = operator.solver("shadow_hand", "left")[0]
    at = [wrist.joint_names.index(j) for j in ("WRJ1", "WRJ2")]
    shadow = [r["joint_positions"] for r in found if r["robot"] == "shadow_hand"]
    assert not np.array(shadow)[:, at].any()


def test_a_hand_that_is_not_there_says_where_to_get_it(tmp_path: Path) -> None:
    for folder in (None, tmp_path):
        with pytest.raises(UnknownRobotError) as caught:
            find_robot("leap", folder)
        text = str(caught.value)
        assert "leap_hand needs leap_hand/leap_hand_right.urdf" in text
        assert "git clone https://github.com/dexsuite/dex-urdf" in text
    with pytest.raises(UnknownRobotError, match="no robot hand named 'panda'"):
        find_robot("panda", tmp_path)


def test_a_hand_of_one_side_serves_both(dex_urdf: Path, tmp_path: Path) -> None:
    (tmp_path / "leap_hand").mkdir()
    whole = dex_urdf / "robots/hands/leap_hand/leap_hand_left.urdf"
    (tmp_path / "leap_hand/leap_hand_left.urdf").write_text(whole.read_text())
    urdf, mirrored = find_robot("leap", tmp_path).urdf("right")
    assert mirrored
    spec = find_robot("leap", tmp_path)
    assert HandSolver(spec.of(urdf), urdf, "vector").reach_m > 0.15
