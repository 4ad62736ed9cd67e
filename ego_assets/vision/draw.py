"""Pictures for people: masks, hands, axes and words drawn on frames, and sheets of frames.

Here: drawing on RGB arrays with OpenCV, words with Pillow. Not here: which frames are shown, plots
(`plots`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ego_assets.operator import Intrinsics
from ego_assets.vision.cameras import project_points
from ego_assets.vision.rle import edges_of

FINGERS = tuple((0, *range(1 + 4 * f, 5 + 4 * f)) for f in range(5))
"""Joint indices of each finger, from the wrist, in MANO order."""

LEFT_COLOR = (86, 180, 233)
RIGHT_COLOR = (230, 159, 0)
PALETTE = ((0, 158, 115), (240, 228, 66), (204, 121, 167), (213, 94, 0), (0, 114, 178))
"""The rest of Okabe and Ito's colours, which colour-blind people can tell apart."""
SIDES = ((LEFT_COLOR, "left hand"), (RIGHT_COLOR, "right hand (as the wearer sees them)"))
"""Of a legend: the colours of hands."""
WHITE = (255, 255, 255)
DARK = 24
AXES = {"x": (230, 60, 60), "y": (60, 200, 60), "z": (70, 110, 255)}
TEXT_PX = 13
LINE_PX = TEXT_PX + 5

LegendEntry = tuple[Sequence[int] | None, str]
"""A colour and what it stands for; None: words alone."""


def color_of(key: str) -> tuple[int, int, int]:
    """A colour that stays the same for the same track."""
    return PALETTE[sum(key.encode()) % len(PALETTE)]


def side_color(side: str) -> tuple[int, int, int]:
    return LEFT_COLOR if side == "left" else RIGHT_COLOR


def short_track(track_id: str) -> str:
    """The part of a track's name that tells it from the others of its take."""
    return track_id.rpartition("-")[2]


def overlay_mask(image: np.ndarray, mask: np.ndarray, color: Sequence[int]) -> None:
    """Tint the pixels of `mask` (resized to the picture) in place and outline them."""
    height, width = image.shape[:2]
    small: np.ndarray = mask.astype(np.uint8)
    if mask.shape != (height, width):
        small = cv2.resize(small, (width, height), interpolation=cv2.INTER_AREA)
    edges = edges_of(small > 0)
    if edges is None:
        return
    left, top, right, bottom = edges
    part, inside = image[top:bottom, left:right], small[top:bottom, left:right]
    cv2.copyTo(cv2.LUT(part, _tints(tuple(color))), inside, part)
    outlines, _ = cv2.findContours(
        inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=(left, top)
    )
    cv2.drawContours(image, outlines, -1, tuple(color), 1, cv2.LINE_AA)


@lru_cache(maxsize=64)
def _tints(color: tuple[int, ...]) -> np.ndarray:
    """(256, 1, 3) what becomes of each value of a channel beneath a colour."""
    tinted = np.arange(256)[:, None] * 0.55 + np.array(color) * 0.45
    return tinted.astype(np.uint8)[:, None]


def draw_box(image: np.ndarray, box: np.ndarray, color: Sequence[int]) -> None:
    """Box x_min, y_min, x_max, y_max in pixels of this picture."""
    corners = np.clip(np.round(box), -1e4, 1e4).astype(int)
    cv2.rectangle(image, tuple(corners[:2]), tuple(corners[2:]), tuple(color), 1, cv2.LINE_AA)


def draw_hand(image: np.ndarray, joints_px: np.ndarray, color: Sequence[int]) -> None:
    """Skeleton of 21 joints (21, 2) in pixels of this picture."""
    points = np.clip(np.round(joints_px), -1e4, 1e4).astype(int)
    extent = np.ptp(points, axis=0).max()
    radius = 2 if extent > 100 else 1  # dots must not hide a small hand
    width = 2 if extent > 50 else 1
    for finger in FINGERS:
        line = [points[list(finger)]]
        cv2.polylines(image, line, False, (20, 20, 20), width + 2, cv2.LINE_AA)
        cv2.polylines(image, line, False, tuple(color), width, cv2.LINE_AA)
    for x, y in points.tolist():
        cv2.circle(image, (x, y), radius, (255, 255, 255), -1, cv2.LINE_AA)


def draw_axes(
    image: np.ndarray, camera: Intrinsics, camera_from_object: np.ndarray, length: float
) -> None:
    """Axes x red, y green, z blue of a (4, 4) pose through a camera of this picture; nothing if it
    lies behind the camera."""
    ends = np.concatenate([np.zeros((1, 3)), np.eye(3) * length])
    points = ends @ camera_from_object[:3, :3].T + camera_from_object[:3, 3]
    if (points[:, 2] <= 1e-6).any():
        return
    flat = np.clip(np.round(project_points(camera, points)), -1e4, 1e4).astype(int)
    for end, color in zip(flat[1:], AXES.values(), strict=True):
        cv2.arrowedLine(image, tuple(flat[0]), tuple(end), color, 2, cv2.LINE_AA, tipLength=0.2)


def draw_words(image: np.ndarray, words: str, line: int = 0) -> None:
    """One line of small text at the top left, on a dark ground; shortened to the width."""
    draw_label(image, words, 0, 2 + line * LINE_PX)


def draw_label(
    image: np.ndarray, words: str, left: float, top: float, color: Sequence[int] = WHITE
) -> None:
    """A line of small text on a dark ground, moved and shortened to lie within the picture."""
    from PIL import Image, ImageDraw

    height, width = image.shape[:2]
    text, length = _shortened(words, width - 6)
    room = math.ceil(length) + 6
    x = round(max(0, min(left, width - room)))
    y = round(max(0, min(top, height - LINE_PX)))
    ground = image[y : y + LINE_PX, x : x + room]
    if not text or not ground.size:
        return
    tile = Image.fromarray(ground // 4)
    light = tuple(int(0.6 * c + 0.4 * 255) for c in color)
    ImageDraw.Draw(tile).text((3, 1), text, light, font=_font())
    ground[:] = np.asarray(tile)


@cache
def _font() -> Any:
    """DejaVu Sans, which comes with matplotlib and knows most alphabets."""
    from PIL import ImageFont

    found = find_spec("matplotlib")
    assert found is not None
    assert found.origin is not None
    folder = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf"
    return ImageFont.truetype(str(folder / "DejaVuSans.ttf"), TEXT_PX)


@lru_cache(maxsize=4096)  # most labels are those of the frame before
def _shortened(words: str, width: float) -> tuple[str, float]:
    """A line that is no wider than `width` pixels, and how wide it is."""
    text = "".join(c if c.isprintable() else "?" for c in words)
    length = _font().getlength(text)
    if length <= width:
        return text, length
    while text and _font().getlength(f"{text}…") > width:
        text = text[:-1]
    shown = f"{text}…" if text else ""
    return shown, _font().getlength(shown)


def with_legend(image: np.ndarray, title: str, entries: Iterable[LegendEntry]) -> np.ndarray:
    """The picture, with a title above it, and below it what its colours stand for."""
    width = image.shape[1]
    above, below = _band(width, [(None, title)]), _band(width, entries)
    return np.concatenate([part for part in (above, image, below) if part.size])


def _band(width: int, entries: Iterable[LegendEntry]) -> np.ndarray:
    """A dark strip with words, and a patch of its colour before each that has one."""
    from PIL import Image, ImageDraw

    patch, gap = 20, 18
    lines: list[list[tuple[int, LegendEntry]]] = []
    x = width
    for color, words in _pieces(entries, width - patch - 12):
        room = math.ceil(_font().getlength(words)) + (patch if color else 0)
        if x + room > width:
            lines.append([])
            x = 6
        lines[-1].append((x, (color, words)))
        x += room + gap
    band = Image.new("RGB", (width, len(lines) * (LINE_PX + 2) + 4 * bool(lines)), (DARK,) * 3)
    pen = ImageDraw.Draw(band)
    for number, line in enumerate(lines):
        top = 3 + number * (LINE_PX + 2)
        for left, (color, words) in line:
            if color:
                pen.rectangle((left, top + 2, left + patch - 7, top + TEXT_PX), tuple(color))
            pen.text((left + (patch if color else 0), top), words, WHITE, font=_font())
    return np.asarray(band)


def _pieces(entries: Iterable[LegendEntry], width: float) -> Iterator[LegendEntry]:
    """The entries; what is too wide for a line is broken between its words."""
    for color, words in entries:
        line = ""
        for word in words.split():
            longer = f"{line} {word}".strip()
            if line and _font().getlength(longer) > width:
                yield color, line
                color, line = None, word
            else:
                line = longer
        if line:
            yield color, _shortened(line, width)[0]


def blank_tile(width: int = 400, height: int = 225) -> np.ndarray:
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
        row = np.full((height + 4, columns * (side_px + 4) - 4, 3), DARK, np.uint8)
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


def shrink_jpeg(data: bytes, max_bytes: int) -> bytes:
    """The picture in fewer bytes: of lower quality and, where that is not enough, smaller."""
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), 1)
    assert decoded is not None, "a picture that we encoded"
    image = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
    while len(data := encode_jpeg(image, max_bytes)) > max_bytes and min(image.shape[:2]) > 64:
        image = cv2.resize(image, None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA)
    return data
