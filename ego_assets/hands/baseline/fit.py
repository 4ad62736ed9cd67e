"""What one mask says of the hand in it, and where fitting an anatomical hand to it may begin.

Here: palm, direction, outline, and first guesses of the parameters. Not here: the fit itself
(`hand_solver`); clips, rows, smoothing (`hands`).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ego_assets.hands.skeleton import SIZE
from ego_assets.vision.rle import MaskCrop

_MASK_POINTS = 70
_WORK_PX = 110
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


def view_of(mask: MaskCrop, matrix: np.ndarray, is_wearer: bool) -> HandView | None:
    """Measure a mask under a (3, 3) camera matrix; None if it is too small."""
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


def hand_box(mask: np.ndarray | MaskCrop) -> list[float] | None:
    """Box x_min, y_min, x_max, y_max of the hand in a mask, in pixels. None if it is too small to
    tell.

    mask: (H, W) bool, or the part of it that holds its pixels. A bare forearm may be part of the
    mask, and is left out: of masks longer than a hand is.
    """
    mask = mask if isinstance(mask, MaskCrop) else MaskCrop.of(mask)
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
    mask: MaskCrop,
) -> tuple[np.ndarray, tuple[float, float, float], tuple[int, int, int, int]] | None:
    """(crop of a mask, uint8; its first pixel and its scale; left, top, right, bottom of the mask),
    or None if the mask is too small."""
    if np.count_nonzero(mask.pixels) < 60:
        return None
    left, top = mask.left, mask.top
    bottom, right = top + mask.pixels.shape[0] - 1, left + mask.pixels.shape[1] - 1
    shrink = min(1.0, _WORK_PX / max(bottom - top, right - left, 1))
    pad = 0.25 * max(bottom - top, right - left) + 4
    width, height = int((right - left + 2 * pad) * shrink), int((bottom - top + 2 * pad) * shrink)
    x0, y0 = left - pad, top - pad
    # OpenCV rounds by the place in the whole picture; of this one, only the part is ever touched.
    whole = np.zeros(mask.shape, np.uint8)
    whole[top : bottom + 1, left : right + 1] = mask.pixels
    move = np.array([[shrink, 0, -x0 * shrink], [0, shrink, -y0 * shrink]])
    crop = cv2.warpAffine(whole, move, (width, height), flags=cv2.INTER_NEAREST)
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


def first_guesses(view: HandView, side: str, scale: float) -> list[np.ndarray]:
    """Starting points, flat, tilted or turned to the side: the wearer sees the back of the hand.

    Of a hand that is not the wearer's, the palm may be seen as well.
    """
    from scipy.spatial.transform import Rotation

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
