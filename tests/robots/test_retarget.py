"""Retargeting: fingertips reach what can be reached, takes go on, failures are said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ego_assets.hands.tables import HandPose
from ego_assets.operator import ClipInput, ClipOperator, Intrinsics
from ego_assets.robots.retargeting import (
    DexRetargeter,
    confidence_of,
    joints_in_hand,
    reason_against,
)
from ego_assets.robots.robot_hands import HUMAN_TIPS
from ego_assets.robots.settings import RetargetSettings
from ego_assets.robots.tables import REASONS, RobotMapping
from ego_assets.vision.geometry import quaternion_from_matrix

FPS = 30.0
ROTATION = np.array([[0.0, -1.0, 0.0], [0.6, 0.0, 0.8], [-0.8, 0.0, 0.6]])
WRIST = np.array([0.05, -0.02, 0.5])


def pose_row(joints: np.ndarray, frame: int, side: str = "right", **changes) -> dict:
    """A `hand_poses` row of joints (21, 3) given in the hand frame."""
    row = {
        "video_id": "0" * 16,
        "shard": "20260101-0000",
        "clip_id": "0-0000",
        "frame_index": frame,
        "pts_s": frame / FPS,
        "is_context": False,
        "track_id": "0-t000-h000",
        "side": side,
        "is_valid": True,
        "invalid_reason": None,
        "joints_px": [[0.0, 0.0]] * 21,
        "joints_camera_m": (joints @ ROTATION.T + WRIST).tolist(),
        "camera_from_hand_m": WRIST.tolist(),
        "camera_from_hand_xyzw": quaternion_from_matrix(ROTATION).tolist(),
        "mano_pose": None,
        "mano_betas": None,
        "box": [0.0, 0.0, 10.0, 10.0],
        "score": 1.0,
        "backend": "test",
        "quality_tier": "baseline",
    }
    return row | changes


def clip_of(rows: list[dict], start: int, end: int, context: int = 0) -> ClipInput:
    return ClipInput(
        clip={
            "video_id": "0" * 16,
            "shard": "20260101-0000",
            "clip_id": "0-0000",
            "take_id": "0-t000",
            "start_frame": start,
            "end_frame": end,
            "start_pts_s": start / FPS,
            "end_pts_s": end / FPS,
            "context_frames": context,
        },
        video={},
        frames=None,  # type: ignore[arg-type]
        intrinsics=Intrinsics("PINHOLE", 500, 500, 320, 180),
        tables={
            "hand_poses": HandPose.from_rows([r for r in rows if start <= r["frame_index"] < end])
        },
    )


def hand_of(tips: np.ndarray, reach: float) -> np.ndarray:
    """Human joints (21, 3) with given fingertips, whose middle chain is `reach` metres long."""
    joints = np.zeros((21, 3))
    for finger, index in enumerate(HUMAN_TIPS.values()):
        for step in range(4):
            joints[index - 3 + step] = tips[min(finger, len(tips) - 1)] * (step + 1) / 4
    # Three bones on a straight line would be too short: fold the middle finger out sideways.
    tip = joints[12]
    side = np.cross(tip, [0.0, 0.0, 1.0])
    side /= np.linalg.norm(side)
    bulge = np.sqrt(max((reach / 2) ** 2 - (np.linalg.norm(tip) / 2) ** 2, 0.0))
    peak = tip / 2 + side * bulge
    joints[9], joints[10], joints[11] = peak / 2, peak, (peak + tip) / 2
    return joints


def reachable_hands(operator: DexRetargeter, robot: str, count: int) -> list[np.ndarray]:
    """Hands whose scaled fingertips are the robot's own at smoothly changing joints."""
    solver, _ = operator.solver(robot, "right")
    rng = np.random.default_rng(3)
    lower, upper = solver.free_limits.T
    corners = rng.uniform(lower, upper, size=(count // 15 + 2, len(lower)))
    hands = []
    for frame in range(count):
        share = 0.5 - 0.5 * np.cos(np.pi * (frame % 15) / 15)
        q = corners[frame // 15] * (1 - share) + corners[frame // 15 + 1] * share
        tips = solver.fingertips(solver.clip(solver.expand(q))) @ solver.spec.wrist_from_hand
        hands.append(hand_of(tips, solver.reach_m))
    return hands


def settings(**changes) -> RetargetSettings:
    return RetargetSettings(**changes)


def errors_mm(rows: list[dict]) -> np.ndarray:
    return np.array([r["fingertip_error_m"] for r in rows]) * 1e3


def test_is_a_retargeter():
    operator = DexRetargeter(settings())
    assert isinstance(operator, ClipOperator)
    assert (operator.name, operator.version, operator.weights_hash) == ("dex_retargeting", "3", "")


@pytest.mark.parametrize("method", ["position", "vector", "dexpilot"])
@pytest.mark.parametrize("robot", ["ego_hand", "allegro_hand", "shadow_hand", "inspire_hand"])
def test_reachable_fingertips_are_reached_within_the_floor(robot, method, real_data: Path):
    operator = DexRetargeter(
        settings(
            robots=[robot],
            method=method,
            robots_dir=str(real_data / "robots"),
            low_pass_alpha=1.0,
        )
    )
    hands = reachable_hands(operator, robot, 60)
    rows = [pose_row(hand, i) for i, hand in enumerate(hands)]
    mapped = operator.process(clip_of(rows, 0, 60), None).tables["robot_mappings"]
    RobotMapping.from_rows(mapped)
    assert errors_mm(mapped).mean() < (10.0 if method == "dexpilot" else 3.0)
    assert all(r["within_limits"] for r in mapped)


def test_reported_error_is_the_distance_by_forward_kinematics():
    operator = DexRetargeter(settings(method="position"))
    hand = reachable_hands(operator, "ego_hand", 1)[0]
    hand[HUMAN_TIPS["index"]] += [0.05, 0.0, 0.05]
    row = operator.process(clip_of([pose_row(hand, 0)], 0, 1), None).tables["robot_mappings"][0]
    solver, _ = operator.solver("ego_hand", "right")
    tips = solver.fingertips(np.array(row["joint_positions"]))
    wanted = hand[list(HUMAN_TIPS.values())]
    np.testing.assert_allclose(
        row["fingertip_error_m"], np.linalg.norm(tips - wanted, axis=1), atol=1e-5
    )
    assert row["fingertip_names"][1] == "index_tip"
    assert row["fingertip_error_m"][1] > 0.005 > row["fingertip_error_m"][3]


@pytest.mark.parametrize("method", ["position", "vector", "dexpilot"])
def test_two_clips_of_a_take_equal_one_long_run(method):
    operator = DexRetargeter(settings(method=method, low_pass_alpha=0.4))
    hands = reachable_hands(operator, "ego_hand", 80)
    rows = [pose_row(hand, i) for i, hand in enumerate(hands)]
    whole = operator.process(clip_of(rows, 0, 80), None).tables["robot_mappings"]
    first = operator.process(clip_of(rows, 0, 50), None)
    later = DexRetargeter(settings(method=method, low_pass_alpha=0.4))
    second = later.process(clip_of(rows, 30, 80, context=20), first.carried)
    mapped = second.tables["robot_mappings"]
    assert [r["is_context"] for r in mapped] == [True] * 20 + [False] * 30
    for one, other in zip(whole[30:], mapped, strict=True):
        assert one["joint_positions"] == other["joint_positions"]
    cold = DexRetargeter(settings(method=method, low_pass_alpha=0.4))
    alone = cold.process(clip_of(rows, 30, 80, context=20), None).tables["robot_mappings"]
    assert alone[0]["joint_positions"] != mapped[0]["joint_positions"]


def test_carried_state_is_flat_and_bounded_in_time():
    operator = DexRetargeter(settings(carry_s=1.0))
    hands = reachable_hands(operator, "ego_hand", 80)
    rows = [pose_row(hand, i) for i, hand in enumerate(hands)]
    carried = operator.process(clip_of(rows, 0, 80), None).carried
    assert carried and all(isinstance(v, np.ndarray) for v in carried.values())
    frames = next(v for k, v in carried.items() if k.endswith("frame_index"))
    assert frames[-1] == 79 and len(frames) <= 46


def test_same_input_same_output():
    hands = reachable_hands(DexRetargeter(settings()), "ego_hand", 20)
    rows = [pose_row(hand, i) for i, hand in enumerate(hands)]
    runs = [DexRetargeter(settings()).process(clip_of(rows, 0, 20), None) for _ in range(2)]
    assert runs[0].tables == runs[1].tables


@pytest.mark.parametrize("robot", ["ego_hand", "allegro_hand"])
def test_left_hand_gets_the_joints_of_the_mirrored_right_hand(robot, real_data: Path):
    operator = DexRetargeter(settings(robots=[robot], robots_dir=str(real_data / "robots")))
    hands = reachable_hands(operator, robot, 10)
    right = [pose_row(hand, i) for i, hand in enumerate(hands)]
    left = [
        pose_row(hand * [1.0, -1.0, 1.0], i, side="left", track_id="0-t000-h001")
        for i, hand in enumerate(hands)
    ]
    rows = operator.process(clip_of(right + left, 0, 10), None).tables["robot_mappings"]
    assert [r["side"] for r in rows] == ["right"] * 10 + ["left"] * 10
    ours, theirs = ([r["joint_positions"] for r in rows[i : i + 10]] for i in (0, 10))
    np.testing.assert_allclose(ours, theirs, atol=2e-3)


def test_size_of_the_human_hand_does_not_matter():
    operator = DexRetargeter(settings())
    hands = reachable_hands(operator, "ego_hand", 10)
    small = [pose_row(hand * 0.7, i) for i, hand in enumerate(hands)]
    mapped = operator.process(clip_of(small, 0, 10), None).tables["robot_mappings"]
    assert errors_mm(mapped)[-1].mean() < 6.0


def test_invalid_poses_have_no_row_and_are_counted():
    operator = DexRetargeter(settings())
    hand = reachable_hands(operator, "ego_hand", 1)[0]
    rows = [
        pose_row(hand, 0),
        pose_row(hand, 1, is_valid=False, invalid_reason="presence low"),
        pose_row(hand * 0.0, 2),
    ]
    output = operator.process(clip_of(rows, 0, 3), None)
    assert [r["frame_index"] for r in output.tables["robot_mappings"]] == [0]
    assert sum(output.notes["poses_skipped"].values()) == 2
    nothing = operator.process(clip_of([], 0, 3), None)
    assert nothing.tables == {"robot_mappings": []}


def test_a_robot_is_no_surer_than_its_hand():
    operator = DexRetargeter(settings())
    hands = reachable_hands(operator, "ego_hand", 10)
    rows = [pose_row(hand, i, confidence=0.1 * i) for i, hand in enumerate(hands)]
    rows.append(pose_row(hands[-1], 10))
    mapped = operator.process(clip_of(rows, 0, 11), None).tables["robot_mappings"]
    assert all(r["is_valid"] and r["invalid_reason"] is None for r in mapped)
    np.testing.assert_allclose([r["confidence"] for r in mapped[:-1]], 0.1 * np.arange(10))
    assert mapped[-1]["confidence"] is None, "its hand has none"


@pytest.mark.parametrize(
    ("status", "inside", "errors_mm", "reason", "confidence"),
    [
        ("converged", True, [1, 2, 29, 3, 4], None, 0.8),
        ("converged", True, [1, 2, 90, 3, 4], None, 0.64),
        ("stopped", True, [50, 60, 70, 20, 90], "misses the fingertips", 0.16),
        ("converged", False, [1, 1, 1, 1, 1], "out of limits", 0.8),
        ("failed", False, [99] * 5, "solver failed", 0.0),
    ],
)
def test_joints_that_do_not_serve_are_not_valid(status, inside, errors_mm, reason, confidence):
    errors_m = np.array(errors_mm) / 1e3
    assert reason_against(status, inside, errors_m) == reason
    assert reason in (None, *REASONS)
    assert confidence_of(0.8, errors_m) == pytest.approx(confidence)


def test_solver_failures_are_said_and_never_printed(capfd, monkeypatch):
    operator = DexRetargeter(settings(method="position"))
    hands = reachable_hands(operator, "ego_hand", 3)
    rows = [pose_row(hand, i) for i, hand in enumerate(hands)]
    solver, _ = operator.solver("ego_hand", "right")
    good = operator.process(clip_of(rows[:1], 0, 1), None)

    def broken(*_: object) -> None:
        raise RuntimeError("nlopt failure")

    class BrokenOpt:
        def __getattr__(self, name: str):
            return broken

    monkeypatch.setattr(solver.optimizer, "opt", BrokenOpt())
    monkeypatch.setattr(BrokenOpt, "set_min_objective", lambda *_: None, raising=False)
    output = operator.process(clip_of(rows, 1, 3), good.carried)
    failed = output.tables["robot_mappings"]
    RobotMapping.from_rows(failed)
    assert [r["solver_status"] for r in failed] == ["failed", "failed"]
    before = good.tables["robot_mappings"][0]["joint_positions"]
    assert failed[0]["joint_positions"] == before
    assert "RuntimeError: nlopt failure" in output.notes["solver_problems"]
    assert capfd.readouterr().out == ""


def test_a_spent_budget_of_evaluations_is_a_stop():
    operator = DexRetargeter(settings(max_evaluations=5))
    hands = reachable_hands(operator, "ego_hand", 1)
    row = operator.process(clip_of([pose_row(hands[0], 0)], 0, 1), None).tables["robot_mappings"]
    assert row[0]["solver_status"] == "stopped"


def test_several_robots_have_a_row_each(real_data: Path):
    operator = DexRetargeter(
        settings(robots=["inspire_hand", "ego_hand"], robots_dir=str(real_data / "robots"))
    )
    hand = reachable_hands(operator, "ego_hand", 1)[0]
    rows = operator.process(clip_of([pose_row(hand, 0)], 0, 1), None).tables["robot_mappings"]
    assert [r["robot"] for r in rows] == ["ego_hand", "inspire_hand"]
    inspire = rows[1]
    by_name = dict(zip(inspire["joint_names"], inspire["joint_positions"], strict=True))
    leader = by_name["index_proximal_joint"]
    assert by_name["index_intermediate_joint"] == pytest.approx(
        1.06399 * leader - 0.04545, abs=1e-5
    )


def test_joints_in_hand_undoes_the_pose():
    joints = hand_of(np.eye(5, 3) * 0.1 + 0.05, 0.3)
    np.testing.assert_allclose(joints_in_hand(pose_row(joints, 0)), joints, atol=1e-9)


def test_follows_a_real_hand_within_ten_millimetres(real_data: Path):
    data = np.load(real_data / "groundtruth" / "hand_joint_sequence" / "right_hand_joints_a.npz")
    rows = []
    for frame, joints in enumerate(data["joints"][:120].astype(float)):
        x = joints[9] - joints[0]
        x /= np.linalg.norm(x)
        y = joints[5] - joints[17]
        y -= x * (x @ y)
        y /= np.linalg.norm(y)
        rows.append(pose_row((joints - joints[0]) @ np.stack([x, y, np.cross(x, y)], 1), frame))
    operator = DexRetargeter(settings())
    mapped = operator.process(clip_of(rows, 0, 120), None).tables["robot_mappings"]
    assert errors_mm(mapped).mean() < 10.0


def test_carried_state_survives_the_lake(tmp_path):
    lake_module = pytest.importorskip("resources.lake")
    operator = DexRetargeter(settings(method="dexpilot"))
    hands = reachable_hands(operator, "ego_hand", 40)
    rows = [pose_row(hand, i) for i, hand in enumerate(hands)]
    carried = operator.process(clip_of(rows, 0, 25), None).carried
    lake = lake_module.Lake(str(tmp_path))
    lake.write_carried("robot_mappings", "20260101-0000", "0-0000", carried)
    stored = lake.read_carried("robot_mappings", "20260101-0000", "0-0000")
    clip = clip_of(rows, 15, 40, context=10)
    assert operator.process(clip, stored).tables == operator.process(clip, carried).tables
