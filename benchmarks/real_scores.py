"""Scores on real videos with real ground truth: reported, never a reason to fail.

Here: one function a data set. Not here: the synthetic samples. Most of the real "truth" is
another method's output, so these figures are agreement, not error.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from benchmarks import scoring
from benchmarks.graph_run import GraphRun, run_graph, split
from benchmarks.truth_tables import SIDES
from ego_assets.robots.retargeting import reach_m
from ego_assets.vision.geometry import matrix_from_quaternion, rotation_angle_deg

Values = dict[tuple[str, str], float]

ONE_TAKE = (
    "ego_table_objects",
    "hands_blocks_topdown",
    "hands_cups_shuffle",
    "hands_toy_mixer",
    "hands_pillow_portrait",
    "ego_dinner_table",
)
# Device landmarks: tips, wrist, thumb, then knuckle to last joint of each finger, palm centre.
_ARIA_TO_MANO = (5, None, 6, 7, 0, 8, 9, 10, 1, 11, 12, 13, 2, 14, 15, 16, 3, 17, 18, 19, 4)


def real_data_folder() -> Path | None:
    """EGO_REAL_DATA, else ../shared/real beside the project; None if it is not there."""
    given = os.environ.get("EGO_REAL_DATA")
    root = Path(__file__).resolve().parents[1]
    folder = Path(given) if given else root.parent / "shared" / "real"
    return folder if (folder / "videos").is_dir() else None


def score_hard_cuts(data: Path) -> Values:
    """Hard cuts against the edit list (exact truth)."""
    truth = json.loads((data / "constructed" / "cuts_hard.cuts.json").read_text())
    run = split(data / "constructed" / "cuts_hard.mp4")
    score = scoring.score_cuts(run.cuts, truth["hard_cut_first_frames"])
    return _cut_values("real hard cuts", score)


def score_gradual_cuts(data: Path) -> Values:
    """Cross-fade and fade through black: one cut anywhere inside each (exact truth)."""
    truth = json.loads((data / "constructed" / "cuts_gradual.cuts.json").read_text())
    run = split(data / "constructed" / "cuts_gradual.mp4")
    score = scoring.score_intervals(run.cuts, [(a, b) for a, b in truth["scene_change_any_of"]])
    return _cut_values("real gradual cuts", score)


def _cut_values(name: str, score: scoring.DetectionScore) -> Values:
    return {
        ("clips", f"{name}, F1"): score.f1,
        ("clips", f"{name}, precision"): score.precision,
        ("clips", f"{name}, recall"): score.recall,
    }


def score_one_takes(data: Path) -> Values:
    """False cuts in videos that are one take (seen by eye)."""
    false = sum(len(split(data / "videos" / f"{name}.mp4").cuts) for name in ONE_TAKE)
    return {("clips", f"false cuts in {len(ONE_TAKE)} real one-take videos"): float(false)}


def _hands_only(path: Path, max_clip_s: float) -> GraphRun:
    run = run_graph(
        path,
        only=("segmenter", "hand_estimator"),
        max_clips=1,
        clip_settings={"max_clip_s": max_clip_s, "overlap_s": 0.0},
    )
    if run.failures:
        raise RuntimeError(f"{path.name}: {run.failures}")
    return run


def score_webcam_hand(data: Path) -> Values:
    """3D joints of the gesture video's first seconds against a hand detector's."""
    folder = data / "groundtruth" / "hand_joint_sequence"
    reference = np.load(folder / "right_hand_joints_a.npz")["joints"].astype(float)
    run = _hands_only(data / "videos" / "hand_gestures_webcam.mp4", 3.0)
    end = min(run.clips[0]["end_frame"], len(reference))
    best: dict[int, float] = {}
    for row in run.rows("hand_poses"):
        frame = row["frame_index"]
        if not row["is_valid"] or frame >= end:
            continue
        found = np.array(row["joints_camera_m"])
        # The webcam faces its user, so the side cannot be told from the wearer's view: both
        # mirror images are tried.
        both = [scoring.aligned_joint_error(found * [s, 1, 1], reference[frame]) for s in (1, -1)]
        size = reach_m(reference[frame])
        best[frame] = min([best.get(frame, np.inf), *(e / size for e in both)])
    values = {("hand_estimator", "real webcam hand, frames with a valid pose"): len(best) / end}
    if best:
        values["hand_estimator", "real webcam hand, 3D joints after alignment / hand length"] = (
            float(np.mean(list(best.values())))
        )
    return values


def score_aria_hands(data: Path) -> Values:
    """2D joints in an office against the device's own hand tracker (three frames)."""
    text = (data / "groundtruth" / "aria_gen2_hands" / "hand_landmarks_rgb.json").read_text()
    frames = json.loads(text)
    run = _hands_only(data / "videos" / "ego_office_two_hands.mp4", 20.0)
    by_key = {(r["frame_index"], r["side"]): r for r in run.rows("hand_poses") if r["is_valid"]}
    found, true, total = [], [], 0
    for index, frame in enumerate(frames):
        for side in SIDES:
            hand = frame.get(f"{side}_hand")
            if not hand or sum(p is not None for p in hand["uv"]) < 10:
                continue
            total += 1
            if (index, side) in by_key:
                found.append(by_key[index, side]["joints_px"])
                true.append([_pixel(hand["uv"], source) for source in _ARIA_TO_MANO])
    values = {
        ("hand_estimator", "real office hands, valid poses of tracked hands"): (
            len(found) / max(total, 1)
        )
    }
    if found:
        errors = scoring.joint_errors(np.array(found), np.array(true))
        name = "real office hands, 2D joint error / hand box"
        values["hand_estimator", name] = float(np.nanmean(errors))
    return values


def _pixel(points: list, source: int | None) -> list[float]:
    if source is None or points[source] is None:
        return [float("nan"), float("nan")]
    return points[source]


def score_basketball_cameras(data: Path) -> Values:
    """Turn of the camera between video frames 0 and 61, against a reconstruction pipeline's."""
    text = data / "groundtruth" / "basketball_rgbd" / "keyframes.yml"
    import yaml

    poses = yaml.safe_load(text.read_text())
    first, last = (
        np.array(poses[f"keyframe_left{k:06d}"]["cam_in_ob"]).reshape(4, 4)[:3, :3] for k in (0, 15)
    )
    run = run_graph(
        data / "videos" / "object_orbit_basketball.mp4",
        only=("segmenter", "reconstructor"),
        max_clips=1,
        clip_settings={"max_clip_s": 21.0, "overlap_s": 0.0},
    )
    if run.failures:
        raise RuntimeError(f"{run.failures}")
    rows = {r["frame_index"]: r for r in run.rows("scene_reconstruction") if r["is_valid"]}
    values = {
        ("reconstructor", "real basketball, registered frames"): (
            len(rows) / run.clips[0]["end_frame"]
        )
    }
    if 0 in rows and 61 in rows:
        a, b = (matrix_from_quaternion(rows[k]["world_from_camera_xyzw"]) for k in (0, 61))
        error = rotation_angle_deg(a.T @ b, first.T @ last)
        values["reconstructor", "real basketball, turn of frames 0 to 61, error deg"] = float(error)
    return values


DATA_SETS: dict[str, Callable[[Path], Values]] = {
    "hard cuts": score_hard_cuts,
    "gradual cuts": score_gradual_cuts,
    "one takes": score_one_takes,
    "webcam hand": score_webcam_hand,
    "office hands": score_aria_hands,
    "basketball cameras": score_basketball_cameras,
}


def score_real(data: Path, *, quick: bool) -> tuple[Values, dict[str, str]]:
    """(values, reason for each data set that could not be scored). `quick`: cuts only."""
    cv2.setNumThreads(1)
    values: Values = {}
    skipped: dict[str, str] = {}
    for name, score in DATA_SETS.items():
        if quick and name != "hard cuts":
            continue
        try:
            values |= score(data)
        except Exception as error:
            skipped[name] = f"{type(error).__name__}: {error}"
    return values, skipped
