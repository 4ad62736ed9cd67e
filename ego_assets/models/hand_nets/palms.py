"""Finds palms in a picture: where a hand may be, how large and turned which way.

Here: the palm detector, its anchors, and squares of a picture that it looks at. Not here: whether
it is a hand at all (`landmarks` says).

The detector is the one of Bazarevsky et al., "BlazePalm" (2019), and Zhang et al., "MediaPipe
Hands" (2020): a single-shot detector whose anchors differ in place only. It finds upright palms
best, so a square can be looked at turned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ego_assets.models.hand_nets.runtime import Runtime, load_net

SIDE = 192
FILE = "palm_detection_full.tflite"
_STRIDES = (8, 16, 16, 16)
_BOXES, _LOGITS = "Identity", "Identity_1"
_WRIST, _MIDDLE = 0, 2
"""Of the seven keypoints: the wrist, and the base of the middle finger."""
_GROWTH, _AHEAD = 2.6, 0.5
"""The size of a hand's region over that of its palm's box, and how far ahead its middle lies."""


@dataclass(frozen=True)
class Region:
    """A square of a picture: where a hand is looked for.

    x, y: its centre, pixels; side: pixels; angle: radians, clockwise in the picture, by which it is
    turned: at 0 the fingers of a hand in it point up.
    """

    x: float
    y: float
    side: float
    angle: float = 0.0

    def to_picture(self, size: int) -> np.ndarray:
        """(2, 3) affine map from pixels of a crop of `size` pixels a side to the picture."""
        cosine, sine = np.cos(self.angle), np.sin(self.angle)
        turn = np.array([[cosine, -sine], [sine, cosine]]) * (self.side / size)
        # Pixel centres lie at integers.
        middle = np.array([self.x, self.y]) - turn @ np.full(2, (size - 1) / 2)
        return np.column_stack([turn, middle])

    def crop(self, image: np.ndarray, size: int) -> np.ndarray:
        """(size, size, 3) float32 0..1 of the region; black beyond the picture's edge."""
        shrink = self.side / size
        if shrink > 2:
            # Every source pixel counts, or else small hands flicker.
            step = 1.0 / int(shrink)
            image = cv2.resize(image, None, fx=step, fy=step, interpolation=cv2.INTER_AREA)
            small = Region(
                (self.x + 0.5) * step - 0.5,
                (self.y + 0.5) * step - 0.5,
                self.side * step,
                self.angle,
            )
            return small.crop(image, size)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        found = cv2.warpAffine(image, self.to_picture(size), (size, size), flags=flags)
        return found.astype(np.float32) * np.float32(1 / 255)


@dataclass(frozen=True)
class Palm:
    """A palm in a picture: the region of its hand, and how sure the detector is."""

    region: Region
    score: float


def anchors() -> np.ndarray:
    """(2016, 2) centres of the anchors, 0..1 of the side, in the order of the outputs."""
    found, layer = [], 0
    while layer < len(_STRIDES):
        stride = _STRIDES[layer]
        alike = sum(s == stride for s in _STRIDES)
        cells = SIDE // stride
        places = (np.arange(cells) + 0.5) / cells
        x, y = np.meshgrid(places, places)
        # Two of each layer, and layers of one stride lie together.
        found.append(np.repeat(np.column_stack([x.ravel(), y.ravel()]), 2 * alike, axis=0))
        layer += alike
    return np.concatenate(found)


_ANCHORS = anchors()


class PalmDetector:
    """The palm net."""

    def __init__(self, folder: Path, runtime: Runtime | None = None) -> None:
        self._net = load_net(folder / FILE, (_BOXES, _LOGITS), runtime)

    def find(self, image: np.ndarray, window: Region, min_score: float) -> list[Palm]:
        """Palms in a square of a picture, (H, W, 3) uint8 RGB; several of one palm are one."""
        found = self._net.run(window.crop(image, SIDE))
        logits = np.clip(found[_LOGITS][:, 0].astype(np.float64), -60, 60)
        scores = 1 / (1 + np.exp(-logits))
        likely = np.flatnonzero(scores >= min_score)
        if not len(likely):
            return []
        values = found[_BOXES][likely].astype(np.float64)
        values[:, :2] += _ANCHORS[likely] * SIDE
        values[:, 4:] += np.tile(_ANCHORS[likely] * SIDE, 7)
        return [
            Palm(_hand_region(mean, window), score)
            for mean, score in _merged(values, scores[likely])
        ]


def _merged(values: np.ndarray, scores: np.ndarray) -> list[tuple[np.ndarray, float]]:
    """Means, by score, of detections that overlap: they flicker less than the best alone."""
    found = []
    half = values[:, 2:4] / 2
    boxes = np.column_stack([values[:, :2] - half, values[:, :2] + half])
    left = np.argsort(-scores, kind="stable")
    while len(left):
        same = _overlaps(boxes[left[0]], boxes[left]) > 0.3
        same[0] = True
        members = left[same]
        weights = scores[members] / scores[members].sum()
        found.append((weights @ values[members], float(scores[members[0]])))
        left = left[~same]
    return found


def _overlaps(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    both = np.clip(high - low, 0, None).prod(axis=1)
    areas = (box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    overlaps: np.ndarray = both / np.maximum(areas - both, 1e-9)
    return overlaps


def _hand_region(value: np.ndarray, window: Region) -> Region:
    """The region of a hand by its palm: value: (18,) box and keypoints, pixels of the crop."""
    points = value[4:].reshape(7, 2)
    ahead = points[_MIDDLE] - points[_WRIST]
    angle = float(np.arctan2(ahead[0], -ahead[1]))
    side = float(max(value[2:4]))
    middle = value[:2] + _AHEAD * side * np.array([np.sin(angle), -np.cos(angle)])
    to_picture = window.to_picture(SIDE)
    x, y = to_picture[:, :2] @ (middle - 0.5) + to_picture[:, 2]
    return Region(
        float(x), float(y), _GROWTH * side * window.side / SIDE, wrapped(angle + window.angle)
    )


def wrapped(angle: float) -> float:
    """An angle in radians, -π to π."""
    return float((angle + np.pi) % (2 * np.pi) - np.pi)


def windows(
    width: int, height: int, sides: Sequence[float], turns: Sequence[float]
) -> list[Region]:
    """Squares that cover a picture, for each side (a share of the longer one) and turn (radians).

    Neighbours overlap by at least a third: a hand on the edge of one lies well inside another.
    """
    longer, shorter = max(width, height), min(width, height)
    found = []
    for share in sides:
        side = share * longer
        if side >= shorter and share >= 1:
            places = [(width / 2, height / 2)]
        else:
            side = min(side, shorter)
            x, y = (_spread(length, side) for length in (width, height))
            places = [(float(a), float(b)) for b in y for a in x]
        found += [Region(a - 0.5, b - 0.5, side, turn) for turn in turns for a, b in places]
    return found


def _spread(length: float, side: float) -> np.ndarray:
    """Centres of squares along one side of a picture."""
    count = 1 if side >= length else int(np.ceil((length - side) / (side * 2 / 3))) + 1
    return np.linspace(side / 2, length - side / 2, count) if count > 1 else np.array([length / 2])
