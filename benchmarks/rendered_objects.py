"""Object poses of rendered samples, each with its evidence and whether it is right: what the
confidence of object poses is fitted to.

    python -m benchmarks.rendered_objects [--count 60] [--first 100] [--rows FILE]

The pose estimator gets the true cameras, or none, and true masks, or such as a segmenter makes:
drawn too small, too large (with some of the table), or beside the object. A pose is right where the
object's turn in the camera since its frame was fixed is off by 10 degrees at most (as Wang et al.,
"Normalized object coordinate space", 2019, count poses as right).

Here: spoiling masks, judging rows. Not here: fitting (`fitted_curve`), the curve that is in use
(`ego_assets.objects.confidence`).
"""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.fitted_curve import Rows, main_of, report_curve

MAX_TURN_DEG = 10.0
SPOILT = ("true", "true", "small", "large", "beside")


def judged_rows(seed: int) -> Rows:
    """Valid rows of `object_poses` of a sample, with `is_right` and `group`."""
    from benchmarks.graph_run import run_graph
    from benchmarks.truth_tables import TruthTables
    from samples import load_truth, render_sample

    rng = np.random.default_rng([seed, 815])
    how, has_cameras = str(rng.choice(SPOILT)), bool(rng.random() < 0.7)
    width, height = ((640, 360), (960, 540))[int(rng.integers(2))]
    with tempfile.TemporaryDirectory(prefix="ego-objects-") as folder:
        path = render_sample(Path(folder), seed, 3.0, width, height)
        truth = load_truth(path)
        tables = TruthTables(truth)

        def upstream(table: str, clip: Mapping[str, Any]) -> Rows:
            rows = tables.rows(table, clip)
            if table == "object_masks":
                return [spoilt(row, how) for row in rows]
            return [] if table == "scene_reconstruction" and not has_cameras else rows

        run = run_graph(path, only=("object_pose_estimator",), upstream=upstream)
    if run.failures:
        raise RuntimeError(f"sample {seed}: {run.failures}")
    return [row | {"group": seed} for row in judged(run.rows("object_poses"), truth)]


def judged(rows: Rows, truth: Any) -> Rows:
    """Valid rows of `object_poses`, whose tracks end in the object's number, with `is_right`."""
    from benchmarks.scoring import relative_rotation_errors_deg
    from ego_assets.vision.geometry import invert_pose, matrix_from_quaternion

    chains: dict[tuple[str, str], Rows] = defaultdict(list)
    for row in rows:
        if row["is_valid"]:
            chains[row["track_id"], row["object_frame"]].append(row)
    found: Rows = []
    for (track, _), chain in sorted(chains.items()):
        frames = [r["frame_index"] for r in chain]
        turns = matrix_from_quaternion(np.array([r["camera_from_object_xyzw"] for r in chain]))
        in_camera = invert_pose(truth.world_from_camera[frames])
        true = in_camera @ truth.world_from_object[frames, int(track[-3:])]
        errors = relative_rotation_errors_deg(turns, true[:, :3, :3])
        found += [
            r | {"is_right": bool(e <= MAX_TURN_DEG)} for r, e in zip(chain, errors, strict=True)
        ]
    return found


def spoilt(row: Mapping[str, Any], how: str) -> dict[str, Any]:
    """A row of `object_masks` as a segmenter may have drawn it; as it is, if nothing is left."""
    from ego_assets.vision.rle import decode_mask, encode_mask, mask_box

    if how == "true":
        return dict(row)
    mask = decode_mask(row["rle"], row["height_px"], row["width_px"]).astype(np.uint8)
    size = max(1, int(0.15 * np.sqrt(row["area_px"])))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * size + 1, 2 * size + 1))
    if how == "small":
        mask = np.asarray(cv2.erode(mask, kernel), np.uint8)
    elif how == "large":
        mask = np.asarray(cv2.dilate(mask, kernel), np.uint8)
    else:
        mask = np.roll(mask, 2 * size, axis=1)
    if not mask.any():
        return dict(row)
    drawn = mask.astype(bool)
    return dict(row) | {
        "rle": encode_mask(drawn),
        "box": mask_box(drawn),
        "area_px": int(drawn.sum()),
    }


def report(rows: Rows) -> str:
    """The curve of object poses."""
    from ego_assets.objects.confidence import confidence_of, evidence_of

    return report_curve("object poses", rows, evidence_of, confidence_of)


def main(arguments: Sequence[str] | None = None) -> int:
    """Render samples, judge their object poses, fit a curve, and print it."""
    return main_of(arguments, __doc__ or "", judged_rows, report)


if __name__ == "__main__":
    sys.exit(main())
