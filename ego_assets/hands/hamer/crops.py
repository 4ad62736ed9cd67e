"""The squares of a picture that HaMeR looks at, and where a hand is by what it says of one.

Here: the hand in a mask, cutting, and the camera of a crop as a place in the real camera. Not here:
masks (`hand_masks`), the network (`network`).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ego_assets.hands.hamer.network import BOX_ASPECT
from ego_assets.operator import Intrinsics
from ego_assets.vision.cameras import normalised_points
from ego_assets.vision.rle import MaskCrop

BOX_SCALE = 2.0
"""The side of a crop over that of the hand's box (no forearm), as the network was trained."""
BLUR_OVER = 1.1
"""A crop that is shrunk by more than twice as much is blurred: what the official code takes."""
MIN_SCALE = 1e-2
"""Smaller predictions of the camera's scale are noise; they would put the hand beyond 100 m."""
_WORK_PX = 110
_ARM_RADII = 5.5
"""A mask that is longer, in radii of the palm, has a forearm in it; a flat hand has 5."""


@dataclass(frozen=True)
class Crop:
    """The square of a picture around a hand. centre: pixels, of pixel centres; side: pixels."""

    centre: tuple[float, float]
    side: float
    is_left: bool

    @classmethod
    def around(cls, box: list[float], is_left: bool) -> Crop:
        """Of a box x_min, y_min, x_max, y_max that holds the hand's pixels whole."""
        width, height = BOX_SCALE * (box[2] - box[0]), BOX_SCALE * (box[3] - box[1])
        centre = ((box[0] + box[2]) / 2 - 0.5, (box[1] + box[3]) / 2 - 0.5)
        return cls(centre, max(height, width / BOX_ASPECT), is_left)

    def cut(self, image: np.ndarray, size: int) -> np.ndarray:
        """(size, size, 3) uint8, black outside of the picture; a left hand is mirrored.

        What is shrunk by much is blurred before, as in the official code: fine patterns would
        come out as coarse ones.
        """
        zoom = size / self.side
        flip = -1 if self.is_left else 1
        (x, y), middle = self.centre, size / 2
        move = np.array([[flip * zoom, 0, middle - flip * zoom * x], [0, zoom, middle - zoom * y]])
        shrink = self.side / size / 2
        if shrink > BLUR_OVER:
            image, corner = self._blurred(image, (shrink - 1) / 2)
            move[:, 2] += move[:, :2] @ corner
        return cv2.warpAffine(image, move, (size, size), flags=cv2.INTER_LINEAR)

    def _blurred(self, image: np.ndarray, sigma: float) -> tuple[np.ndarray, np.ndarray]:
        """The part of the picture that the crop is cut from, blurred, and its corner (x, y)."""
        reach = round(4 * sigma)
        half = self.side / 2 + reach + 2
        low, high = (np.array(self.centre) + sign * half for sign in (-1, 1))
        size = np.array(image.shape[1::-1])
        (left, top), (right, bottom) = (np.clip(e, 0, size).astype(int) for e in (low, high))
        part = image[top:bottom, left:right]
        if part.size:
            kernel = (2 * reach + 1, 2 * reach + 1)
            part = cv2.GaussianBlur(part, kernel, sigma, borderType=cv2.BORDER_REPLICATE)
            return part, np.array([left, top], np.float64)
        return image, np.zeros(2)

    def translation(self, camera: np.ndarray, intrinsics: Intrinsics) -> np.ndarray:
        """(3,) metres from the camera to MANO's origin, of the network's scale, x, y.

        Weak perspective in the crop, x + x0 over the half side being 1 / scale, is full
        perspective at the depth where as many metres fill as many pixels of the real camera.
        """
        scale = max(float(camera[0]), MIN_SCALE)
        focal = (intrinsics.fx + intrinsics.fy) / 2
        depth = 2 * focal / (self.side * scale)
        x, y = normalised_points(intrinsics, np.array([self.centre]))[0] * depth
        flip = -1 if self.is_left else 1
        return np.array([x + flip * camera[1], y + camera[2], depth])


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
    hand = _without_arm(crop, inside, mask.shape, (x0, y0, shrink))
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


def _without_arm(
    crop: np.ndarray, inside: np.ndarray, shape: tuple[int, ...], frame: tuple[float, float, float]
) -> np.ndarray:
    """(N, 2) pixels of the crop that are the hand's: from its palm on, away from the arm."""
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
    hand: np.ndarray = points[(points - palm) @ direction > -1.25 * radius]
    return hand
