"""Scores of one run of the graph against the truth of a sample.

Here: from rows and `samples.Truth` to named values. Not here: floors, tables on the screen, the
metrics themselves (`scoring`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from benchmarks import scoring
from benchmarks.graph_run import GraphRun
from benchmarks.truth_tables import SIDES
from ego_assets.operator import Rows
from ego_assets.vision.geometry import invert_pose, matrix_from_quaternion, pose_matrix
from ego_assets.vision.rle import decode_mask

Values = dict[tuple[str, str], float]
"""(operator, metric) → value."""


def score_sample(run: GraphRun, truth: Any, *, oracle: bool = False) -> Values:
    """Every value of the tables that the run has.

    oracle: operators were fed with the truth, so tracks have the truth's names.
    """
    values: Values = {("clips", "cuts F1"): scoring.score_cuts(run.cuts, truth.cuts).f1}
    tracks: dict[str, int] = {}
    if "object_masks" in run.tables:
        scorers = _score_masks(run, truth, "object_masks")
        values |= _mask_values("object", scorers) | _touched_objects(scorers, truth)
        tracks = _track_of_object(scorers)
    if oracle:
        tracks = {r["track_id"]: int(r["track_id"][-3:]) for r in run.rows("object_poses")}
    if "hand_masks" in run.tables:
        values |= _mask_values("hand", _score_masks(run, truth, "hand_masks"))
    if "hand_poses" in run.tables:
        values |= score_hand_poses(run.rows("hand_poses"), truth)
    if "scene_reconstruction" in run.tables:
        values |= score_reconstruction(run.rows("scene_reconstruction"), truth)
    if "object_poses" in run.tables:
        values |= score_object_poses(run.rows("object_poses"), truth, tracks)
    if "object_movements" in run.tables:
        values |= score_movements(run.rows("object_movements"), truth, tracks)
    if "robot_mappings" in run.tables:
        values |= score_retargeting(run.rows("robot_mappings"))
    return values


def scene_of(truth: Any) -> np.ndarray:
    """(F,) index of the scene of each frame."""
    return np.searchsorted(np.asarray(truth.cuts), np.arange(truth.frame_count), side="right")


def full_mask(row: Mapping[str, Any], width: int, height: int) -> np.ndarray:
    """Mask of a row at the size of the video."""
    mask = decode_mask(row["rle"], row["height_px"], row["width_px"])
    if mask.shape == (height, width):
        return mask
    sized = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    return sized.astype(bool)


def _score_masks(run: GraphRun, truth: Any, table: str) -> dict[int, scoring.MaskScorer]:
    """A scorer for each scene (within which a track must not change)."""
    by_frame: dict[int, Rows] = defaultdict(list)
    for row in run.rows(table):
        by_frame[row["frame_index"]].append(row)
    scenes = scene_of(truth)
    scorers: dict[int, scoring.MaskScorer] = {}
    for frame in range(truth.frame_count):
        if table == "object_masks":
            seen = np.flatnonzero(truth.object_visible[frame])
            true = {str(o): truth.object_mask(frame, int(o)) for o in seen}
        else:
            seen = np.flatnonzero(truth.hand_visible[frame])
            true = {SIDES[h]: truth.hand_mask(frame, int(h)) for h in seen}
        found = {r["track_id"]: full_mask(r, truth.width, truth.height) for r in by_frame[frame]}
        scorer = scorers.setdefault(int(scenes[frame]), scoring.MaskScorer())
        scorer.add({n: np.asarray(m, dtype=bool) for n, m in true.items()}, found)
    return scorers


def _mask_values(kind: str, scorers: Mapping[int, scoring.MaskScorer]) -> Values:
    weights = [sum(s.visible.values()) for s in scorers.values()]
    if not sum(weights):
        return {}
    pairs = [(s.mean_iou(), w) for s, w in zip(scorers.values(), weights, strict=True) if w]
    mean = sum(iou * w for iou, w in pairs) / sum(weights)
    worst = min(min(s.object_iou().values()) for s in scorers.values() if s.visible)
    frames = max(1, sum(weights))
    return {
        ("segmenter", f"{kind} mask IoU"): mean,
        ("segmenter", f"{kind} mask IoU, worst {kind}"): worst,
        ("segmenter", f"{kind} track switches"): float(sum(s.switches for s in scorers.values())),
        ("segmenter", f"{kind} false masks a true mask"): (
            sum(s.unmatched for s in scorers.values()) / frames
        ),
    }


def _touched_objects(scorers: Mapping[int, scoring.MaskScorer], truth: Any) -> Values:
    """Mask IoU of the objects that a hand ever touches: motion says nothing of the others."""
    touched = np.flatnonzero(np.asarray(truth.contacts, dtype=bool).any(axis=(0, 1)))
    ious = [v for s in scorers.values() for o, v in s.object_iou().items() if int(o) in touched]
    if not ious:
        return {}
    return {("segmenter", "object mask IoU, touched objects"): float(np.mean(ious))}


def _track_of_object(scorers: Mapping[int, scoring.MaskScorer]) -> dict[str, int]:
    """Object index by track."""
    return {track: int(name) for s in scorers.values() for name, track in s.assignment().items()}


def score_hand_poses(rows: Rows, truth: Any) -> Values:
    """2D joint error over the hand box, by side; a visible hand without a valid row is missing."""
    found, true, aligned = [], [], []
    seen = 0
    by_key = {(r["frame_index"], r["side"]): r for r in rows if r["is_valid"]}
    for frame, h in zip(*np.nonzero(truth.hand_visible), strict=True):
        seen += 1
        row = by_key.get((int(frame), SIDES[h]))
        if row is None:
            continue
        found.append(row["joints_px"])
        true.append(truth.joints_px[frame, h])
        joints = np.asarray(row["joints_camera_m"])
        aligned.append(scoring.aligned_joint_error(joints, truth.joints_camera_m[frame, h]))
    values: Values = {}
    if not seen:
        return values
    values["hand_estimator", "valid poses of visible hands"] = len(found) / seen
    if not found:
        return values | {("hand_estimator", "2D joint error / hand box"): float("inf")}
    errors = scoring.joint_errors(np.asarray(found), np.asarray(true))
    return values | {
        ("hand_estimator", "2D joint error / hand box"): float(np.nanmean(errors)),
        ("hand_estimator", "PCK at 0.2 of the hand box"): scoring.pck(errors, 0.2),
        ("hand_estimator", "3D joint error after alignment, mm"): float(np.mean(aligned)) * 1e3,
    }


def score_reconstruction(rows: Rows, truth: Any) -> Values:
    """Cameras of each world against the truth of its scene; the worst world counts."""
    scenes = scene_of(truth)
    worlds: dict[tuple[str, int], Rows] = defaultdict(list)
    for row in rows:
        if row["is_valid"]:
            worlds[row["world_id"], int(scenes[row["frame_index"]])].append(row)
    registered = sum(len(w) for w in worlds.values()) / truth.frame_count
    values: Values = {("reconstructor", "registered frames"): registered}
    scores = []
    for (_, scene), world in sorted(worlds.items()):
        if len(world) < 3:
            continue
        frames = [r["frame_index"] for r in world]
        found = pose_matrix(
            matrix_from_quaternion(np.array([r["world_from_camera_xyzw"] for r in world])),
            np.array([r["world_from_camera_m"] for r in world]),
        )
        span = np.arange(min(frames), max(frames) + 1)
        true = truth.world_from_camera
        length = scoring.path_length_of(true[span[scenes[span] == scene]])
        scores.append(scoring.score_cameras(found, true[frames], length))
    worst = {
        "camera error / path length": [s.position_share for s in scores],
        "camera rotation error, deg": [s.rotation_deg for s in scores],
        "camera rotation error, own alignment, deg": [s.own_rotation_deg for s in scores],
    }
    return values | {
        ("reconstructor", name): max(v, default=float("inf")) for name, v in worst.items()
    }


def score_object_poses(rows: Rows, truth: Any, tracks: Mapping[str, int]) -> Values:
    """Turn in the camera since first sight, for the track that the masks gave each object."""
    chains: dict[tuple[str, str], Rows] = defaultdict(list)
    for row in rows:
        if row["is_valid"] and row["track_id"] in tracks:
            chains[row["track_id"], row["object_frame"]].append(row)
    errors: list[np.ndarray] = []
    for (track, _), chain in sorted(chains.items()):
        frames = [r["frame_index"] for r in chain]
        found = matrix_from_quaternion(np.array([r["camera_from_object_xyzw"] for r in chain]))
        camera_from_world = invert_pose(truth.world_from_camera[frames])
        true = camera_from_world @ truth.world_from_object[frames, tracks[track]]
        errors.append(scoring.relative_rotation_errors_deg(found, true[:, :3, :3]))
    visible = int(np.count_nonzero(truth.object_visible))
    every = np.concatenate(errors) if errors else np.array([np.inf])
    return {
        ("object_pose_estimator", "rotation error since first sight, deg"): float(every.mean()),
        ("object_pose_estimator", "rotation error, 95th percentile, deg"): float(
            np.percentile(every, 95) if errors else np.inf
        ),
        ("object_pose_estimator", "valid poses of visible objects"): (
            sum(len(e) for e in errors) / visible if visible else float("nan")
        ),
    }


def score_movements(rows: Rows, truth: Any, tracks: Mapping[str, int]) -> Values:
    """F1 of `held` against contact with a hand, over (visible object, frame)."""
    held = np.zeros(truth.object_visible.shape, dtype=bool)
    for row in rows:
        if row["state"] == "held" and row["track_id"] in tracks:
            held[row["start_frame"] : row["end_frame"], tracks[row["track_id"]]] = True
    seen = np.asarray(truth.object_visible, dtype=bool)
    touched = np.asarray(truth.contacts, dtype=bool).any(axis=1)
    score = scoring.DetectionScore(
        int(np.count_nonzero(held & touched & seen)),
        int(np.count_nonzero(held & ~touched & seen)),
        int(np.count_nonzero(~held & touched & seen)),
    )
    return {
        ("movement_estimator", "held F1 against contact"): score.f1,
        ("movement_estimator", "held precision"): score.precision,
        ("movement_estimator", "held recall"): score.recall,
    }


def score_retargeting(rows: Rows) -> Values:
    """Fingertip error of the mapped hand poses, as the operator reports it."""
    if not rows:
        return {}
    errors = np.array([r["mean_fingertip_error_m"] for r in rows]) * 1e3
    failed = np.mean([r["solver_status"] == "failed" for r in rows])
    return {
        ("retargeter", "fingertip error of the hand poses, mm"): float(errors.mean()),
        ("retargeter", "failed solutions"): float(failed),
    }
