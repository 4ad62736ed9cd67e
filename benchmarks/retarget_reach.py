"""Fingertip error on targets that the robot hand can reach for certain, and speed.

Here: targets by forward kinematics of the robot itself at random joint positions inside its
limits (smooth motion from one to the next), solved through the operator's solver. Not here:
human hands, whose fingertips need not be reachable.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from ego_assets.robots.robot_hands import find_robot, known_robots
from ego_assets.robots.solver import HandSolver

METHODS = ("position", "vector", "dexpilot")
_STEP_FRAMES = 20


def smooth_joints(solver: HandSolver, frames: int, seed: int) -> Iterator[np.ndarray]:
    """(D,) joints inside the limits: smooth motion between random configurations."""
    rng = np.random.default_rng(seed)
    lower, upper = solver.free_limits.T
    corners = rng.uniform(lower, upper, size=(-(-frames // _STEP_FRAMES) + 1, len(lower)))
    for frame in range(frames):
        step, phase = divmod(frame, _STEP_FRAMES)
        share = 0.5 - 0.5 * np.cos(np.pi * phase / _STEP_FRAMES)
        free = corners[step] * (1 - share) + corners[step + 1] * share
        yield solver.clip(solver.expand(free))


def reachable_error(
    robot: str, method: str, robots_dir: str | None, seed: int
) -> tuple[float, float]:
    """(mean fingertip error in mm, median ms a frame) over three seconds of smooth motion.

    The right hand; no low-pass filter, so that the solver is measured and not the lag.
    """
    spec = find_robot(robot, robots_dir)
    solver = HandSolver(spec, spec.urdf("right")[0], method, regularisation=3e-4)
    errors, times, state = [], [], None
    for joints in smooth_joints(solver, 5 * _STEP_FRAMES, seed):
        targets = solver.fingertips(joints)
        began = time.perf_counter()
        solution = solver.solve(targets, state)
        times.append(time.perf_counter() - began)
        state = solution.state
        errors.append(float(np.linalg.norm(solution.tips - targets, axis=1).mean()))
    return float(np.mean(errors)) * 1e3, float(np.median(times)) * 1e3


def score_reach(robots_dir: str | None, seed: int) -> dict[tuple[str, str], float]:
    """Errors and times of every robot there is and every method."""
    values = {}
    for robot in known_robots(robots_dir):
        for method in METHODS:
            error, ms = reachable_error(robot, method, robots_dir, seed)
            values["retargeter", f"reachable fingertips, {robot}, {method}, mm"] = error
            values["retargeter", f"time a frame, {robot}, {method}, ms"] = ms
    return values
