"""Retargeting solvers on one task: our Gauss-Newton against dex_retargeting as it comes.

    python benchmarks/retarget.py [--frames 300] [--robots-dir DEX_URDF] [--hands 2 8 64] [--json]

Robot hands move smoothly between random configurations; their fingertips, shaken by 2 mm so that
not all can be reached, are the targets, frame by frame, with no filter. Each contender goes on from
its own last frame: dex_retargeting's own `SeqRetargeting`, its objectives as this project drives
them (`nlopt`), and `gauss_newton`. Errors are distances by forward kinematics of one and the same
model. Times are CPU times of solving alone (one thread) of the median frame. The last line
is the smaller of two ratios, each the worst of all hands and both objectives: how many times as
fast as dex_retargeting over the bar of 2, and its mean error over ours; 1 or more passes.

With `--hands`, so many hands (of all robots in turn, left and right) go through 60 frames: by
dex_retargeting, by our solver one after the other, and by ours all together.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks.retarget_reach import smooth_joints  # noqa: E402
from ego_assets.robots.gauss_newton.batch import solve_runs  # noqa: E402
from ego_assets.robots.gauss_newton.solver import GaussNewtonSolver  # noqa: E402
from ego_assets.robots.robot_hands import RobotSpec, find_robot, known_robots  # noqa: E402
from ego_assets.robots.solver import (  # noqa: E402
    HandRun,
    HandSolver,
    SolverState,
    solve_run,
)

BAR_SPEED = 2.0
NOISE_M = 0.002
METHODS = ("vector", "position")
OURS = {"nlopt": HandSolver, "gauss_newton": GaussNewtonSolver}
Solve = Callable[[np.ndarray], np.ndarray]


def targets_of(solver: HandSolver, frames: int, seed: int) -> np.ndarray:
    """(N, F, 3) fingertips in the wrist frame, metres."""
    noise = np.random.default_rng(seed).normal(0, NOISE_M, (frames, len(solver.tip_links), 3))
    return np.array([solver.fingertips(q) for q in smooth_joints(solver, frames, seed)]) + noise


def stock(spec: RobotSpec, urdf: Path, method: str, model: HandSolver) -> Solve:
    """dex_retargeting as its users have it: a configuration, built, fed frame by frame."""
    from dex_retargeting.retargeting_config import RetargetingConfig

    RetargetingConfig.set_default_urdf_dir(str(urdf.parent))
    tips, count = list(spec.fingertips.values()), len(spec.fingertips)
    free = [model.joint_names[i] for i in model.free]
    settings = {
        "type": method,
        "urdf_path": urdf.name,
        "target_joint_names": free,
        "low_pass_alpha": 1.0,
        "normal_delta": 3e-4,
    }
    if method == "position":
        settings |= {"target_link_names": tips, "target_link_human_indices": np.arange(count)}
    else:
        settings |= {
            "target_origin_link_names": [spec.wrist_link] * count,
            "target_task_link_names": tips,
            "target_link_human_indices": np.stack([np.zeros(count, int), np.arange(count)]),
            "scaling_factor": 1.0,
        }
    # It writes the URDF anew into a temporary folder, and leaves that behind.
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(tempfile, "tempdir", folder):
        retargeting = RetargetingConfig.from_dict(settings).build()
    tied = len(retargeting.optimizer.idx_pin2fixed)
    order = [retargeting.joint_names.index(n) for n in model.joint_names]

    def solve(targets: np.ndarray) -> np.ndarray:
        reference = model._reference(targets).astype(np.float32)
        return retargeting.retarget(reference, fixed_qpos=np.zeros(tied))[order]

    return solve


def ours(name: str, spec: RobotSpec, urdf: Path, method: str) -> Solve:
    solver = OURS[name](spec, urdf, method, low_pass_alpha=1.0, regularisation=3e-4)
    held: list[SolverState | None] = [None]

    def solve(targets: np.ndarray) -> np.ndarray:
        solution = solver.solve(targets, held[0])
        held[0] = solution.state
        return solution.positions

    return solve


def measure(
    robots_dir: str | None, frames: int, seed: int
) -> dict[str, dict[str, dict[str, float]]]:
    """{robot and objective: {contender: {ms, mean_mm, p95_mm}}}."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for robot in known_robots(robots_dir):
        spec = find_robot(robot, robots_dir)
        urdf, _ = spec.urdf("right")
        for method in METHODS:
            model = HandSolver(spec, urdf, method)
            contenders = {"dex_retargeting": stock(spec, urdf, method, model)}
            contenders |= {name: ours(name, spec, urdf, method) for name in OURS}
            times: dict[str, list[float]] = {name: [] for name in contenders}
            errors: dict[str, list[float]] = {name: [] for name in contenders}
            for targets in targets_of(model, frames, seed):
                for name, solve in contenders.items():
                    began = time.thread_time()
                    joints = solve(targets)
                    times[name].append(time.thread_time() - began)
                    off = model.fingertips(model.clip(joints)) - targets
                    errors[name].append(float(np.linalg.norm(off, axis=1).mean()))
            found[f"{robot}, {method}"] = {
                name: {
                    "ms": float(np.median(times[name])) * 1e3,
                    "mean_mm": float(np.mean(errors[name])) * 1e3,
                    "p95_mm": float(np.percentile(errors[name], 95)) * 1e3,
                }
                for name in contenders
            }
    return found


def together(
    robots_dir: str | None, counts: list[int], seed: int, frames: int = 60
) -> dict[int, dict[str, float]]:
    """{hands: {contender: CPU time of a hand's frame, ms; largest difference of ours, rad}}."""
    method = METHODS[0]
    solvers: list[GaussNewtonSolver] = []
    for robot in known_robots(robots_dir):
        spec = find_robot(robot, robots_dir)
        for side in ("right", "left"):
            urdf, _ = spec.urdf(side)
            solvers.append(GaussNewtonSolver(spec, urdf, method, regularisation=3e-4))
    found: dict[int, dict[str, float]] = {}
    for count in counts:
        chosen = [solvers[i % len(solvers)] for i in range(count)]
        anew = np.arange(frames) == 0
        runs = [
            HandRun(s, targets_of(s, frames, seed + i), anew, None) for i, s in enumerate(chosen)
        ]
        stocks = [stock(s.spec, s.urdf, method, s) for s in chosen[: len(solvers)]]
        times = [time.thread_time()]
        for run, theirs in zip(runs, stocks, strict=False):
            for targets in run.targets:
                theirs(targets)
        times.append(time.thread_time())
        apart = [solve_run(run) for run in runs]
        times.append(time.thread_time())
        joint = solve_runs(runs)
        times.append(time.thread_time())
        off = max(
            float(np.abs(a.positions - b.positions).max())
            for one, other in zip(apart, joint, strict=True)
            for a, b in zip(one, other, strict=True)
        )
        spent = np.diff(times) / frames / (min(count, len(stocks)), count, count) * 1e3
        names = ("dex_retargeting", "one by one", "together")
        found[count] = dict(zip(names, spent.tolist(), strict=True)) | {"difference_rad": off}
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--robots-dir", help="a checkout of dex-urdf; without it, the own hand")
    parser.add_argument("--hands", type=int, nargs="+", help="so many at once, and nothing else")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.hands:
        for count, row in together(options.robots_dir, options.hands, options.seed).items():
            print(f"{count:4} hands: " + ", ".join(f"{k} {v:.3g}" for k, v in row.items()))
        return 0
    found = measure(options.robots_dir, options.frames, options.seed)
    speed = min(r["dex_retargeting"]["ms"] / r["gauss_newton"]["ms"] for r in found.values())
    error = min(
        r["dex_retargeting"]["mean_mm"] / r["gauss_newton"]["mean_mm"] for r in found.values()
    )
    ratio = min(speed / BAR_SPEED, error)
    if options.json:
        print(json.dumps({"tasks": found, "speed": speed, "error": error, "ratio": ratio}))
        return 0 if ratio >= 1 else 1
    print(f"{'':28}{'':18}{'frames/s':>10}{'mean, mm':>10}{'p95, mm':>10}")
    for task, row in found.items():
        for name, cells in row.items():
            figures = f"{1e3 / cells['ms']:10.0f}{cells['mean_mm']:10.2f}{cells['p95_mm']:10.2f}"
            print(f"{task:28}{name:18}{figures}")
    print(f"{ratio:.2f}")
    return 0 if ratio >= 1 else 1


if __name__ == "__main__":
    sys.exit(main())
