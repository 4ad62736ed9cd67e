"""Pictures for people: masks, hands, axes and words drawn on frames, and sheets of frames.

Here: drawing on RGB arrays with OpenCV. Not here: which frames are shown, plots (`plots`).
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

FINGERS = tuple((0, *range(1 + 4 * f, 5 + 4 * f)) for f in range(5))
"""Joint indices of each finger, from the wrist, in MANO order."""

PALETTE = (
    (86, 180, 233),
    (230, 159, 0),
    (0, 158, 115),
    (240, 228, 66),
    (204, 121, 167),
    (213, 94, 0),
    (0, 114, 178),
)
"""Okabe and Ito's colours, which colour-blind people can tell apart."""
LEFT_COLOR = (86, 180, 233)
RIGHT_COLOR = (230, 159, 0)


def color_of(key: str) -> tuple[int, int, int]:
    """A colour that stays the same for the same track."""
    return PALETTE[sum(key.encode()) % len(PALETTE)]


def side_color(side: str) -> tuple[int, int, int]:
    return LEFT_COLOR if side == "left" else RIGHT_COLOR


def overlay_mask(image: np.ndarray, mask: np.ndarray, color: Sequence[int]) -> None:
    """Tint the pixels of `mask` (resized to the picture) in place and outline them."""
    height, width = image.shape[:2]
    small = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_AREA)
    inside = small > 0
    tinted = image[inside] * 0.55 + np.array(color) * 0.45
    image[inside] = tinted.astype(np.uint8)
    outlines, _ = cv2.findContours(small, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(image, outlines, -1, tuple(color), 1, cv2.LINE_AA)


def draw_box(image: np.ndarray, box: np.ndarray, color: Sequence[int]) -> None:
    """Box x_min, y_min, x_max, y_max in pixels of this picture."""
    corners = np.clip(np.round(box), -1e4, 1e4).astype(int)
    cv2.rectangle(image, tuple(corners[:2]), tuple(corners[2:]), tuple(color), 1, cv2.LINE_AA)


def draw_hand(image: np.ndarray, joints_px: np.ndarray, color: Sequence[int]) -> None:
    """Skeleton of 21 joints (21, 2) in pixels of this picture."""
    points = np.clip(np.round(joints_px), -1e4, 1e4).astype(int)
    radius = 2 if np.ptp(points, axis=0).max() > 80 else 1  # dots must not hide a small hand
    for finger in FINGERS:
        cv2.polylines(image, [points[list(finger)]], False, (20, 20, 20), radius + 1, cv2.LINE_AA)
        cv2.polylines(image, [points[list(finger)]], False, tuple(color), 1, cv2.LINE_AA)
    for x, y in points.tolist():
        cv2.circle(image, (x, y), radius, (255, 255, 255), -1, cv2.LINE_AA)


def draw_axes(
    image: np.ndarray, camera_matrix: np.ndarray, camera_from_object: np.ndarray, length: float
) -> None:
    """Axes x red, y green, z blue of a (4, 4) pose; nothing if it lies behind the camera."""
    ends = np.concatenate([np.zeros((1, 3)), np.eye(3) * length])
    points = ends @ camera_from_object[:3, :3].T + camera_from_object[:3, 3]
    if (points[:, 2] <= 1e-6).any():
        return
    pixels = points @ camera_matrix.T
    flat = np.clip(np.round(pixels[:, :2] / pixels[:, 2:]), -1e4, 1e4).astype(int)
    for end, color in zip(flat[1:], ((230, 60, 60), (60, 200, 60), (70, 110, 255)), strict=True):
        cv2.arrowedLine(image, tuple(flat[0]), tuple(end), color, 2, cv2.LINE_AA, tipLength=0.2)


def draw_words(image: np.ndarray, words: str, line: int = 0) -> None:
    """One line of small text at the top left, on a dark ground; shortened to the width."""
    scale, thickness = 0.4, 1
    plain = words.encode("ascii", "replace").decode()
    room = max(image.shape[1] // 7, 8)
    plain = plain if len(plain) <= room else plain[: room - 2] + ".."
    (width, height), base = cv2.getTextSize(plain, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    top = 2 + line * (height + base + 3)
    ground = image[top : top + height + base + 2, : width + 6]
    ground[:] = ground // 4
    origin = (3, top + height + 1)
    white = (255, 255, 255)
    cv2.putText(
        image, plain, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, white, thickness, cv2.LINE_AA
    )


def blank_tile(width: int = 320, height: int = 180) -> np.ndarray:
    """A dark tile to write on where there is no picture."""
    return np.full((height, width, 3), 40, np.uint8)


def contact_sheet(tiles: Sequence[np.ndarray], columns: int = 3, side_px: int = 320) -> np.ndarray:
    """(H, W, 3) uint8 sheet of pictures, each fitted into a cell of at most side_px a side.

    Raises ValueError without a picture.
    """
    if not tiles:
        raise ValueError("a contact sheet needs a picture")
    columns = min(columns, len(tiles))
    rows = []
    for first in range(0, len(tiles), columns):
        fitted = [_fit(tile, side_px) for tile in tiles[first : first + columns]]
        height = max(tile.shape[0] for tile in fitted)  # each row as high as its highest tile
        row = np.full((height + 4, columns * (side_px + 4) - 4, 3), 24, np.uint8)
        for column, tile in enumerate(fitted):
            top = (height - tile.shape[0]) // 2
            left = column * (side_px + 4) + (side_px - tile.shape[1]) // 2
            row[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
        rows.append(row)
    return np.concatenate(rows)[:-4]


def _fit(tile: np.ndarray, side_px: int) -> np.ndarray:
    scale = side_px / max(tile.shape[:2])
    size = max(1, round(tile.shape[1] * scale)), max(1, round(tile.shape[0] * scale))
    return cv2.resize(tile, size, interpolation=cv2.INTER_AREA)


def encode_jpeg(image: np.ndarray, max_bytes: int = 150_000) -> bytes:
    """JPEG of an RGB picture, as good as fits into `max_bytes` (but never below quality 30)."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    data = b""
    for quality in (85, 70, 55, 40, 30):
        data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        if len(data) <= max_bytes:
            break
    return data
