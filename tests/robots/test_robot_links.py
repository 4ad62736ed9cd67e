"""The picture of a robot hand: its links are where the solver has them, each finger in its colour
below the human hand."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest

from ego_assets.hands.tables import HandPose
from ego_assets.operator import BadInputError
from ego_assets.robots.links import LinkTree
from ego_assets.robots.preview import COLORS, hands_plot
from ego_assets.robots.retargeting import DexRetargeter
from ego_assets.robots.robot_hands import find_robot
from ego_assets.robots.solver import HandSolver
from ego_assets.robots.tables import RobotMapping
from tests.robots.test_retarget import clip_of, pose_row, reachable_hands, settings

pytestmark = pytest.mark.slow
MIRROR = np.array([1.0, -1.0, 1.0])


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", ["ego_hand", "allegro_hand", "shadow_hand", "inspire_hand"])
def test_every_fingertip_is_where_the_solver_has_it(name: str, side: str, real_data: Path) -> None:
    found = find_robot(name, real_data / "robots")
    urdf, mirrored = found.urdf(side)
    spec = found.of(urdf)
    solver = HandSolver(spec, urdf, "position")
    positions = solver.clip(solver.expand(solver.free_limits.mean(axis=1)))
    joints = dict(zip(solver.joint_names, positions, strict=True))
    tree = LinkTree(spec, urdf)
    links = {link.name: link for link in tree.pictures(joints, mirrored)}
    tips = solver.fingertips(positions) @ spec.wrist_from_hand * (MIRROR if mirrored else 1)
    for finger, link, tip in zip(solver.fingers, solver.tip_links, tips, strict=True):
        np.testing.assert_allclose(links[link].bone[1], tip, atol=1e-6)
        assert links[link].finger == finger
    np.testing.assert_allclose(links[spec.wrist_link].bone[1], 0, atol=1e-9)
    assert set(tree.fingers_of_joints().values()) == set(solver.fingers)


def test_shapes_of_a_link_lie_around_its_bone() -> None:
    spec = find_robot("ego_hand")
    links = LinkTree(spec, spec.urdf("right")[0]).pictures({}, mirrored=False)
    middle = next(link for link in links if link.name == "middle_proximal")
    after = next(link for link in links if link.name == "middle_middle")
    (box,) = middle.parts
    assert (box.min(axis=0) <= after.bone.min(axis=0) + 1e-6).all()
    assert (box.max(axis=0) >= after.bone.max(axis=0) - 1e-6).all()


def test_another_version_of_a_hand_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "hand.urdf"
    broken.write_text("no xml")
    with pytest.raises(BadInputError, match=r"hand\.urdf"):
        LinkTree(find_robot("ego_hand"), broken)


def pictured(robots_dir: str | None = None, robot: str = "ego_hand") -> np.ndarray:
    """What `hands_plot` draws of six frames, of a robot that lies in `robots_dir` or nowhere."""
    operator = DexRetargeter(settings())
    poses = [pose_row(h, i) for i, h in enumerate(reachable_hands(operator, "ego_hand", 6))]
    mapped = operator.process(clip_of(poses, 0, 6), None).tables["robot_mappings"]
    tables: dict[str, pa.Table] = {
        "robot_mappings": RobotMapping.from_rows([row | {"robot": robot} for row in mapped]),
        "hand_poses": HandPose.from_rows(poses),
    }
    made = SimpleNamespace(settings=json.dumps({"robots_dir": robots_dir}))
    lake: Any = SimpleNamespace(read=lambda table, shard: tables[table], provenance=lambda *_: made)
    raw: Any = None
    media, data = hands_plot(lake, "robot_mappings", "20260101-0000", raw) or ("", b"")
    assert media == "image/png"
    assert len(data) < 120_000
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), 1), cv2.COLOR_BGR2RGB)


def has_color(part: np.ndarray, color: str) -> bool:
    wanted = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
    return bool((np.abs(part.astype(int) - wanted).max(axis=-1) < 16).sum() > 30)


def test_the_picture_shows_both_hands_and_a_legend() -> None:
    image = pictured()
    height, width = image.shape[:2]
    assert width == 800
    human, robot = image[: int(0.28 * height)], image[int(0.32 * height) : int(0.55 * height)]
    legend = image[int(0.94 * height) :]
    for finger, color in COLORS.items():
        for part in (human, robot, legend):
            assert has_color(part, color), finger


def test_a_robot_that_is_not_there_leaves_the_rest() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = pictured(robot="gone_hand")
    height = image.shape[0]
    assert height < 0.75 * pictured().shape[0]
    assert has_color(image[: height // 2], COLORS["index"])
