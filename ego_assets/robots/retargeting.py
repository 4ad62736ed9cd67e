"""Retargeting: hand poses to the joint positions of robot hands.

Here: `DexRetargeter`, from rows of `hand_poses` to rows of `robot_mappings`, and what a take
carries on. Not here: the solver (`retarget_solver`), the hands (`robots`).

The human hand is brought into its own wrist frame and scaled to the robot's length (straight
middle finger of the robot over the sum of the human middle finger's bones, which does not
depend on the pose, smoothed along the take). Its fingertips are the targets. A robot with a right
hand only gets left hands mirrored: see `robots`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ego_assets.operator import Carried, ClipInput, ClipOutput, Rows
from ego_assets.robots.robot_hands import HUMAN_TIPS, RobotSpec, find_robot
from ego_assets.robots.settings import RetargetSettings
from ego_assets.robots.solver import (
    HandRun,
    HandSolver,
    Solution,
    SolverState,
    solve_run,
)
from ego_assets.robots.tables import RobotReason
from ego_assets.vision.geometry import matrix_from_quaternion

_MIDDLE_CHAIN = (0, 9, 10, 11, 12)
_REACH_SHARE = 0.1
_REACH_RANGE_M = (0.02, 1.0)
_LIMIT_SLACK_RAD = 1e-6
_GAP_S = 0.5
MAX_ERROR_M = 0.03
"""From a fingertip to its target: beyond it, the robot no longer does what the hand does."""
_MIRROR = np.array([1.0, -1.0, 1.0])
_STATE_FIELDS = ("qpos", "filtered", "targets", "projected")


@dataclass(frozen=True)
class HandState:
    """One hand's state after a frame: the solver's, and the human hand's reach in metres."""

    frame_index: int
    pts_s: float
    reach_m: float
    solver: SolverState


@dataclass
class _History:
    """States of one hand and robot, oldest first: enough to enter a clip's context anywhere."""

    states: list[HandState] = field(default_factory=list)

    def before(self, frame_index: int) -> HandState | None:
        earlier = [s for s in self.states if s.frame_index < frame_index]
        return earlier[-1] if earlier else None


@dataclass(frozen=True)
class _Passage:
    """A hand in a clip, on one robot. reaches_m: of the human hand in each pose, smoothed."""

    robot: str
    poses: Rows
    reaches_m: list[float]
    run: HandRun
    history: _History


class DexRetargeter:
    """dex_retargeting 0.5 (vector, position, dexpilot) as an operator.

    One row per valid hand pose and robot, ordered by robot, track and frame; hand poses marked
    invalid have none. Raises UnknownRobotError (a BadInputError) for a robot that is not there
    and BadInputError for a URDF that does not fit its mapping.
    """

    name = "dex_retargeting"
    version = "3"
    quality_tier = "baseline"
    weights_hash = ""

    def __init__(self, settings: RetargetSettings) -> None:
        self.settings = settings
        found = [find_robot(name, settings.robots_dir) for name in settings.robots]
        specs = {spec.name: spec for spec in found}
        self.specs = [specs[name] for name in sorted(specs)]
        self._solvers: dict[tuple[str, str], tuple[HandSolver, bool]] = {}

    def solver(self, robot: str, side: str) -> tuple[HandSolver, bool]:
        """(solver of a robot for hands of a side, whether such hands must be mirrored)."""
        if (robot, side) not in self._solvers:
            spec = next(s for s in self.specs if s.name == robot)
            urdf, mirrored = spec.urdf(side)
            self._solvers[robot, side] = self._built(HandSolver, spec.of(urdf), urdf), mirrored
        return self._solvers[robot, side]

    def _built(self, kind: type[HandSolver], spec: RobotSpec, urdf: Path) -> HandSolver:
        return kind(
            spec,
            urdf,
            self.settings.method,
            low_pass_alpha=self.settings.low_pass_alpha,
            regularisation=self.settings.regularisation,
            max_evaluations=self.settings.max_evaluations,
        )

    def process(self, clip: ClipInput, carried: Carried | None) -> ClipOutput:
        """Rows of `robot_mappings`; what is carried lets the next clip go on as one long run."""
        hands: dict[tuple[str, str], Rows] = {}
        skipped: Counter[str] = Counter()
        for pose in clip.tables["hand_poses"].to_pylist():
            reason = _unfit(pose)
            if reason:
                skipped[reason] += 1
                continue
            hands.setdefault((pose["track_id"], pose["side"]), []).append(pose)
        histories = _unpack(carried)
        passages: list[_Passage] = []
        for spec in self.specs:
            for track_id, side in sorted(hands):
                key = f"{spec.name}|{track_id}|{side}|{self.settings.method}"
                history = histories.setdefault(key, _History())
                state = history.before(clip.clip["start_frame"])
                history.states = [] if state is None else [state]
                poses = sorted(hands[track_id, side], key=lambda p: p["frame_index"])
                passages.append(self._passage(spec.name, poses, history))
        rows: Rows = []
        reasons: Counter[str] = Counter()
        solved = self.solve([p.run for p in passages])
        for passage, solutions in zip(passages, solved, strict=True):
            rows.extend(self._rows(clip, passage, solutions))
            reasons.update(s.reason for s in solutions if s.reason)
        end = clip.clip["end_pts_s"] - self.settings.carry_s
        notes: dict[str, Any] = {"rows": len(rows)}
        if skipped:
            notes["poses_skipped"] = dict(sorted(skipped.items()))
        if reasons:
            notes["solver_problems"] = dict(sorted(reasons.items()))
        return ClipOutput({"robot_mappings": rows}, carried=_pack(histories, end), notes=notes)

    def solve(self, runs: list[HandRun]) -> list[list[Solution]]:
        """Solutions of each hand's frames."""
        return [solve_run(run) for run in runs]

    def _passage(self, robot: str, poses: Rows, history: _History) -> _Passage:
        """What is to be solved for a hand's poses, in order."""
        solver, mirrored = self.solver(robot, poses[0]["side"])
        before = history.states[-1] if history.states else None
        seen_s = -np.inf if before is None else before.pts_s
        reach = 0.0 if before is None else before.reach_m
        anew, reaches, targets = [], [], []
        for pose in poses:
            # Too long unseen, the old pose says nothing of the new one.
            anew.append(pose["pts_s"] - seen_s > _GAP_S)
            joints = joints_in_hand(pose)
            found = reach_m(joints)
            reach = found if anew[-1] else reach + _REACH_SHARE * (found - reach)
            scale = self.settings.hand_scale * solver.reach_m / reach
            targets.append(wrist_targets(joints, solver, mirrored) * scale)
            reaches.append(reach)
            seen_s = pose["pts_s"]
        state = None if before is None else before.solver
        run = HandRun(solver, np.array(targets), np.array(anew), state)
        return _Passage(robot, poses, reaches, run, history)

    def _rows(
        self, clip: ClipInput, passage: _Passage, solutions: list[Solution]
    ) -> Iterator[dict[str, Any]]:
        """Rows of a hand; its states go to its history."""
        run = passage.run
        for pose, reach, targets, solution in zip(
            passage.poses, passage.reaches_m, run.targets, solutions, strict=True
        ):
            state = HandState(pose["frame_index"], pose["pts_s"], reach, solution.state)
            passage.history.states.append(state)
            row = clip.row(pose["frame_index"], pose["pts_s"])
            yield row | self._columns(passage.robot, pose, run.solver, solution, targets)

    def _columns(
        self,
        robot: str,
        pose: dict[str, Any],
        solver: HandSolver,
        solution: Solution,
        targets: np.ndarray,
    ) -> dict[str, Any]:
        errors = np.linalg.norm(solution.tips - targets, axis=1)
        lower, upper = solver.limits.T
        q = solution.positions
        inside = bool(np.all((q >= lower - _LIMIT_SLACK_RAD) & (q <= upper + _LIMIT_SLACK_RAD)))
        reason = reason_against(solution.status, inside, errors)
        return {
            "track_id": pose["track_id"],
            "side": pose["side"],
            "is_wearer": pose["is_wearer"],
            "is_valid": reason is None,
            "invalid_reason": reason,
            "confidence": confidence_of(pose["confidence"], errors),
            "robot": robot,
            "method": self.settings.method,
            "joint_names": list(solver.joint_names),
            "joint_positions": [float(v) for v in q],
            "camera_from_wrist_m": list(pose["camera_from_hand_m"]),
            "camera_from_wrist_xyzw": list(pose["camera_from_hand_xyzw"]),
            "fingertip_names": list(solver.tip_links),
            "fingertip_error_m": [float(v) for v in errors],
            "mean_fingertip_error_m": float(errors.mean()),
            "solver_status": solution.status,
            "within_limits": inside,
            "backend": self.name,
            "quality_tier": self.quality_tier,
        }


def reason_against(status: str, within_limits: bool, errors_m: np.ndarray) -> RobotReason | None:
    """Why a row is not valid; None: it is. errors_m: (F,) of each fingertip to its target."""
    if status == "failed":
        return "solver failed"
    if not within_limits:
        return "out of limits"
    return "misses the fingertips" if errors_m.mean() > MAX_ERROR_M else None


def confidence_of(hand: float | None, errors_m: np.ndarray) -> float | None:
    """How likely it is that a fingertip of the robot is where the hand wants it, which it is not if
    the hand is none; None: the hand pose has no confidence."""
    return None if hand is None else hand * float(np.mean(errors_m <= MAX_ERROR_M))


def joints_in_hand(pose: dict[str, Any]) -> np.ndarray:
    """(21, 3) joints of a `hand_poses` row in its hand frame, wrist at the origin, metres."""
    joints = np.asarray(pose["joints_camera_m"], dtype=np.float64)
    camera_from_hand = matrix_from_quaternion(np.array(pose["camera_from_hand_xyzw"]))
    turned: np.ndarray = (joints - joints[0]) @ camera_from_hand
    return turned


def reach_m(joints: np.ndarray) -> float:
    """Sum of the bones from the wrist to the tip of the middle finger, metres."""
    chain = np.asarray(joints)[list(_MIDDLE_CHAIN)]
    return float(np.linalg.norm(np.diff(chain, axis=0), axis=1).sum())


def wrist_targets(joints: np.ndarray, solver: HandSolver, mirrored: bool) -> np.ndarray:
    """(F, 3) human fingertips in the robot's wrist frame, not scaled."""
    tips = joints[[HUMAN_TIPS[f] for f in solver.fingers]]
    if mirrored:
        tips = tips * _MIRROR
    turned: np.ndarray = tips @ solver.spec.wrist_from_hand.T
    return turned


def _unfit(pose: dict[str, Any]) -> str:
    """Why a hand pose cannot be retargeted, or nothing."""
    if not pose["is_valid"]:
        return "hand pose is invalid"
    joints = np.asarray(pose["joints_camera_m"], dtype=np.float64)
    rotation = np.asarray(pose["camera_from_hand_xyzw"], dtype=np.float64)
    if not (np.isfinite(joints).all() and np.isfinite(rotation).all()):
        return "hand pose has values that are not finite"
    if np.linalg.norm(rotation) < 1e-6:
        return "hand pose has no rotation"
    if not _REACH_RANGE_M[0] < reach_m(joints) < _REACH_RANGE_M[1]:
        return "hand pose has no plausible size"
    return ""


def _pack(histories: dict[str, _History], from_pts_s: float) -> Carried:
    """States since `from_pts_s`, less the gap that they may bridge, as a flat dict of arrays.

    The stored state is float64 to the bit, so that going on equals one long run.
    """
    carried: Carried = {}
    for key, history in sorted(histories.items()):
        states = [s for s in history.states if s.pts_s >= from_pts_s - _GAP_S]
        if not states:
            continue
        carried[f"{key}|frame_index"] = np.array([s.frame_index for s in states])
        carried[f"{key}|pts_s"] = np.array([s.pts_s for s in states])
        carried[f"{key}|reach_m"] = np.array([s.reach_m for s in states])
        for name in _STATE_FIELDS:
            carried[f"{key}|{name}"] = np.array([getattr(s.solver, name) for s in states])
    return carried


def _unpack(carried: Carried | None) -> dict[str, _History]:
    histories: dict[str, _History] = {}
    for name in carried or {}:
        key, _, leaf = name.rpartition("|")
        if leaf != "frame_index":
            continue
        column = {n: (carried or {})[f"{key}|{n}"] for n in ("pts_s", "reach_m", *_STATE_FIELDS)}
        histories[key] = _History(
            [
                HandState(
                    int(index),
                    float(column["pts_s"][i]),
                    float(column["reach_m"][i]),
                    SolverState(*(column[n][i] for n in _STATE_FIELDS)),
                )
                for i, index in enumerate((carried or {})[name])
            ]
        )
    return histories
