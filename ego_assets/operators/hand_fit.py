"""Fits the anatomical hand to one mask: bones inside it, all of it near a bone.

Here: the parameters, the residuals, Gauss-Newton. Not here: clips, rows, smoothing (`hands`).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from ego_assets.operators import hand_skeleton as skeleton
from ego_assets.operators.rle import mask_box

SIZE = 14
"""Parameters: rotation vector 3, translation 3 (x / z, y / z, log z), flexion 5, spread of the
thumb, of the fingers, and flexion that all fingers share."""
_SAMPLES = np.linspace(0.15, 1.0, 4)
_MASK_POINTS = 70
_WORK_PX = 110
_DAMPING = 1e-3
_ARM_RADII = 5.5
"""A mask that is longer, in radii of the palm, has a forearm in it; a flat hand has 5."""


@dataclass(frozen=True)
class HandView:
    """What one mask says of the hand, in normalised camera coordinates (x / z, y / z).

    distance: (h, w) signed distance to the outline, negative inside, in normalised units, of a
    crop; origin: of the crop's first pixel; step: of one of its pixels. points: (P, 2) inside
    the hand. palm, tip: (2,); radius: of the largest circle in the palm. reach: of the crop.
    """

    distance: np.ndarray
    origin: np.ndarray
    step: float
    points: np.ndarray
    palm: np.ndarray
    direction: np.ndarray
    radius: float
    at_border: bool
    is_wearer: bool = True

    @property
    def wrist(self) -> np.ndarray:
        """(2,) where the wrist should be."""
        return self.palm - 1.15 * self.radius * self.direction

    def depth(self, scale: float) -> float:
        """Distance in metres at which a palm of this hand looks as wide as it does."""
        return 0.037 * scale / self.radius


def view_of(mask: np.ndarray, matrix: np.ndarray, is_wearer: bool) -> HandView | None:
    """Measure a mask (H, W) bool under a (3, 3) camera matrix; None if it is too small."""
    small = _shrunk(mask)
    if small is None:
        return None
    crop, (x0, y0, shrink), (left, top, right, bottom) = small
    inside = cv2.distanceTransform(crop, cv2.DIST_L2, 5)
    outside = cv2.distanceTransform(1 - crop, cv2.DIST_L2, 5)
    at_border = bool(
        top <= 1 or left <= 1 or bottom >= mask.shape[0] - 2 or right >= mask.shape[1] - 2
    )
    palm, direction, radius, hand = _palm(crop, inside, mask.shape, (x0, y0, shrink))
    order = np.linspace(0, len(hand) - 1, min(_MASK_POINTS, len(hand))).astype(int)
    focal = float(matrix[0, 0])
    step = 1.0 / (shrink * focal)
    offset = np.array([(x0 - matrix[0, 2]) / focal, (y0 - matrix[1, 2]) / focal])
    return HandView(
        distance=(outside - inside) * step,
        origin=offset,
        step=step,
        points=hand[order] * step + offset,
        palm=palm * step + offset,
        direction=direction,
        radius=radius * step,
        at_border=at_border,
        is_wearer=is_wearer,
    )


def hand_box(mask: np.ndarray) -> list[float] | None:
    """Box x_min, y_min, x_max, y_max of the hand in a mask (H, W) bool, in pixels. None if the mask
    is too small to tell.

    A bare forearm may be part of the mask, and is left out: of masks longer than a hand is.
    """
    small = _shrunk(mask)
    if small is None:
        return None
    crop, (x0, y0, shrink), (left, top, right, bottom) = small
    inside = cv2.distanceTransform(crop, cv2.DIST_L2, 5)
    points = np.argwhere(crop)
    along = points @ np.linalg.eigh(np.cov(points.T))[1][:, 1]
    if np.ptp(along) < _ARM_RADII * inside.max():
        return [float(v) for v in (left, top, right + 1, bottom + 1)]
    *_, hand = _palm(crop, inside, mask.shape, (x0, y0, shrink))
    low = np.maximum(hand.min(axis=0) / shrink + (x0, y0), (left, top))
    high = np.minimum((hand.max(axis=0) + 1) / shrink + (x0, y0), (right + 1, bottom + 1))
    return [*low.tolist(), *high.tolist()]


def _shrunk(
    mask: np.ndarray,
) -> tuple[np.ndarray, tuple[float, float, float], tuple[int, int, int, int]] | None:
    """(crop of a mask, uint8; its first pixel and its scale; left, top, right, bottom of the mask),
    or None if the mask is too small."""
    box = mask_box(mask)
    if box is None or np.count_nonzero(mask) < 60:
        return None
    left, top, right, bottom = (
        int(edge - last) for edge, last in zip(box, (0, 0, 1, 1), strict=True)
    )
    shrink = min(1.0, _WORK_PX / max(bottom - top, right - left, 1))
    pad = 0.25 * max(bottom - top, right - left) + 4
    x0, y0 = left - pad, top - pad
    width, height = int((right - left + 2 * pad) * shrink), int((bottom - top + 2 * pad) * shrink)
    move = np.array([[shrink, 0, -x0 * shrink], [0, shrink, -y0 * shrink]])
    crop = cv2.warpAffine(mask.astype(np.uint8), move, (width, height), flags=cv2.INTER_NEAREST)
    crop = cv2.medianBlur(crop, 3)
    if not crop.any():
        return None
    return crop, (x0, y0, shrink), (left, top, right, bottom)


def _palm(
    crop: np.ndarray, inside: np.ndarray, shape: tuple[int, ...], frame: tuple[float, float, float]
) -> tuple[np.ndarray, np.ndarray, float, np.ndarray]:
    """(palm centre, direction of the fingers, palm radius, points of the hand), crop pixels."""
    rows, columns = np.nonzero(crop)
    points = np.column_stack([columns, rows]).astype(np.float64)
    x0, y0, shrink = frame
    full = points / shrink + [x0, y0]
    edge = (full[:, 0] < 3) | (full[:, 0] > shape[1] - 4) | (full[:, 1] > shape[0] - 4)
    if edge.sum() >= 4:
        arm = points[edge].mean(axis=0)
    else:  # the wearer's arm comes from below
        low = points[:, 1] >= np.percentile(points[:, 1], 94)
        arm = points[low].mean(axis=0)
    middle = points.mean(axis=0)
    axis = (middle - arm) / max(1e-6, float(np.linalg.norm(middle - arm)))
    along = (points - arm) @ axis
    depth = inside[rows, columns]
    length = float(along.max())
    # The palm: wide, and beyond the arm's own width.
    score = depth * (0.55 + 0.45 * np.clip(along / max(length, 1e-6), 0, 0.75) / 0.75)
    best = int(np.argmax(score))
    palm, radius = points[best], float(depth[best])
    far = points[along > along[best] + 0.5 * radius]
    ahead = (far.mean(axis=0) if len(far) else points[along.argmax()]) - palm
    ahead /= max(1e-6, float(np.linalg.norm(ahead)))
    reach = (palm - arm) / max(1e-6, float(np.linalg.norm(palm - arm)))
    direction = 0.6 * ahead + 0.4 * reach
    direction /= max(1e-6, float(np.linalg.norm(direction)))
    hand = points[(points - palm) @ direction > -1.25 * radius]
    return palm, direction, radius, hand


def joints_of(parameters: np.ndarray, side: str, scale: float) -> np.ndarray:
    """(N, 21, 3) joints in the camera, metres, of (N, SIZE) parameters."""
    rotation = Rotation.from_rotvec(parameters[:, :3]).as_matrix()
    z = np.exp(parameters[:, 5])
    translation = np.stack([parameters[:, 3] * z, parameters[:, 4] * z, z], axis=-1)
    flexion = np.clip(
        parameters[:, 6:11] + parameters[:, 13:14] * np.array([0.3, 1, 1, 1, 1]),
        *skeleton.FLEXION_LIMITS,
    )
    thumb = np.clip(parameters[:, 11], *skeleton.SPREAD_LIMITS)
    fan = np.array([0.0, 1.0, 0.2, -0.5, -1.2])
    spread = np.clip(parameters[:, 12:13], -0.1, 0.25) * fan
    spread[:, 0] += thumb
    joints = skeleton.hand_joints(flexion, spread, side, scale)
    return np.einsum("nij,nkj->nki", rotation, joints) + translation[:, None]


def residuals(
    parameters: np.ndarray,
    view: HandView,
    side: str,
    scale: float,
    before: np.ndarray | None,
) -> np.ndarray:
    """(N, R) residuals of (N, SIZE) parameters, in palm radii and radians."""
    joints = joints_of(parameters, side, scale)
    z = np.maximum(joints[..., 2:], 0.02)
    flat = joints[..., :2] / z
    start, end = (flat[:, [b[i] for b in skeleton.BONES]] for i in (0, 1))
    samples = start[:, :, None] + (end - start)[:, :, None] * _SAMPLES[:, None]
    radii = skeleton.BONE_RADII.mean(axis=1) * scale / z.mean(axis=(1, 2))[:, None]
    count = len(parameters)
    signed = _lookup(view, samples.reshape(count, -1, 2)).reshape(count, 20, len(_SAMPLES))
    out = np.maximum(0, signed + 0.55 * radii[:, :, None]) / view.radius
    offset = view.points[None, :, None] - start[:, None]
    bone = (end - start)[:, None]
    share = (offset * bone).sum(-1) / np.maximum((bone**2).sum(-1), 1e-12)
    nearest = offset - np.clip(share, 0, 1)[..., None] * bone
    gap = np.sqrt((nearest**2).sum(-1)) - 1.1 * radii[:, None]
    bare = np.maximum(0, gap.min(axis=2)) / view.radius
    prior = np.concatenate(
        [
            0.5 * (parameters[:, 6:11] - np.array([0.3, 0, 0, 0, 0])),
            0.5 * parameters[:, 11:13],
            0.15 * (parameters[:, 13:14] - 0.9),
        ],
        axis=1,
    )
    parts = [
        out.reshape(count, -1) * 0.5,
        bare * 0.9,
        prior,
        _anchors(parameters, flat, view, scale),
    ]
    if before is not None:
        weights = np.array([0.5] * 3 + [0.0, 0.0, 2.0] + [0.25] * 8)
        parts.append((parameters - before) * weights)
    return np.concatenate(parts, axis=1)


def _anchors(parameters: np.ndarray, flat: np.ndarray, view: HandView, scale: float) -> np.ndarray:
    """(N, 6) what the arm and the palm say: wrist, direction, distance, the side that is seen."""
    wrist = (flat[:, 0] - view.wrist) / view.radius
    ahead = flat[:, 9] - flat[:, 0]
    ahead = ahead / np.maximum(np.linalg.norm(ahead, axis=1), 1e-9)[:, None]
    distance = parameters[:, 5:6] - np.log(view.depth(scale))
    back = Rotation.from_rotvec(parameters[:, :3]).as_matrix()[:, 2, 2:3]
    shown = np.maximum(0, back + 0.2) if view.is_wearer else np.zeros_like(back)
    return np.concatenate(
        [0.8 * wrist, 0.7 * (ahead - view.direction), 0.8 * distance, 2.0 * shown], axis=1
    )


def fit(
    start: np.ndarray,
    view: HandView,
    side: str,
    scale: float,
    before: np.ndarray | None,
    rounds: int,
) -> tuple[np.ndarray, float]:
    """(parameters, root mean square residual) by damped Gauss-Newton (Levenberg 1944)."""
    best = start.copy()
    steps = np.array([1e-3] * 3 + [1e-4] * 2 + [1e-3] + [1e-3] * 8)
    damping = _DAMPING
    current = residuals(best[None], view, side, scale, before)[0]
    cost = float(current @ current)
    for _ in range(rounds):
        probes = best + np.diag(steps)
        jacobian = (residuals(probes, view, side, scale, before) - current).T / steps
        normal = jacobian.T @ jacobian
        gradient = jacobian.T @ current
        scales = np.array([1.0, 10.0, 100.0])
        trials = []
        for factor in scales:
            lifted = normal + damping * factor * np.diag(np.diag(normal) + 1e-3)
            trials.append(best - np.linalg.solve(lifted, gradient))
        values = residuals(np.stack(trials), view, side, scale, before)
        costs = (values**2).sum(axis=1)
        chosen = int(costs.argmin())
        if costs[chosen] >= cost:
            damping *= 30
            if damping > 1e3:
                break
            continue
        gain = (cost - float(costs[chosen])) / max(cost, 1e-12)
        best, current, cost = trials[chosen], values[chosen], float(costs[chosen])
        damping = max(1e-5, damping * scales[chosen] * 0.3)
        if gain < 1e-3:
            break
    return best, float(np.sqrt(cost / len(current)))


def first_guesses(view: HandView, side: str, scale: float) -> list[np.ndarray]:
    """Starting points, flat, tilted or turned to the side: the wearer sees the back of the hand.

    Of a hand that is not the wearer's, the palm may be seen as well.
    """
    roll = 0.9 if side == "right" else -0.9
    turns = [(0.0, 0.0, 0.0), (0.0, 0.6, 0.0), (0.0, -0.6, 0.0), (roll, 0.0, 0.0), (roll, 0.5, 0.0)]
    turns += [(0.0, 0.0, 0.6), (0.0, 0.0, -0.6)]
    guesses = []
    for facing in (-1.0,) if view.is_wearer else (-1.0, 1.0):
        for turn, tilt, swing in turns:
            cos, sin = np.cos(swing), np.sin(swing)
            ahead = np.array([[cos, -sin], [sin, cos]]) @ view.direction
            x_axis, z_axis = np.array([*ahead, 0.0]), np.array([0.0, 0.0, facing])
            rotation = np.column_stack([x_axis, np.cross(z_axis, x_axis), z_axis])
            rotation = rotation @ Rotation.from_rotvec([turn, 0, 0]).as_matrix()
            rotation = rotation @ Rotation.from_rotvec([0, tilt, 0]).as_matrix()
            guess = np.zeros(SIZE)
            guess[:3] = Rotation.from_matrix(rotation).as_rotvec()
            guess[3:6] = [*view.wrist, np.log(view.depth(scale))]
            guess[6:11] = [0.3, 0, 0, 0, 0]
            guess[13] = 0.7
            guesses.append(guess)
    return guesses


def _lookup(view: HandView, points: np.ndarray) -> np.ndarray:
    """(N, P) signed distance at (N, P, 2) places, bilinear; outside the crop it grows on."""
    height, width = view.distance.shape
    places = (points - view.origin) / view.step
    x = np.clip(places[..., 0], 0, width - 1.001)
    y = np.clip(places[..., 1], 0, height - 1.001)
    column, row = x.astype(int), y.astype(int)
    fx, fy = x - column, y - row
    grid = view.distance
    value = (grid[row, column] * (1 - fx) + grid[row, column + 1] * fx) * (1 - fy)
    value += (grid[row + 1, column] * (1 - fx) + grid[row + 1, column + 1] * fx) * fy
    beyond = np.hypot(places[..., 0] - x, places[..., 1] - y)
    return value + beyond * view.step
