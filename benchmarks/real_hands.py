"""Scores of hands on real videos that were annotated by eye, a tier beside the other.

Here: running the segmenter and the hand estimator, and what the data's own `annotations/score.py`
says of them. Not here: other data sets (`real_scores`), the table (`accuracy`).

A hand mask is judged by its box, a valid pose by the box of its joints grown by a tenth a side.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.calibration import Judged, calibration_error, left_out_error, reliability
from benchmarks.graph_run import GraphRun, run_graph
from benchmarks.real_scores import _ARIA_TO_MANO, _pixel
from benchmarks.truth_tables import SIDES
from ego_assets.models import registry
from ego_assets.models.weights import WeightsError

Values = dict[tuple[str, str], float]
Matched = tuple[float, float]
"""(error, 1 if it was found) of a hand."""

TIERS: dict[str, dict[str, str]] = {
    "learned": {"segmenter": "landmarks", "hand_estimator": "landmarks"},
    "reference": {"segmenter": "sam2", "hand_estimator": "hamer"},
}
_ONLY = ("segmenter", "hand_estimator")
_WITHOUT_OBJECTS = {"segmenter": {"max_objects": 0}}


@dataclass
class HandScores:
    """values: over all videos; by_video: counts of the data's script, for masks and valid poses;
    judged: all poses of annotated frames, valid or not, but those of hands too hard to judge."""

    values: Values = field(default_factory=dict)
    by_video: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    judged: list[Judged] = field(default_factory=list)


def available_tiers() -> dict[str, str]:
    """{tier: ""} of those that can be run here, else why not."""
    found = {}
    for tier, backends in TIERS.items():
        try:
            for operator, name in backends.items():
                registry.version(operator, name)
            found[tier] = ""
        except WeightsError as error:
            found[tier] = str(error)
    return found


def score_tier(data: Path, tier: str, videos: Iterable[str] | None = None) -> HandScores:
    """Run a tier over the annotated videos, and score it. videos: names of some."""
    script = annotation_script(data)
    truth = json.loads((data / "annotations" / "hands_objects.json").read_text())
    chosen = {n: t for n, t in truth.items() if videos is None or n in videos}
    seen: dict[str, dict[str, dict[int, dict[str, Any]]]] = {"masks": {}, "poses": {}}
    found = HandScores()
    for name, entry in chosen.items():
        run = _run(data / "videos" / name, tier)
        frames = [f["frame_index"] for f in entry["frames"]]
        seen["masks"][Path(name).stem] = _by_frame(frames, run.rows("hand_masks"), _mask)
        valid = [r for r in run.rows("hand_poses") if r["is_valid"]]
        seen["poses"][Path(name).stem] = _by_frame(frames, valid, _pose)
        found.judged += _judged(script, name, entry, run.rows("hand_poses"))
    without_objects = {
        name: entry | {"frames": [f | {"objects": []} for f in entry["frames"]]}
        for name, entry in chosen.items()
    }
    for kind, predicted in seen.items():
        total, each = script.score(without_objects, predicted)
        found.by_video[kind] = each
        found.values |= _values(kind, total)
    return found


def _judged(script: Any, name: str, entry: Any, rows: list[dict[str, Any]]) -> list[Judged]:
    """Each pose of an annotated frame by itself: right if its box and its side are a hand's."""
    found = []
    for frame in entry["frames"]:
        index = frame["frame_index"]
        only = {name: entry | {"frames": [frame | {"objects": []}]}}
        for row in rows:
            if row["frame_index"] != index or row["confidence"] is None:
                continue
            total, _ = script.score(only, {Path(name).stem: {index: {"hands": [_pose(row)]}}})
            if not total.get("ignored"):
                is_right = total.get("tp", 0) == 1 and total.get("side_ok", 0) == 1
                found.append(Judged(row["confidence"], is_right, row["is_valid"], name))
    return found


def annotation_script(data: Path) -> Any:
    """Return the data's own `annotations/score.py` as a module."""
    spec = importlib.util.spec_from_file_location("hand_score", data / "annotations" / "score.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _run(path: Path, tier: str) -> GraphRun:
    run = run_graph(path, backends=TIERS[tier], only=_ONLY, settings=_WITHOUT_OBJECTS)
    if run.failures:
        raise RuntimeError(f"{path.name}: {run.failures}")
    return run


def _by_frame(frames: list[int], rows: list[dict[str, Any]], made: Any) -> dict[int, Any]:
    return {f: {"hands": [made(r) for r in rows if r["frame_index"] == f]} for f in frames}


def _mask(row: Mapping[str, Any]) -> dict[str, Any]:
    size = [row["height_px"], row["width_px"]]
    rle = {"size": size, "counts": row["rle"].decode("ascii")}
    return _said(row) | {"box": row["box"], "mask": rle}


def _pose(row: Mapping[str, Any]) -> dict[str, Any]:
    joints = np.array(row["joints_px"])
    low, high = joints.min(axis=0), joints.max(axis=0)
    grown = 0.1 * (high - low)
    return _said(row) | {"box": [*(low - grown), *(high + grown)]}


def _said(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"side": row["side"], "is_wearer": row["is_wearer"], "score": row["score"]}


def _values(kind: str, total: Mapping[str, float]) -> Values:
    def share(part: str, whole: float) -> float:
        return total.get(part, 0) / whole if whole else float("nan")

    matched = total.get("tp", 0) + total.get("fp", 0)
    if kind == "poses":
        return {
            ("hand_estimator", "annotated hands, precision of valid poses"): share("tp", matched),
            ("hand_estimator", "annotated hands, found by valid poses"): share(
                "tp", total.get("gt_hands", 0)
            ),
        }
    return {
        ("segmenter", "annotated hands, recall"): share("tp", total.get("gt_hands", 0)),
        ("segmenter", "annotated hands, recall of the wearer's"): share(
            "tp_w", total.get("gt_w", 0)
        ),
        ("segmenter", "annotated hands, precision of masks"): share("tp", matched),
        ("segmenter", "annotated hands, sides"): share("side_ok", total.get("side_n", 0)),
        ("segmenter", "annotated hands, mask IoU"): share(
            "mask_hands_sum", total.get("mask_hands_n", 0)
        ),
    }


def calibration_values(scores: HandScores) -> Values:
    """How far the confidence of poses is from how often they are right."""
    named = "annotated hands, calibration error"
    return {
        ("hand_estimator", f"{named} of confidence"): calibration_error(reliability(scores.judged)),
        ("hand_estimator", f"{named} fitted with each video left out"): left_out_error(
            scores.judged
        ),
    }


def video_table(scores: HandScores) -> str:
    """Counts of each video, as text."""
    lines = [f"{'video':<28} {'hands':>9} {'false':>6} {'sides':>9} {'valid poses right':>18}"]
    for name, masks in scores.by_video["masks"].items():
        poses = scores.by_video["poses"][name]

        def count(of: Mapping[str, float], part: str) -> int:
            return int(of.get(part, 0))

        right = count(poses, "tp")
        lines.append(
            f"{name:<28} {count(masks, 'tp'):>4}/{count(masks, 'gt_hands'):<4} "
            f"{count(masks, 'fp'):>6} {count(masks, 'side_ok'):>4}/{count(masks, 'side_n'):<4} "
            f"{right:>9}/{right + count(poses, 'fp'):<8}"
        )
    return "\n".join(lines)


def score_glasses(data: Path, tier: str) -> Values:
    """Joints of three frames against the glasses' own tracker."""
    text = (data / "groundtruth" / "aria_gen2_hands" / "hand_landmarks_rgb.json").read_text()
    run = _run(data / "videos" / "ego_office_two_hands.mp4", tier)
    rows = {(r["frame_index"], r["side"]): r for r in run.rows("hand_poses") if r["is_valid"]}
    found: list[Matched] = []
    for index, frame in enumerate(json.loads(text)):
        for side in SIDES:
            hand = frame.get(f"{side}_hand")
            if hand and sum(p is not None for p in hand["uv"]) >= 10:
                true = np.array([_pixel(hand["uv"], source) for source in _ARIA_TO_MANO])
                found.append(_match(rows.get((index, side)), true))
    return _error_values("glasses", found)


def score_freihand(data: Path, tier: str) -> Values:
    """Joints of five pictures, each shown for a second, against measured ones."""
    folder = data / "images" / "hands_freihand"
    truth = json.loads((folder / "annotations.json").read_text())
    files = {image["id"]: folder / Path(image["file_name"]).name for image in truth["images"]}
    found: list[Matched] = []
    with tempfile.TemporaryDirectory(prefix="ego-freihand-") as place:
        for hand in truth["annotations"]:
            true = np.array(hand["keypoints"], float).reshape(21, 3)[:, :2]
            video = Path(place) / f"{hand['image_id']}.mp4"
            _show_for_a_second(files[hand["image_id"]], video)
            rows = [r for r in _run(video, tier).rows("hand_poses") if r["frame_index"] == 5]
            found.append(min((_match(row, true) for row in rows), default=_match(None, true)))
    return _error_values("FreiHAND", found)


def _show_for_a_second(picture: Path, video: Path) -> None:
    import av

    image = cv2.imread(str(picture))
    with av.open(str(video), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = "yuv420p"
        for _ in range(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode())


def _match(row: Mapping[str, Any] | None, true: np.ndarray) -> Matched:
    if row is None:
        return float("inf"), 0.0
    apart = np.linalg.norm(np.array(row["joints_px"]) - true, axis=1)
    size = float((np.nanmax(true, axis=0) - np.nanmin(true, axis=0)).max())
    return float(np.nanmean(apart)) / size, 1.0


def _error_values(name: str, found: list[Matched]) -> Values:
    errors = [error for error, is_found in found if is_found]
    share = len(errors) / max(1, len(found))
    return {
        ("hand_estimator", f"{name}, hands found"): share,
        ("hand_estimator", f"{name}, 2D joint error / hand box"): (
            float(np.mean(errors)) if errors else float("inf")
        ),
    }
