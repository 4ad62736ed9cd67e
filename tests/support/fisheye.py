"""A chessboard through a lens, rendered from a formula of its own, and how straight it is."""

from __future__ import annotations

import cv2
import numpy as np

from ego_assets.operator import Intrinsics

SIZE = (640, 480)
EQUIDISTANT = Intrinsics(
    "OPENCV_FISHEYE", 330.0, 330.0, 322.0, 236.0, (0.0,) * 4, "calibration_file"
)
"""An ideal fisheye: the angle off the axis is the distance from the middle over f."""
ROWS, COLUMNS = 7, 10


def chessboard(lens: Intrinsics = EQUIDISTANT, size: tuple[int, int] = SIZE) -> np.ndarray:
    """(H, W, 3) uint8: a board before the camera, in the plane z = 1, nine samples a pixel."""
    assert lens.model == "OPENCV_FISHEYE" and not any(lens.distortion)
    grid = (np.arange(3 * max(size)) - 1) / 3
    x, y = np.meshgrid(grid[: 3 * size[0]], grid[: 3 * size[1]])
    x, y = (x - lens.cx) / lens.fx, (y - lens.cy) / lens.fy
    angle = np.hypot(x, y)
    far = np.tan(np.minimum(angle, 1.5)) / np.maximum(angle, 1e-9)
    x, y = x * far, y * far
    square = 0.17
    column, row = np.floor(x / square + COLUMNS / 2), np.floor(y / square + ROWS / 2)
    dark = ((column + row) % 2 == 0) & (column >= 0) & (column < COLUMNS)
    dark &= (row >= 0) & (row < ROWS)
    whole = np.where(dark, 20.0, 230.0).astype(np.float32)
    small = cv2.resize(whole, size, interpolation=cv2.INTER_AREA)
    return np.repeat(small.round().astype(np.uint8)[..., None], 3, axis=2)


def bend_px(picture: np.ndarray) -> float:
    """RMS distance of the board's inner corners from straight lines through rows and columns."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    pattern = (COLUMNS - 1, ROWS - 1)
    found, corners = cv2.findChessboardCornersSB(grey, pattern, flags=cv2.CALIB_CB_ACCURACY)
    assert found, "no chessboard is seen"
    board = corners.reshape(ROWS - 1, COLUMNS - 1, 2).astype(np.float64)
    lines = [*board, *board.transpose(1, 0, 2)]
    off = []
    for line in lines:
        _, _, axes = np.linalg.svd(line - line.mean(axis=0))
        off.append((line - line.mean(axis=0)) @ axes[1])
    return float(np.sqrt(np.mean(np.concatenate(off) ** 2)))


def through_equidistant(picture: np.ndarray, pinhole: Intrinsics, lens: Intrinsics) -> np.ndarray:
    """What an ideal fisheye sees of the picture of a pinhole camera, at the same size."""
    assert lens.model == "OPENCV_FISHEYE" and not any(lens.distortion)
    x, y = np.meshgrid(np.arange(picture.shape[1]), np.arange(picture.shape[0]))
    x, y = (x - lens.cx) / lens.fx, (y - lens.cy) / lens.fy
    angle = np.hypot(x, y)
    far = np.tan(angle) / np.maximum(angle, 1e-9)
    across = (x * far * pinhole.fx + pinhole.cx).astype(np.float32)
    down = (y * far * pinhole.fy + pinhole.cy).astype(np.float32)
    return cv2.remap(picture, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
