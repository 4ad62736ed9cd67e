"""Fingertips of many robot hands at once, and how the free joints move them.

Here: forward kinematics and Jacobians as array expressions over hands of any robots. Not here: one
hand at a time (pinocchio does that, in `retarget_solver`), solving (`gauss_newton`).

A fingertip is the end of a chain of joints from the root. Chains are brought to one length, and
hands to one number of fingertips and free joints, with parts that move nothing. Rotations about a
joint's axis are Rodrigues' formula. The last axis of every array is that of the hands, so that one
operation goes through all of them in a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ego_assets.robots.solver import HandSolver


class UnsuitedHandError(ValueError):
    """Our solver cannot solve this hand, or use this method; the library's can."""


@dataclass(frozen=True)
class HandChains:
    """B hands: F fingertips, each at the end of L joints, moved by A free ones; metres, radians.

    place, sine, cosine: (3, 3, F, L, B), a joint's rotation in the one before is place +
    sin(q) sine + (1 - cos(q)) cosine; shift, slide: (3, F, L, B), its origin there is shift +
    q slide; axis, push: (3, F, L, B), what it turns about and moves along, in itself; offset
    (F, L, B), spread (F, L, A, B): q of the free joints; tip: (3, F, B) in the last joint; is_tip:
    (F, B); limits: (2, A, B). All begins in the wrist's frame.
    """

    place: np.ndarray
    sine: np.ndarray
    cosine: np.ndarray
    shift: np.ndarray
    slide: np.ndarray
    axis: np.ndarray
    push: np.ndarray
    offset: np.ndarray
    spread: np.ndarray
    tip: np.ndarray
    is_tip: np.ndarray
    limits: np.ndarray

    @classmethod
    def of(cls, solver: HandSolver, every_joint: bool = False) -> HandChains:
        """One hand; its free joints are those of the solver, or all that there are.

        Raises UnsuitedHandError if the solver's free joints move the wrist.
        """
        import pinocchio as pin

        model, data = solver.robot.model, solver.robot.data
        base = solver.expand(np.zeros(len(solver.free)))
        spread = np.column_stack([solver.expand(u) - base for u in np.eye(len(solver.free))])
        if spread[[model.idx_qs[j] for j in _chain(model, solver.wrist_index)]].any():
            raise UnsuitedHandError(
                f"{solver.spec.name}: joints that are to be solved move its wrist"
            )
        pin.computeJointJacobians(model, data, base)
        if every_joint:
            base, spread = np.zeros(len(base)), np.eye(len(base))
        chains = [_chain(model, index) for index in solver.tip_indices]
        fingers, length = len(chains), max(1, *map(len, chains))
        hand = _blank(fingers, length, spread.shape[1])
        hand["limits"][..., 0] = (solver.limits if every_joint else solver.free_limits).T
        hand["is_tip"][:] = 1.0
        wrist_from_root = np.linalg.inv(solver.root_from_wrist)
        for finger, (chain, index) in enumerate(zip(chains, solver.tip_indices, strict=True)):
            hand["tip"][:, finger, 0] = model.frames[index].placement.translation
            hand["place"][:, :, finger, 0, 0] = wrist_from_root[:3, :3]
            hand["shift"][:, finger, 0, 0] = wrist_from_root[:3, 3]
            for at, joint in enumerate(chain):
                pose = model.jointPlacements[joint].homogeneous
                pose = wrist_from_root @ pose if at == 0 else pose
                moves = pin.getJointJacobian(model, data, joint, pin.LOCAL)[:, model.idx_vs[joint]]
                turn = np.cross(moves[3:], np.eye(3)).T
                where = (finger, at, 0)
                hand["place"][:, :, *where] = pose[:3, :3]
                hand["sine"][:, :, *where] = pose[:3, :3] @ turn
                hand["cosine"][:, :, *where] = pose[:3, :3] @ turn @ turn
                hand["shift"][:, *where], hand["slide"][:, *where] = (
                    pose[:3, 3],
                    pose[:3, :3] @ moves[:3],
                )
                hand["push"][:, *where], hand["axis"][:, *where] = moves[:3], moves[3:]
                hand["offset"][where] = base[model.idx_qs[joint]]
                hand["spread"][finger, at, :, 0] = spread[model.idx_qs[joint]]
        return cls(**hand)

    @classmethod
    def stacked(cls, hands: Sequence[HandChains]) -> HandChains:
        """Hands of maybe different robots, side by side."""
        fingers, length, free = (max(h.spread.shape[i] for h in hands) for i in range(3))
        found = _blank(fingers, length, free, len(hands))
        for number, hand in enumerate(hands):
            for name, whole in found.items():
                part = getattr(hand, name)
                where: Any = (*map(slice, part.shape[:-1]), number)
                whole[where] = part[..., 0]
        return cls(**found)

    def take(self, chosen: Any) -> HandChains:
        """Some of the hands, by an index or slice of the last axis."""
        return HandChains(**{f.name: getattr(self, f.name)[..., chosen] for f in fields(self)})

    def tips(self, free: np.ndarray) -> np.ndarray:
        """(3, F, B) fingertips in the wrist's frame, of (A, B) free joints."""
        return self._along(free)[0]

    def tips_and_slopes(self, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same, and their Jacobian (3, F, A, B)."""
        tips, origins, axes, pushes = self._along(free)
        (ax, ay, az), (x, y, z) = axes, tips[:, :, None] - origins
        moved = pushes + np.array([ay * z - az * y, az * x - ax * z, ax * y - ay * x])
        return tips, np.einsum("xflb,flab->xfab", moved, self.spread)

    def _along(self, free: np.ndarray) -> tuple[np.ndarray, ...]:
        """Tips (3, F, B); origin, axis and push of each joint (3, F, L, B)."""
        angles = self.offset + np.einsum("flab,ab->flb", self.spread, free)
        local = self.place + np.sin(angles) * self.sine + (1 - np.cos(angles)) * self.cosine
        shift = self.shift + angles * self.slide
        origins, turns = np.empty_like(shift), np.empty_like(local)
        origins[:, :, 0], turns[:, :, :, 0] = shift[:, :, 0], local[:, :, :, 0]
        for at in range(1, shift.shape[2]):
            before = turns[:, :, :, at - 1]
            origins[:, :, at] = origins[:, :, at - 1] + _apply(before, shift[:, :, at])
            turns[:, :, :, at] = np.einsum("xyfb,yzfb->xzfb", before, local[:, :, :, at])
        tips = origins[:, :, -1] + _apply(turns[:, :, :, -1], self.tip)
        axes, pushes = (np.einsum("xyflb,yflb->xflb", turns, v) for v in (self.axis, self.push))
        return tips, origins, axes, pushes


def _apply(turns: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    turned: np.ndarray = np.einsum("xyfb,yfb->xfb", turns, vectors)
    return turned


def _chain(model: Any, frame: int) -> list[int]:
    """The joints from the root to a frame, root first."""
    found: list[int] = []
    joint = model.frames[frame].parentJoint
    while joint:
        found.insert(0, joint)
        joint = model.parents[joint]
    return found


def _blank(fingers: int, length: int, free: int, hands: int = 1) -> dict[str, np.ndarray]:
    """Hands whose joints move nothing."""
    chain, vector = (fingers, length, hands), (3, fingers, length, hands)
    found = {
        "offset": np.zeros(chain),
        "spread": np.zeros((fingers, length, free, hands)),
        "tip": np.zeros((3, fingers, hands)),
        "is_tip": np.zeros((fingers, hands)),
        "limits": np.zeros((2, free, hands)),
    }
    found |= {name: np.zeros(vector) for name in ("shift", "slide", "axis", "push")}
    found |= {name: np.zeros((3, *vector)) for name in ("sine", "cosine")}
    found["place"] = np.zeros((3, *vector)) + np.eye(3)[:, :, None, None, None]
    return found
