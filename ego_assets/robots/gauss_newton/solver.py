"""A solver of our own for robot hands: damped least squares within joint limits.

Here: one solution from a start, for the objectives `vector` and `position`, which with a fixed
wrist are one. Not here: many hands at once (`hand_batch`), takes, cold starts, filters
(`retarget_solver`), rows (`retarget`).

The robot's Jacobian is known exactly, so a Gauss-Newton step (Levenberg 1944, Marquardt 1963) gets
in a few evaluations where a general solver needs dozens. Joints at a limit that would be pushed
beyond it are held for the step, the others are clipped to theirs (Bertsekas 1982).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ego_assets.robots.gauss_newton.chains import HandChains, UnsuitedHandError
from ego_assets.robots.solver import HandSolver

HUBER_M = 0.02
"""dex_retargeting's: its loss of an error below it is the error squared over twice this."""
FIRST_DAMPING = 1e-4
LEAST_GAIN = 1e-4
"""Relative decrease of the loss under which a solution is reached."""
GOOD_LOSS = 1e-9
DAMPINGS = 8
LEAST_DAMPING = 1e-8
NOT_FINITE = "targets or joints that are not finite"


def used_up(evaluations: int) -> str:
    """Why a solution is not the best."""
    return f"{evaluations} evaluations used up"


class GaussNewtonSolver(HandSolver):
    """A HandSolver whose regularisation means the same.

    Raises UnsuitedHandError for `dexpilot`, and for a hand whose free joints move its wrist.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        if self.method == "dexpilot":
            raise UnsuitedHandError("dexpilot is only available from dex_retargeting")
        zero = np.zeros(len(self.free))
        self.base = base = self.expand(zero)
        self.spread = np.column_stack([self.expand(unit) - base for unit in np.eye(len(self.free))])
        self.evaluations = self.max_evaluations
        self.chains = HandChains.of(self)
        self.all_joints = HandChains.of(self, every_joint=True)
        self._scale = 1 / np.sqrt(len(self.tip_links) * HUBER_M)

    def _tips(self, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Fingertips (F, 3) in the root frame, metres, and their Jacobian (3 F, A)."""
        import pinocchio as pin

        model, data = self.robot.model, self.robot.data
        pin.computeJointJacobians(model, data, self.expand(free))
        places, parts = [], []
        for index in self.tip_indices:
            places.append(pin.updateFramePlacement(model, data, index).translation.copy())
            parts.append(
                pin.getFrameJacobian(model, data, index, pin.LOCAL_WORLD_ALIGNED)[:3].copy()
            )
        return np.array(places), np.concatenate(parts) @ self.spread

    def _optimise(
        self, reference: np.ndarray, start: np.ndarray, weight: float
    ) -> tuple[np.ndarray, str, str]:
        wanted = reference
        if self.method == "vector":
            wanted = reference + self.root_from_wrist[:3, 3]
        lower, upper = self.free_limits.T
        pull = np.sqrt(2 * weight)

        def residuals(free: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
            tips, jacobian = self._tips(free)
            off = np.concatenate([(tips - wanted).ravel() * self._scale, pull * (free - start)])
            slope = np.vstack([jacobian * self._scale, pull * np.eye(len(free))])
            return off, slope, float(off @ off) / 2

        best = np.clip(start, lower, upper)
        off, slope, loss = residuals(best)
        if not np.isfinite(loss):
            return start, "failed", NOT_FINITE
        damping, left = FIRST_DAMPING, self.evaluations - 1
        while loss > GOOD_LOSS:
            gradient = slope.T @ off
            held = ((best <= lower) & (gradient > 0)) | ((best >= upper) & (gradient < 0))
            moving = ~held
            normal = slope[:, moving].T @ slope[:, moving]
            for _ in range(DAMPINGS):
                if not left:
                    return best, "stopped", used_up(self.evaluations)
                lifted = normal + damping * np.eye(len(normal))
                trial = best.copy()
                trial[moving] -= np.linalg.solve(lifted, gradient[moving])
                trial = np.clip(trial, lower, upper)
                found = residuals(trial)
                left -= 1
                if found[2] < loss:
                    break
                damping *= 10
            else:
                break  # no step however small helps: this is the minimum
            gain = (loss - found[2]) / loss
            best, (off, slope, loss) = trial, found
            damping = max(damping / 10, LEAST_DAMPING)
            if gain < LEAST_GAIN:
                break
        return best, "converged", ""
