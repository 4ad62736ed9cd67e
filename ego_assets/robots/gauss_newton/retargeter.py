"""Retargeting by our own solver, hands of several takes at a time.

Here: which hands are solved together. Not here: the solver (`solver`, and `batch` for many hands at
once), rows.
"""

from __future__ import annotations

import threading
from pathlib import Path

from ego_assets.models.batching import MicroBatcher
from ego_assets.robots.gauss_newton.batch import solve_runs
from ego_assets.robots.gauss_newton.chains import UnsuitedHandError
from ego_assets.robots.gauss_newton.solver import GaussNewtonSolver
from ego_assets.robots.retargeting import DexRetargeter
from ego_assets.robots.robot_hands import RobotSpec
from ego_assets.robots.settings import RetargetSettings
from ego_assets.robots.solver import HandRun, HandSolver, Solution, solve_run

HANDS = 64
"""That are solved together at most."""
FEW = 4
"""Hands up to which one after the other is as fast (`benchmarks/retarget.py`)."""


class GaussNewtonRetargeter(DexRetargeter):
    """`hand_poses` → `robot_mappings` as DexRetargeter, by our own solver; by the library's where
    ours cannot: `dexpilot`, and hands whose wrist has joints of its own.

    Its lanes bring hands of clips of different takes; all of them, of all robots, go through their
    frames in step.
    """

    name = "gauss_newton"
    version = f"{DexRetargeter.version}.1"
    lanes = 8

    def __init__(self, settings: RetargetSettings) -> None:
        super().__init__(settings)
        self.batch = MicroBatcher(_solve_together, HANDS)
        self._building = threading.Lock()

    def solver(self, robot: str, side: str) -> tuple[HandSolver, bool]:
        """See DexRetargeter. Lanes share them."""
        with self._building:
            return super().solver(robot, side)

    def _built(self, kind: type[HandSolver], spec: RobotSpec, urdf: Path) -> HandSolver:
        try:
            return super()._built(GaussNewtonSolver, spec, urdf)
        except UnsuitedHandError:
            return super()._built(kind, spec, urdf)

    def solve(self, runs: list[HandRun]) -> list[list[Solution]]:
        """Solutions of each hand's frames, with those that other lanes bring."""
        return self.batch(runs)


def _solve_together(runs: list[HandRun]) -> list[list[Solution]]:
    found: list[list[Solution] | None] = [None] * len(runs)
    ours = [at for at, run in enumerate(runs) if isinstance(run.solver, GaussNewtonSolver)]
    if len(ours) > FEW:
        for at, solutions in zip(ours, solve_runs([runs[at] for at in ours]), strict=True):
            found[at] = solutions
    return [f if f is not None else solve_run(r) for f, r in zip(found, runs, strict=True)]
