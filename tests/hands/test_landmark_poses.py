"""Hand poses by landmarks: metres through the true lens, fixed bones, gaps, and what is valid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ego_assets.catalog import TABLES
from ego_assets.hands.landmarks.estimator import LandmarksHandEstimator
from ego_assets.hands.landmarks.space import lengths_of, place, with_lengths
from ego_assets.hands.landmarks.validity import HandFacts, confidence_of, reason_against
from ego_assets.hands.settings import HandPoseSettings
from ego_assets.hands.tables import REASONS
from ego_assets.operator import ClipInput, Intrinsics
from ego_assets.vision.cameras import project_points
from ego_assets.vision.rle import encode_mask
from samples.hand import GRASP, joints_in_hand

LENSES = [
    Intrinsics("PINHOLE", 600, 600, 320, 240),
    Intrinsics("OPENCV", 600, 600, 320, 240, (-0.2, 0.05, 0.001, 0.001)),
    Intrinsics("OPENCV_FISHEYE", 300, 300, 320, 240, (-0.02, 0.03, -0.01, 0.002)),
]

AHEAD = np.array([0, 0, 0.4])


def true_hand(turn: tuple[float, float, float] = (0.4, 0.2, 0.1)) -> np.ndarray:
    """(21, 3) a right hand, about its middle."""
    joints = joints_in_hand(GRASP, side=1, scale=1.0)
    joints = joints @ Rotation.from_rotvec(turn).as_matrix().T
    return joints - joints.mean(axis=0)


@pytest.mark.parametrize("lens", LENSES, ids=lambda lens: lens.model)
@pytest.mark.parametrize("where", [(0.0, 0.0, 0.4), (0.2, -0.12, 0.45), (-0.18, 0.15, 0.5)])
def test_a_hand_is_placed_through_the_true_lens(
    lens: Intrinsics, where: tuple[float, float, float]
) -> None:
    hand, middle = true_hand(), np.array(where)
    # The net sees it along its own ray.
    axis = np.cross([0, 0, 1.0], middle / np.linalg.norm(middle))
    seen = hand @ Rotation.from_rotvec(axis).as_matrix()
    found = place(seen, project_points(lens, hand + middle), lens)
    assert found is not None
    assert np.linalg.norm(found.joints - (hand + middle), axis=1).max() < 0.002
    assert found.residual < 0.001


def test_a_place_beyond_the_lens_is_none() -> None:
    points = project_points(LENSES[2], true_hand() + AHEAD) + 5000
    assert place(true_hand(), points, LENSES[2]) is None


def test_bones_get_the_lengths_that_are_given() -> None:
    hands = np.stack([true_hand(), 1.3 * true_hand((1.0, 0, 0))])
    lengths = lengths_of(hands)[0]
    found = with_lengths(hands, lengths)
    assert lengths_of(found) == pytest.approx(np.stack([lengths, lengths]))


def mask_row(frame: int, points: np.ndarray, hand: np.ndarray, **more: Any) -> dict[str, Any]:
    low, high = points.min(axis=0), points.max(axis=0)
    mask = np.zeros((480, 640), bool)
    mask[int(low[1]) : int(high[1]) + 1, int(low[0]) : int(high[0]) + 1] = True
    row = {
        "video_id": "a" * 16,
        "shard": "20260101-0000",
        "clip_id": "a" * 16 + "-0000",
        "frame_index": frame,
        "pts_s": frame / 30,
        "is_context": False,
        "track_id": "t-h000",
        "label": "hand",
        "score": 0.95,
        "box": [*low.tolist(), *high.tolist()],
        "area_px": int(mask.sum()),
        "height_px": 480,
        "width_px": 640,
        "rle": encode_mask(mask),
        "side": "right",
        "is_wearer": True,
        "keypoints_px": points.tolist(),
        "keypoints_hand_m": hand.tolist(),
        "presence": 0.98,
        "side_score": 0.99,
        "backend": "landmarks",
        "quality_tier": "learned",
    }
    return row | more


class _Frames:
    width, height = 640, 480
    times_s = np.arange(100) / 30

    def time_of(self, frame_index: int) -> float:
        return float(self.times_s[frame_index])

    def read(self, **_: Any) -> Any:
        raise AssertionError("no frame has to be decoded where masks bring joints")


def clip_of(rows: list[dict[str, Any]], frames: Any = None) -> ClipInput:
    clip = {
        "clip_id": "a" * 16 + "-0000",
        "take_id": "t",
        "video_id": "a" * 16,
        "shard": "20260101-0000",
        "start_frame": 0,
        "context_frames": 0,
        "index_in_take": 0,
    }
    tables = {"hand_masks": TABLES["hand_masks"].from_rows(rows)}
    return ClipInput(clip, {}, frames or _Frames(), LENSES[0], tables)


def estimator(root: Path) -> LandmarksHandEstimator:
    return LandmarksHandEstimator(HandPoseSettings(), root)


def test_rows_say_what_was_measured_smoothed_and_filled(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    hand = true_hand()
    rows, true = [], {}
    for frame in range(30):
        true[frame] = hand + AHEAD + np.array([0.002 * frame, 0.0, 0.0])
        points = project_points(LENSES[0], true[frame])
        if frame not in (12, 13):
            noisy = points + rng.normal(0, 1.0, points.shape)
            rows.append(mask_row(frame, noisy, hand * rng.normal(1, 0.05)))
    output = estimator(tmp_path).process(clip_of(rows), None)
    found = {r["frame_index"]: r for r in output.tables["hand_poses"]}
    TABLES["hand_poses"].from_rows(found.values())
    assert sorted(found) == list(range(30))
    assert {f for f, r in found.items() if r["joints_origin"] == "filled"} == {12, 13}
    assert {found[f]["invalid_reason"] for f in (12, 13)} == {"not measured"}
    assert found[5]["joints_origin"] == "smoothed"
    measured = np.array(found[5]["measured_px"])
    exact = project_points(LENSES[0], true[5])
    error = [np.abs(np.array(p) - exact).mean() for p in (found[5]["joints_px"], measured)]
    assert error[0] < 0.6 * error[1]
    lengths = lengths_of(np.array([r["joints_camera_m"] for r in found.values()]))
    assert np.ptp(lengths, axis=0).max() < 1e-6, "bones are of one length through the take"
    valid = [r for r in found.values() if r["is_valid"]]
    assert len(valid) == 28
    apart = [np.array(r["joints_camera_m"]) - true[r["frame_index"]] for r in valid]
    assert np.linalg.norm(np.array(apart), axis=2).mean() < 0.03
    again = estimator(tmp_path).process(clip_of(rows[:3]), output.carried)
    joints = np.array([r["joints_camera_m"] for r in again.tables["hand_poses"]])
    assert lengths_of(joints)[0] == pytest.approx(lengths[0], abs=1e-6)


def test_filled_rows_have_the_times_of_their_frames(tmp_path: Path) -> None:
    """A video of a variable rate: frame numbers say nothing of times."""
    frames = _Frames()
    frames.times_s = np.cumsum(np.random.default_rng(3).uniform(0.005, 0.06, 20))
    hand = true_hand()
    points = project_points(LENSES[0], hand + AHEAD)
    rows = [
        mask_row(frame, points, hand, pts_s=frames.time_of(frame))
        for frame in range(20)
        if frame not in (7, 8, 9)
    ]
    made = estimator(tmp_path).process(clip_of(rows, frames), None).tables["hand_poses"]
    assert {r["frame_index"] for r in made if r["joints_origin"] == "filled"} == {7, 8, 9}
    assert [r["pts_s"] for r in made] == frames.times_s.tolist()


def test_a_look_that_bends_backward_takes_the_shape_of_those_around_it(tmp_path: Path) -> None:
    hand = true_hand()
    backward = hand * np.array([1.0, 1.0, -1.0])
    points = project_points(LENSES[0], hand + AHEAD)

    def poses(wrong: tuple[int, ...]) -> list[dict[str, Any]]:
        rows = [mask_row(f, points, backward if f in wrong else hand) for f in range(20)]
        return estimator(tmp_path).process(clip_of(rows), None).tables["hand_poses"]

    found = poses((4, 5, 6))
    assert all(row["is_valid"] for row in found)
    joints = np.array([row["joints_camera_m"] for row in found])
    shapes = joints - joints.mean(axis=1, keepdims=True)
    assert np.abs(shapes[5] - shapes[15]).max() < 0.003
    assert {row["invalid_reason"] for row in poses(tuple(range(20)))} == {"bends backward"}
    far = poses(tuple(range(3, 20)))
    assert far[3]["is_valid"], "a look near by has another shape"
    assert far[19]["invalid_reason"] == "bends backward", "none is near"
    joints = np.array([row["joints_camera_m"] for row in far])
    shapes = joints - joints.mean(axis=1, keepdims=True)
    assert np.abs(shapes[7] - shapes[0]).max() < 0.003, "and nothing of those that bend backward"


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({}, None),
        ({"presence": 0.5}, "presence low"),
        ({"score": 0.2}, "not a plausible hand"),
        ({"side_score": 0.5}, "side unsure"),
    ],
)
def test_what_is_doubtful_is_not_valid(
    tmp_path: Path, more: dict[str, Any], reason: str | None
) -> None:
    hand = true_hand()
    points = project_points(LENSES[0], hand + AHEAD)
    [row] = (
        estimator(tmp_path)
        .process(clip_of([mask_row(0, points, hand, **more)]), None)
        .tables["hand_poses"]
    )
    assert row["invalid_reason"] == reason
    assert row["is_valid"] == (reason is None)


def facts(**more: Any) -> HandFacts:
    good = {"presence": 0.98, "side_score": 0.99, "score": 0.95, "inside": 1.0, "size_px": 120.0}
    rest = {"residual": 0.03, "jump": 0.02, "distance_m": 0.5, "flexion_deg": 20.0}
    return HandFacts(**{**good, **rest, "is_wearer": True, **more})


def test_reasons_are_of_a_closed_list_and_lower_the_confidence() -> None:
    worse = [
        {"presence": 0.4},
        {"side_score": 0.5},
        {"score": 0.1},
        {"inside": 0.4},
        {"residual": 0.4},
        {"residual": None},
        {"jump": 0.5},
        {"flexion_deg": -20.0},
    ]
    best = confidence_of(facts())
    assert reason_against(facts()) is None
    for change in worse:
        assert reason_against(facts(**change)) in REASONS
        assert confidence_of(facts(**change)) < 0.8 * best
    # What speaks against a row lowers it also where it gives no reason, or another one already.
    for change in ({"presence": 0.85}, {"side_score": 0.7}, {"inside": 0.8}, {"residual": 0.1}):
        assert reason_against(facts(**change)) is None
        assert confidence_of(facts(**change)) < best
        turned = facts(flexion_deg=-20.0)
        assert confidence_of(facts(flexion_deg=-20.0, **change)) < confidence_of(turned)
    assert reason_against(facts(size_px=8.0)) == "too small"
    assert reason_against(facts(distance_m=3.0)) == "out of reach"
    assert reason_against(facts(distance_m=3.0, is_wearer=False)) is None


def test_masks_without_joints_are_looked_at(hand_nets: Path, real_data: Path) -> None:
    """As those of SAM are: the box leads the net to the hand."""
    from benchmarks.graph_run import probe
    from ego_assets.media.decode import ClipFrames
    from ego_assets.operator import intrinsics_of

    path = real_data / "videos" / "ego_office_two_hands.mp4"
    truth = json.loads((real_data / "annotations" / "hands_objects.json").read_text())
    hands = truth[path.name]["frames"][0]["hands"]
    boxes = {hand["side"]: hand["box"] for hand in hands}
    rows = []
    for number, (side, box) in enumerate(boxes.items()):
        corners = np.array([[box[0], box[1]], [box[2], box[3]]])
        row = mask_row(0, np.clip(corners, 0, 470), np.zeros((21, 3)), side=side)
        row |= {"keypoints_px": None, "keypoints_hand_m": None, "presence": None}
        rows.append(row | {"box": box, "track_id": f"t-h{number:03d}", "side_score": None})
    clip = clip_of(rows, ClipFrames(path, 0, 3))
    clip = ClipInput(clip.clip, {}, clip.frames, intrinsics_of(probe(path)), clip.tables)
    found = estimator(hand_nets.parents[1]).process(clip, None).tables["hand_poses"]
    assert len(found) == 2
    for row in found:
        box = np.array(boxes[row["side"]])
        joints = np.array(row["joints_px"])
        size = max(box[2:] - box[:2])
        assert ((joints > box[:2] - 0.3 * size) & (joints < box[2:] + 0.3 * size)).all()
        assert row["is_valid"], row["invalid_reason"]
