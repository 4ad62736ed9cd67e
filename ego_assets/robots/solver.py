"""One robot hand's solver: dex_retargeting's objectives, with their failures brought to light.

Here: building the optimizer, solving one frame from a state, forward kinematics. Not here: hand
poses, rows or clips (`retarget`).

dex_retargeting 0.5 (Qin et al., "AnyTeleop", 2023; DexPilot: Handa et al., 2019) prints and
swallows the solver's exceptions, and its objectives leave the regularisation out of the value
that they put into the gradient, on which SLSQP's line search stalls. So its optimizers are built
here and its objectives are driven through nlopt directly: the missing term is added, exceptions
become a status, and nothing is printed. Joint order is pinocchio's throughout.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ego_assets.operator import BadInputError
from ego_assets.robots.robot_hands import FINGERS, RobotSpec, mimic_joints

_TOLERANCE = {"position": 1e-6, "vector": 1e-5, "dexpilot": 1e-4}
"""Change of the loss that ends a solution: 1 to 2 mm of fingertip error is left, 2 ms a frame."""
JUMP_M = 0.03
RETRY_ERROR_M = 0.004
STARTS = (0.5, 0.1, 0.3, 0.8)
_NO_MOVEMENT_GRADIENT = 1e-3


@dataclass(frozen=True)
class SolverState:
    """What a take's next frame needs of the one before.

    qpos: (A,) free joints as solved; filtered: (D,) all joints as given out; targets: (F, 3)
    fingertip targets, wrist frame, metres; projected: DexPilot's pinch flags.
    """

    qpos: np.ndarray
    filtered: np.ndarray
    targets: np.ndarray
    projected: np.ndarray


@dataclass(frozen=True)
class Solution:
    """positions: (D,) all joints; tips: (F, 3) in the wrist frame, metres."""

    positions: np.ndarray
    tips: np.ndarray
    status: str
    reason: str
    state: SolverState


@dataclass(frozen=True)
class HandRun:
    """A hand through frames, in order: what is solved one after the other.

    targets: (T, F, 3) fingertips, wrist frame, metres; anew: (T,) bool, frames that do not go on
    from the one before; state: after the frame before the first.
    """

    solver: HandSolver
    targets: np.ndarray
    anew: np.ndarray
    state: SolverState | None


def solve_run(run: HandRun) -> list[Solution]:
    """A solution for each frame."""
    found: list[Solution] = []
    state = run.state
    for targets, anew in zip(run.targets, run.anew, strict=True):
        found.append(run.solver.solve(targets, None if anew else state))
        state = found[-1].state
    return found


def _robot_class() -> type:
    """The library's robot with one Jacobian pass a configuration instead of one a link."""
    import pinocchio as pin
    from dex_retargeting.robot_wrapper import RobotWrapper

    class OnePassRobot(RobotWrapper):
        def compute_forward_kinematics(self, qpos: np.ndarray) -> None:
            pin.computeJointJacobians(self.model, self.data, qpos)

        def compute_single_link_local_jacobian(self, qpos: np.ndarray, link_id: int) -> np.ndarray:
            found: np.ndarray = pin.getFrameJacobian(self.model, self.data, link_id, pin.LOCAL)
            return found

    return OnePassRobot


class HandSolver:
    """Solves one robot hand of one side with one method.

    Raises BadInputError if the URDF cannot be read or lacks a link or joint of the mapping.
    """

    def __init__(
        self,
        spec: RobotSpec,
        urdf: Path,
        method: str,
        *,
        low_pass_alpha: float = 1.0,
        regularisation: float = 1e-4,
        max_evaluations: int = 100,
    ) -> None:
        self.spec = spec
        self.urdf = urdf
        self.method = method
        self.alpha = low_pass_alpha
        self.regularisation = regularisation
        self.fingers = tuple(f for f in FINGERS if f in spec.fingertips)
        self.tip_links = [spec.fingertips[f] for f in self.fingers]
        self.robot = self._load(urdf)
        self.joint_names: list[str] = list(self.robot.dof_joint_names)
        self.limits = np.array(self.robot.joint_limits, dtype=np.float64)
        self.wrist_index = self.robot.get_link_index(spec.wrist_link)
        self.tip_indices = [self.robot.get_link_index(link) for link in self.tip_links]
        self.max_evaluations = max_evaluations
        self.mimics = mimic_joints(urdf)
        tied = {m.joint for m in self.mimics} | set(spec.fixed_joints)
        free = [at for at, name in enumerate(self.joint_names) if name not in tied]
        self.free = np.array(free, dtype=np.int64)
        self._followers = [self.joint_names.index(m.joint) for m in self.mimics]
        self._leaders = [self.joint_names.index(m.leader) for m in self.mimics]
        self._multipliers = np.array([m.multiplier for m in self.mimics])
        self._offsets = np.array([m.offset for m in self.mimics])
        self.free_limits = self.limits[self.free]
        neutral = self.expand(np.clip(np.zeros(len(self.free)), *self.free_limits.T))
        self.root_from_wrist = self._wrist_pose(neutral)
        straight = self.fingertips(neutral)[self.fingers.index("middle")]
        self.reach_m = float(np.linalg.norm(straight))

    def _load(self, urdf: Path) -> Any:
        try:
            robot = _robot_class()(str(urdf))
        except (ValueError, RuntimeError, NotImplementedError) as error:
            raise BadInputError(f"{urdf}: cannot be loaded as a robot hand: {error}") from error
        missing = {self.spec.wrist_link, *self.tip_links} - set(robot.link_names)
        missing |= set(self.spec.fixed_joints) - set(robot.dof_joint_names)
        if missing:
            raise BadInputError(
                f"{urdf}: has no links or joints {sorted(missing)}, which the mapping of "
                f"{self.spec.name} names; is it another version of the hand?"
            )
        return robot

    @cached_property
    def optimizer(self) -> Any:
        """The library's objective and nlopt, which bring torch along."""
        import torch
        from dex_retargeting import optimizer as dex
        from dex_retargeting.kinematics_adaptor import MimicJointKinematicAdaptor

        # Tensors of a few numbers: more threads only cost.
        torch.set_num_threads(1)
        mimics = self.mimics
        free = [self.joint_names[at] for at in self.free]
        count = len(self.tip_links)
        human = np.arange(count)
        optimizer: Any
        if self.method == "position":
            optimizer = dex.PositionOptimizer(self.robot, free, self.tip_links, human)
        elif self.method == "vector":
            wrist = [self.spec.wrist_link] * count
            optimizer = dex.VectorOptimizer(
                self.robot, free, wrist, self.tip_links, np.stack([human, human])
            )
        elif self.method == "dexpilot":
            optimizer = dex.DexPilotOptimizer(
                self.robot, free, self.tip_links, self.spec.wrist_link
            )
        else:
            raise ValueError(f"method {self.method!r}: there are vector, position, dexpilot")
        optimizer.norm_delta = self.regularisation
        optimizer.opt.set_ftol_abs(_TOLERANCE[self.method])
        optimizer.opt.set_maxeval(self.max_evaluations)
        optimizer.set_joint_limit(self.free_limits, epsilon=0.0)
        if mimics:
            optimizer.set_kinematic_adaptor(
                MimicJointKinematicAdaptor(
                    self.robot,
                    free,
                    [m.leader for m in mimics],
                    [m.joint for m in mimics],
                    [m.multiplier for m in mimics],
                    [m.offset for m in mimics],
                )
            )
        return optimizer

    def expand(self, free: np.ndarray) -> np.ndarray:
        """(A,) free joints to (D,) all joints: mimic joints follow, fixed ones stay at zero."""
        full = np.zeros(len(self.joint_names))
        full[self.free] = free
        full[self._followers] = full[self._leaders] * self._multipliers + self._offsets
        return full

    def clip(self, positions: np.ndarray) -> np.ndarray:
        """(D,) inside the URDF's limits, also once stored as float32."""
        lower, upper = self.limits.T
        clipped: np.ndarray = np.clip(positions, lower, upper).astype(np.float32)
        clipped = np.where(clipped > upper, np.nextafter(clipped, np.float32(-np.inf)), clipped)
        clipped = np.where(clipped < lower, np.nextafter(clipped, np.float32(np.inf)), clipped)
        return clipped.astype(np.float64)

    def _wrist_pose(self, positions: np.ndarray) -> np.ndarray:
        self.robot.compute_forward_kinematics(positions)
        return np.array(self.robot.get_link_pose(self.wrist_index))

    def fingertips(self, positions: np.ndarray) -> np.ndarray:
        """Forward kinematics: (D,) joints to (F, 3) fingertips in the wrist frame, metres."""
        root_from_wrist = self._wrist_pose(positions)
        tips = np.array([self.robot.get_link_pose(i)[:3, 3] for i in self.tip_indices])
        turned: np.ndarray = (tips - root_from_wrist[:3, 3]) @ root_from_wrist[:3, :3]
        return turned

    def _reference(self, targets: np.ndarray) -> np.ndarray:
        """Fingertip targets in the wrist frame as the method's reference value, root frame."""
        rotation = self.root_from_wrist[:3, :3]
        turned: np.ndarray = targets @ rotation.T
        if self.method == "position":
            turned = turned + self.root_from_wrist[:3, 3]
        elif self.method != "vector":
            nodes = np.vstack([np.zeros(3), turned])
            origin, task = self.optimizer.generate_link_indices(len(targets))
            turned = nodes[task] - nodes[origin]
        return turned

    def start(self) -> np.ndarray:
        """(A,) the configuration that a cold start begins from: the middle of the limits."""
        middle: np.ndarray = self.free_limits.mean(axis=1)
        return middle

    def _optimise(
        self, reference: np.ndarray, start: np.ndarray, weight: float
    ) -> tuple[np.ndarray, str, str]:
        """One run of SLSQP. Returns (joints, status, reason); joints = start if it failed."""
        optimizer = self.optimizer
        optimizer.norm_delta = weight
        fixed = np.zeros(len(optimizer.idx_pin2fixed), dtype=np.float32)
        objective = optimizer.get_objective_function(reference.astype(np.float32), fixed, start)
        steepness: list[float] = []

        def consistent(x: np.ndarray, grad: np.ndarray) -> float:
            value: float = objective(x, grad) + weight * float(np.sum((x - start) ** 2))
            if grad.size and not steepness:
                steepness.append(float(np.abs(grad).max()))
            return value

        optimizer.opt.set_min_objective(consistent)
        try:
            found = np.array(optimizer.opt.optimize(start), dtype=np.float64)
        except Exception as error:  # nlopt raises RuntimeError and classes of its own
            return start, "failed", f"{type(error).__name__}: {error}"
        code = int(optimizer.opt.last_optimize_result())
        if not np.isfinite(found).all():
            return start, "failed", "the solver returned values that are not finite"
        if code < 0:
            return start, "failed", f"nlopt result {code}"
        if code > 4:
            return found, "stopped", f"nlopt result {code}: evaluations used up"
        moved = np.abs(found - start).max() > 0
        inner = np.all((start > self.free_limits[:, 0]) & (start < self.free_limits[:, 1]))
        if not moved and inner and steepness and steepness[0] > _NO_MOVEMENT_GRADIENT:
            return found, "stopped", "the solver did not move from its start"
        return found, "converged", ""

    def _attempt(
        self, targets: np.ndarray, reference: np.ndarray, start: np.ndarray, weight: float
    ) -> tuple[float, np.ndarray, str, str]:
        found, status, reason = self._optimise(reference, start, weight)
        tips = self.fingertips(self.expand(found))
        return float(np.linalg.norm(tips - targets, axis=1).mean()), found, status, reason

    def solve(self, targets: np.ndarray, state: SolverState | None) -> Solution:
        """Joints whose fingertips come nearest to `targets` (F, 3), wrist frame, metres.

        The first frame, and one whose targets jump, is solved without regularisation and from
        several starts; the best result counts. A failed solution repeats the frame before.
        """
        if self.method == "dexpilot":
            self.optimizer.projected[:] = False if state is None else state.projected
        reference = self._reference(targets)
        cold = state is None or bool(
            np.linalg.norm(targets - state.targets, axis=1).mean() > JUMP_M
        )
        before = self.start() if state is None else state.qpos
        weight = 0.0 if cold else self.regularisation
        best = self._attempt(targets, reference, before, weight)
        if cold:
            for share in STARTS:
                if best[0] <= RETRY_ERROR_M and best[2] != "failed":
                    break
                lower, upper = self.free_limits.T
                other = self._attempt(targets, reference, lower + share * (upper - lower), 0.0)
                if other[2] != "failed" and (best[2] == "failed" or other[0] < best[0]):
                    best = other
        _, found, status, reason = best
        if status == "failed":
            found = before
        projected = np.zeros(0, dtype=bool)
        if self.method == "dexpilot":
            projected = np.array(self.optimizer.projected)
        return self._finish(found, targets, projected, state, (status, reason))

    def _finish(
        self,
        found: np.ndarray,
        targets: np.ndarray,
        projected: np.ndarray,
        state: SolverState | None,
        verdict: tuple[str, str],
    ) -> Solution:
        full = self.expand(found)
        after = SolverState(found, full, targets, projected)
        if state is not None and verdict[0] == "failed":
            full, after = state.filtered, state
        elif state is not None:
            full = state.filtered + self.alpha * (full - state.filtered)
            after = SolverState(found, full, targets, projected)
        positions = self.clip(full)
        return Solution(positions, self.fingertips(positions), *verdict, state=after)
