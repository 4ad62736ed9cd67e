"""Cameras of rendered rooms, each with its evidence and whether it is right: what the confidence of
cameras is fitted to.

    python -m benchmarks.rendered_rooms [--count 120] [--first 100] [--rows FILE]

Every room is drawn at random, and not an easy one: a small picture, a second or two, a slow or
fast head, a lens that is wide or narrow, known or not, hands and moving objects masked or not; in
half of the rooms with thresholds that let most poses pass. Some heads hold still, or almost. Each
is reconstructed twice: with as many points as usual, and with fewer.

A camera that moves is right within 2 % of the length of its path and 1.5 degrees, the floors of
`accuracy`, after the best similarity; a static one within 5 mm and 0.5 degrees of its place.

Here: drawing rooms, judging rows. Not here: fitting (`fitted_curve`), the curves that are in use
(`ego_assets.scene.confidence`).
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fitted_curve import Rows, main_of, report_curve

MAX_POSITION, MAX_TURN_DEG = 0.02, 1.5
MAX_STATIC_M, MAX_STATIC_DEG = 0.005, 0.5
USUAL_POINTS = 500
LENIENT = {
    "min_witness_share": 0.0,
    "min_registered_share": 0.05,
    "min_inlier_share": 0.2,
    "min_inliers": 8,
    "min_inlier_cells": 1,
    "min_triangulation_angle_deg": 0.3,
}


@dataclass(frozen=True)
class Room:
    """pace: of the head, 1 as in the samples; fov_deg: across; points: fewer, tracked at most."""

    seed: int
    pace: float
    fov_deg: float
    width: int
    height: int
    duration_s: float
    is_masked: bool
    is_calibrated: bool
    is_lenient: bool
    points: int


def room(seed: int) -> Room:
    """Draw a room by its seed."""
    rng = np.random.default_rng([seed, 4711])
    stands = rng.random() < 0.25
    slow, usual = (0.0, 0.005, 0.01, 0.02, 0.03, 0.05), (0.12, 0.2, 0.35, 1.0, 1.0, 2.5)
    width, height = ((256, 144), (384, 216))[int(rng.integers(2))]
    return Room(
        seed,
        pace=float(rng.choice(slow if stands else usual)),
        fov_deg=float(rng.choice([60.0, 72.0, 95.0])),
        width=width,
        height=height,
        duration_s=float(rng.choice([1.0, 2.0])),
        is_masked=bool(rng.random() < 0.6),
        is_calibrated=bool(rng.random() < 0.6),
        is_lenient=bool(rng.random() < 0.5),
        points=int(rng.choice([50, 80, 130, 250, 500])),
    )


def judged_rows(one: Room) -> Rows:
    """Valid rows of `scene_reconstruction` of a room, with `is_right` and `group`, its room."""
    from benchmarks.graph_run import run_graph
    from benchmarks.truth_tables import TruthTables
    from samples import load_truth, render_sample

    with tempfile.TemporaryDirectory(prefix="ego-room-") as folder, _drawn(one):
        path = render_sample(Path(folder), one.seed, one.duration_s, one.width, one.height)
        if not one.is_calibrated:
            path.with_suffix(".camera.json").unlink()
        truth = load_truth(path)
        masks = TruthTables(truth).rows if one.is_masked else _nothing
        found: Rows = []
        for points in (USUAL_POINTS, one.points):
            settings = {"max_tracks": points} | (LENIENT if one.is_lenient else {})
            only = {"reconstructor": settings}
            run = run_graph(path, only=("reconstructor",), upstream=masks, settings=only)
            if run.failures:
                raise RuntimeError(f"room {one.seed}: {run.failures}")
            rows = [r for r in run.rows("scene_reconstruction") if r["is_valid"]]
            right = are_right(rows, truth.world_from_camera) if rows else np.empty(0)
            found += [
                r | {"is_right": bool(k), "group": one.seed}
                for r, k in zip(rows, right, strict=True)
            ]
    return found


def are_right(rows: Rows, world_from_camera: np.ndarray) -> np.ndarray:
    """(N,) bool of valid rows of one world; world_from_camera: (F, 4, 4), the truth by frame."""
    from ego_assets.vision.geometry import (
        matrix_from_quaternion,
        mean_rotation,
        rotation_angle_deg,
        umeyama,
    )

    frames = [r["frame_index"] for r in rows]
    true = world_from_camera[frames]
    turns = matrix_from_quaternion(np.array([r["world_from_camera_xyzw"] for r in rows]))
    # Of a short path the similarity leaves a turn open.
    own = mean_rotation(true[:, :3, :3] @ np.swapaxes(turns, 1, 2))
    turn_deg = rotation_angle_deg(own @ turns, true[:, :3, :3])
    centres = np.array([r["world_from_camera_m"] for r in rows])
    static = np.array([r["registration"] == "static" for r in rows])
    apart = np.linalg.norm(true[:, :3, 3] - np.median(true[:, :3, 3], axis=0), axis=1)
    if static.all() or len(rows) < 3:
        return (apart <= MAX_STATIC_M) & (turn_deg <= MAX_STATIC_DEG)
    scale, rotation, shift = umeyama(centres, true[:, :3, 3])
    off = np.linalg.norm(scale * centres @ rotation.T + shift - true[:, :3, 3], axis=1)
    path = world_from_camera[min(frames) : max(frames) + 1, :3, 3]
    length = max(float(np.linalg.norm(np.diff(path, axis=0), axis=1).sum()), 1e-9)
    right: np.ndarray = (off <= MAX_POSITION * length) & (turn_deg <= MAX_TURN_DEG)
    return right


@contextmanager
def _drawn(one: Room) -> Iterator[None]:
    """The renderer with the room's lens, and a head of its pace."""
    from samples import render, scene

    path, fov_deg = scene.Scene.world_from_camera, render.HORIZONTAL_FOV_DEG
    scene.Scene.world_from_camera = lambda self, t: path(self, t * one.pace)  # type: ignore[method-assign]
    render.HORIZONTAL_FOV_DEG = one.fov_deg
    try:
        yield
    finally:
        scene.Scene.world_from_camera = path  # type: ignore[method-assign]
        render.HORIZONTAL_FOV_DEG = fov_deg


def _nothing(table: str, clip: Mapping[str, Any]) -> Rows:
    return []


def report(rows: Rows) -> str:
    """The curves of cameras that move and of those that stand still."""
    from ego_assets.scene.confidence import confidence_of, evidence_of

    kinds: dict[str, Rows] = {"moving": [], "static": []}
    for row in rows:
        kinds["static" if row["registration"] == "static" else "moving"].append(row)
    return "\n".join(
        report_curve(kind, mine, evidence_of, confidence_of) for kind, mine in kinds.items() if mine
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Render rooms, judge their cameras, fit curves, and print them."""
    return main_of(arguments, __doc__ or "", lambda seed: judged_rows(room(seed)), report)


if __name__ == "__main__":
    sys.exit(main())
