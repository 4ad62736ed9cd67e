"""Retargeting by our own solver, hands of several takes at a time.

Here: which hands are solved together. Not here: the solver (`operators.gauss_newton`, and
`operators.hand_batch` for many hands at once), rows.
"""

from __future__ import annotations

import threading

from ego_assets.models.batching import MicroBatcher
from ego_assets.robots.gauss_newton.batch import solve_runs
from ego_assets.robots.gauss_newton.solver import GaussNewtonSolver
from ego_assets.robots.retargeting import DexRetargeter
from ego_assets.robots.settings import RetargetSettings
from ego_assets.robots.solver import HandRun, HandSolver, Solution, solve_run

HANDS = 64
"""That are solved together at most."""
FEW = 4
"""Hands up to which one after the other is as fast (`benchmarks/retarget.py`)."""


class GaussNewtonRetargeter(DexRetargeter):
    """`hand_poses` → `robot_mappings` as DexRetargeter, by our own solver.

    Its lanes bring hands of clips of different takes; all of them, of all robots, go through their
    frames in step.
    """

    name = "gauss_newton"
    version = f"{DexRetargeter.version}.1"
    solver_class = GaussNewtonSolver
    lanes = 8

    def __init__(self, settings: RetargetSettings) -> None:
        super().__init__(settings)
        self.batch = MicroBatcher(_solve_together, HANDS)
        self._building = threading.Lock()

    def solver(self, robot: str, side: str) -> tuple[HandSolver, bool]:
        """See DexRetargeter. Lanes share them."""
        with self._building:
            return super().solver(robot, side)

    def solve(self, runs: list[HandRun]) -> list[list[Solution]]:
        """Solutions of each hand's frames, with those that other lanes bring."""
        return self.batch(runs)


def _solve_together(runs: list[HandRun]) -> list[list[Solution]]:
    return [solve_run(run) for run in runs] if len(runs) <= FEW else solve_runs(runs)
