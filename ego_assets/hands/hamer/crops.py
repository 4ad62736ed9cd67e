"""The squares of a picture that HaMeR looks at, and where a hand is by what it says of one.

Here: cutting, and the camera of a crop as a place in the real camera. Not here: which boxes there
are (`hand_masks`), the network (`network`).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ego_assets.hands.hamer.network import BOX_ASPECT
from ego_assets.operator import Intrinsics
from ego_assets.vision.cameras import normalised_points

BOX_SCALE = 2.0
"""A crop is so many times the hand's box (without the forearm), as the network was trained."""
BLUR_OVER = 1.1
"""A crop that is shrunk by more than twice as much is blurred: what the official code takes."""
MIN_SCALE = 1e-2
"""Smaller predictions of the camera's scale are noise; they would put the hand beyond 100 m."""


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
