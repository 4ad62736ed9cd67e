"""The camera's motion in the picture, and all motion.

Here: homographies between frames, and dense flow beside them. Not here: what the moving things are.
"""

from __future__ import annotations

import threading

import cv2
import numpy as np

_MAX_CORNERS = 400
_LEAST_SIDE = 40
"""Of pictures that OpenCV's DIS is given: in lower ones it reads beyond the picture and crashes."""


class MotionField:
    """All motion between two frames, and that of the camera alone.

    The camera's motion is a homography fitted robustly to tracked corners: exact for a rotating
    camera or a plane, and close for a short gap. What the homography leaves of a dense flow
    (DIS, Kroeger et al. 2016) is motion of its own, or parallax. Several threads may ask at a time.
    """

    def __init__(self) -> None:
        self._own = threading.local()

    @property
    def _flow(self) -> cv2.DISOpticalFlow:
        """This thread's: one that is shared would mix up what it keeps between its steps."""
        if not hasattr(self._own, "flow"):
            self._own.flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        flow: cv2.DISOpticalFlow = self._own.flow
        return flow

    def flows(
        self, earlier: np.ndarray, later: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(flow, background, change): (H, W, 2) float32 from each pixel of the later frame to the
        earlier one; the same as the camera's motion alone would have it; (H, W) grey values by
        which the picture differs from what the camera's motion alone predicts.

        earlier, later: (H, W) uint8 grey pictures. The change is small in the halo that smooth flow
        has around what moves.
        """
        homography = camera_homography(later, earlier)
        flow = self._dense(later, earlier)
        height, width = later.shape
        columns = np.arange(width, dtype=np.float32)
        rows = np.arange(height, dtype=np.float32)[:, None]
        h = homography.astype(np.float32)
        w = h[2, 0] * columns + h[2, 1] * rows
        w += h[2, 2]
        background = np.empty_like(flow)
        for axis, place in enumerate((columns, rows)):
            moved = h[axis, 0] * columns + h[axis, 1] * rows
            moved += h[axis, 2]
            moved /= w
            np.subtract(moved, place, out=background[..., axis])
        size = (width, height)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        predicted = cv2.warpPerspective(
            earlier, homography, size, flags=flags, borderMode=cv2.BORDER_REPLICATE
        )
        change = cv2.blur(cv2.absdiff(predicted, later).astype(np.float32), (3, 3))
        return flow, background, change

    def _dense(self, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """(H, W, 2) float32 flow from one picture to another."""
        height, width = source.shape
        down, right = max(0, _LEAST_SIDE - height), max(0, _LEAST_SIDE - width)
        one, other = (
            cv2.copyMakeBorder(p, 0, down, 0, right, cv2.BORDER_REPLICATE) if down or right else p
            for p in (source, target)
        )
        flow = self._flow.calc(one, other, np.zeros((*one.shape, 2), np.float32))
        return np.ascontiguousarray(flow[:height, :width])


def camera_homography(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(3, 3) source -> target of most of the picture; identity if too little can be tracked."""
    corners = cv2.goodFeaturesToTrack(source, _MAX_CORNERS, 0.005, 7)
    if corners is None or len(corners) < 12:
        return np.eye(3)
    moved, tracked, _ = cv2.calcOpticalFlowPyrLK(source, target, corners, None)  # type: ignore[call-overload]
    good = tracked.ravel() == 1
    if good.sum() < 12:
        return np.eye(3)
    cv2.setRNGSeed(0)
    found: np.ndarray | None = cv2.findHomography(corners[good], moved[good], cv2.USAC_MAGSAC, 1.0)[
        0
    ]
    return np.eye(3) if found is None or not np.isfinite(found).all() else found
