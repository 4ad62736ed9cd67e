"""Finds faces in a picture with CenterFace.

Here: the network, and boxes out of it. Not here: what becomes of faces (`vision.faces`).

The network is that of Xu et al., "CenterFace: Joint Face Detection and Alignment Using Face as
Point" (2019): a heat map of the middles of faces at a quarter of the size, with the size of each.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ego_assets.models.choice import machine_choice
from ego_assets.models.packaged.declaration import FACES
from ego_assets.models.weights import WeightsError, find_files, sha256, weights_root

MAX_SIDE_PX = 1280
"""Longer side of what the network looks at: a larger picture is shrunk to it."""
SIZES = (1.0, 0.5)
"""It looks at a picture at these sizes: faces that are near are found better at the smaller one."""
MIN_SCORE = 0.2
"""A missed face costs more than a blurred cup."""
_SAME = 0.3
"""Intersection over union from which two boxes are of one face."""
_STRIDE, _MULTIPLE = 4, 32
_KEPT_NETS = 4
_OUTPUTS = ("537", "538", "539", "540")
"""Heat, sizes, offsets and landmarks, which OpenCV gives together or not at all."""


class CenterFace:
    """The network. Several threads may use it: one looks at a time."""

    max_side_px = MAX_SIDE_PX

    def __init__(self, file: Path) -> None:
        """Raises WeightsError unless the file is the declared one, and can be read."""
        self._sha256 = sha256(file)
        if self._sha256 != FACES.files[0].sha256:
            raise WeightsError(
                f"{file} is not the face finder that it should be, or damaged: run `ego weights "
                f"fetch {FACES.name}`"
            )
        self._file = file
        self._nets: dict[tuple[int, int], Any] = {}
        self._turn = threading.Lock()

    @classmethod
    def load(cls) -> CenterFace:
        """That of this machine's folder of weights. Raises WeightsMissingError, with what to do."""
        root = weights_root(machine_choice().weights_dir)
        (file,) = find_files(root, FACES.paths)
        return cls(file)

    def said(self) -> dict[str, Any]:
        """What its boxes depend on."""
        return {
            "finder": "centerface",
            "weights_sha256": self._sha256,
            "max_side_px": MAX_SIDE_PX,
            "sizes": list(SIZES),
            "min_score": MIN_SCORE,
        }

    def find(self, image: np.ndarray) -> np.ndarray:
        """Boxes of the faces in an upright (H, W, 3) uint8 RGB picture.

        Returns (N, 4) float64 x_min, y_min, x_max, y_max in its pixels. They may reach beyond its
        edges, and a face may have one for each of `SIZES`.
        """
        shrink = min(1.0, MAX_SIDE_PX / max(image.shape[:2]))
        return np.concatenate([self._find(image, shrink * size) for size in SIZES])

    def _find(self, image: np.ndarray, shrink: float) -> np.ndarray:
        height, width = image.shape[:2]
        size = _whole(width * shrink), _whole(height * shrink)
        if max(size) < max(width, height):
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        heat, sizes, offsets, _ = self._run(cv2.dnn.blobFromImage(image, 1.0, size), size)
        scale = np.array([width / size[0], height / size[1]])
        found: np.ndarray = _boxes(heat[0, 0], sizes[0], offsets[0]) * np.tile(scale, 2)
        return found

    def _run(self, blob: np.ndarray, size: tuple[int, int]) -> Any:
        with self._turn:
            if size not in self._nets:
                if len(self._nets) >= _KEPT_NETS:
                    self._nets.clear()
                # A network that was run at one size gives nonsense at another one in OpenCV's
                # older engine.
                try:
                    self._nets[size] = cv2.dnn.readNetFromONNX(str(self._file))
                except cv2.error as error:
                    raise WeightsError(f"{self._file} cannot be read: {error}") from error
            net = self._nets[size]
            net.setInput(blob)
            # What comes out belongs to the network, and is written over by the next call.
            return [each.copy() for each in net.forward(list(_OUTPUTS))]


def _whole(pixels: float) -> int:
    """A side that the network takes."""
    return max(1, int(np.ceil(round(pixels) / _MULTIPLE))) * _MULTIPLE


def _boxes(heat: np.ndarray, sizes: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(N, 4) boxes out of maps (h, w), (2, h, w) and (2, h, w), of which y comes first; the surest
    of those that overlap."""
    y, x = np.nonzero(heat >= MIN_SCORE)
    high, wide = np.exp(np.clip(sizes[:, y, x].astype(np.float64), -8, 8)) * _STRIDE
    middle_y, middle_x = (np.stack([y, x]) + offsets[:, y, x] + 0.5) * _STRIDE
    half_x, half_y = wide / 2, high / 2
    boxes = np.column_stack(
        [middle_x - half_x, middle_y - half_y, middle_x + half_x, middle_y + half_y]
    )
    boxes = boxes[np.argsort(-heat[y, x], kind="stable")]
    kept: list[np.ndarray] = []
    while len(boxes):
        kept.append(boxes[0])
        boxes = boxes[_overlaps(boxes[0], boxes) < _SAME]
    return np.array(kept, np.float64).reshape(-1, 4)


def _overlaps(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(N,) intersection over union of a box with others."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    shared = sides.clip(0).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    whole = (box[2:] - box[:2]).prod() + areas - shared
    found: np.ndarray = shared / whole
    return found
