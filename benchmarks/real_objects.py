"""Scores of touched and held objects on real videos that were annotated by eye.

Here: running the segmenter, what the data's own `annotations/score.py` says of its object masks,
and how often an empty hand is said to hold something. Not here: hands (`real_hands`), the table
(`accuracy`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.graph_run import run_graph
from benchmarks.real_hands import TIERS, annotation_script
from ego_assets.objects.settings import MovementSettings
from ego_assets.vision import rle

Values = dict[tuple[str, str], float]
TOUCHED = ("segmenter", "annotated objects, recall of touched ones")
HELD = ("segmenter", "annotated objects, mask IoU of held ones")
FALSE = ("segmenter", "annotated frames with empty hands, share with a held object")


@dataclass
class ObjectScores:
    """values: over all videos; by_video: counts of the data's script, and those of empty hands."""

    values: Values = field(default_factory=dict)
    by_video: dict[str, dict[str, float]] = field(default_factory=dict)


def score_objects(data: Path, tier: str, videos: Iterable[str] | None = None) -> ObjectScores:
    """Run a tier's segmenter over the annotated videos, and score its objects. videos: names of
    some."""
    truth = json.loads((data / "annotations" / "hands_objects.json").read_text())
    chosen = {n: t for n, t in truth.items() if videos is None or n in videos}
    predicted: dict[str, dict[int, dict[str, Any]]] = {}
    empty: dict[str, tuple[int, int]] = {}
    backends = {"segmenter": TIERS[tier]["segmenter"]}
    for name, entry in chosen.items():
        run = run_graph(data / "videos" / name, backends=backends, only=("segmenter",))
        if run.failures:
            raise RuntimeError(f"{name}: {run.failures}")
        objects, hands = run.rows("object_masks"), run.rows("hand_masks")
        predicted[Path(name).stem] = {
            f["frame_index"]: {"objects": [_mask(r) for r in _of(objects, f["frame_index"])]}
            for f in entry["frames"]
        }
        frames = frames_with_empty_hands(entry)
        false = sum(says_held(_of(objects, frame), _of(hands, frame)) for frame in frames)
        empty[name] = (false, len(frames))
    script = annotation_script(data)
    total, each = script.score(chosen, predicted)
    found = ObjectScores()
    for name, counts in each.items():
        false, frames_empty = empty[name]
        found.by_video[name] = dict(counts) | {"false_held": false, "empty_frames": frames_empty}
    found.values = {
        TOUCHED: _share(total, "touched_ok", "touched_n"),
        HELD: _share(total, "mask_objects_sum", "mask_objects_n"),
        FALSE: sum(f for f, _ in empty.values()) / max(1, sum(n for _, n in empty.values())),
    }
    return found


def frames_with_empty_hands(entry: Mapping[str, Any]) -> list[int]:
    """The annotated frames of a video that show hands, none of which touches anything; nor does a
    robot's."""
    return [
        frame["frame_index"]
        for frame in entry["frames"]
        if frame["complete"]
        and any(not hand["difficult"] for hand in frame["hands"])
        and not any(o["touched"] or o["by_robot"] for o in frame["objects"])
    ]


def says_held(objects: list[dict[str, Any]], hands: list[dict[str, Any]]) -> bool:
    """Whether an object mask of a frame lies as near to a hand mask as movements take for touch."""
    share = MovementSettings().touch_share
    for row in objects:
        mask = _pixels(row)
        reach = max(1, round(share * float(np.sqrt(row["area_px"]))))
        grown = cv2.dilate(mask, np.ones((2 * reach + 1,) * 2, np.uint8)).view(bool)
        if any((grown & _pixels(hand).view(bool)).any() for hand in hands):
            return True
    return False


def object_table(scores: ObjectScores) -> str:
    """Counts of each video, as text."""
    lines = [f"{'video':<28} {'touched':>9} {'best IoU':>9} {'held IoU':>9} {'empty, held':>12}"]
    for name, counts in scores.by_video.items():
        touched = int(counts.get("touched_n", 0))
        lines.append(
            f"{name:<28} {int(counts.get('touched_ok', 0)):>4}/{touched:<4} "
            f"{_share(counts, 'touched_iou', 'touched_n'):>9.2f} "
            f"{_share(counts, 'mask_objects_sum', 'mask_objects_n'):>9.2f} "
            f"{int(counts['false_held']):>6}/{int(counts['empty_frames']):<5}"
        )
    return "\n".join(lines)


def _share(counts: Mapping[str, float], part: str, whole: str) -> float:
    return counts.get(part, 0) / counts[whole] if counts.get(whole) else float("nan")


def _of(rows: list[dict[str, Any]], frame: int) -> list[dict[str, Any]]:
    return [row for row in rows if row["frame_index"] == frame]


def _pixels(row: Mapping[str, Any]) -> np.ndarray:
    mask = rle.decode_mask(row["rle"], row["height_px"], row["width_px"])
    return np.ascontiguousarray(mask, np.uint8)


def _mask(row: Mapping[str, Any]) -> dict[str, Any]:
    counts = row["rle"].decode("ascii")
    return {
        "box": row["box"],
        "name": row["label"],
        "score": row["score"],
        "mask": {"size": [row["height_px"], row["width_px"]], "counts": counts},
    }
