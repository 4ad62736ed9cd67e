"""Makes faces in pictures unrecognizable: as mosaics of a few blocks, steady over time.

Here: mosaics, and which boxes hold in which frame. Not here: finding faces (`models.faces`).
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np

from ego_assets.operator import Frame

VERSION = "1"
"""Raised when the same boxes would be blurred otherwise."""
BLOCKS = 4
"""Blocks along the longer side of a blurred region: three or so across the face itself."""
GROWN = 1.4
"""Sides of the blurred region over those of the face's box, which ends at the hairline and
before the ears."""
HOLD_FRAMES = 5
"""A face that is found in two frames or more stays blurred this many before and after."""


class FaceFinder(Protocol):
    """What finds faces. max_side_px: it looks at no larger pictures, and shrinks them itself."""

    max_side_px: int

    def find(self, image: np.ndarray) -> np.ndarray:
        """(N, 4) boxes x_min, y_min, x_max, y_max in an upright (H, W, 3) uint8 RGB picture."""
        ...

    def said(self) -> Mapping[str, Any]:
        """What its boxes depend on: its name, its weights, its settings."""
        ...


@dataclass(frozen=True)
class FaceBlur:
    """A derived view of frames in which faces cannot be recognized.

    The same frames give the same pictures. A light blur would not do: a Gaussian of a few pixels
    is undone by deconvolution, and networks that are trained on mosaics of known people recognize
    them in fine ones (McPherson et al., "Defeating Image Obfuscation with Deep Learning", 2016).
    Here a face keeps about nine colours, whatever its size. What clothes, places and voices tell
    of people is not hidden.
    """

    finder: FaceFinder

    def said(self) -> dict[str, Any]:
        """What the pictures depend on, for provenance and fingerprints."""
        mosaic = {"blocks": BLOCKS, "grown": GROWN, "hold_frames": HOLD_FRAMES, "version": VERSION}
        return {"shown": "blurred", **self.finder.said(), **mosaic}

    def frames(
        self, frames: Iterable[Frame], needed: Collection[int] | None = None
    ) -> Iterator[Frame]:
        """The frames, which rise, with faces blurred. needed: indices of those that are wanted;
        faces are looked for in these and close to them only.

        As many as `HOLD_FRAMES` + 1 pictures are in memory at a time.
        """
        for frame, boxes in self.with_boxes(frames, needed):
            yield dataclasses.replace(frame, image=pixelated(frame.image, boxes))

    def with_boxes(
        self, frames: Iterable[Frame], needed: Collection[int] | None = None
    ) -> Iterator[tuple[Frame, np.ndarray]]:
        """As `frames`, the pictures as they are and the (N, 4) boxes to blur beside them."""
        wanted = None if needed is None else set(needed)
        near = None if wanted is None else _around(wanted)
        waiting: deque[Frame] = deque()
        found: dict[int, np.ndarray] = {}

        def ready(newest: float) -> Iterator[tuple[Frame, np.ndarray]]:
            while waiting and waiting[0].index + HOLD_FRAMES <= newest:
                frame = waiting.popleft()
                if wanted is None or frame.index in wanted:
                    yield frame, boxes_at(found, frame.index)
                for index in [i for i in found if i < frame.index - HOLD_FRAMES]:
                    del found[index]

        for frame in frames:
            if near is None or frame.index in near:
                found[frame.index] = np.asarray(self.finder.find(frame.image)).reshape(-1, 4)
                waiting.append(frame)
                yield from ready(frame.index)
        yield from ready(math.inf)


def _around(indices: Iterable[int]) -> set[int]:
    return {i + d for i in indices for d in range(-HOLD_FRAMES, HOLD_FRAMES + 1)}


def boxes_at(found: Mapping[int, np.ndarray], index: int) -> np.ndarray:
    """(N, 4) boxes to blur in a frame, by the boxes (N, 4) that were found in the frames around it.

    A face that is found in two or more of these, and not in this one, is where it moves through
    between those before and behind, or stays where it was seen if they are on one side. What is
    seen in one frame only is most often no face, and is blurred there alone.
    """
    boxes = list(found.get(index, ()))
    ways = [
        [i for i in range(index + step, index + step * (HOLD_FRAMES + 1), step) if i in found]
        for step in (-1, 1)
    ]
    for here, there in (ways, ways[::-1]):
        nearer = list(boxes)  # a face that moves far is followed from frame to frame
        for near in here:
            new = [b for b in found[near] if not any(_is_same(b, other) for other in nearer)]
            nearer.extend(found[near])
            for box in new:
                match = _match(box, found, there)
                if match is not None:
                    far, other = match
                    box = box + (other - box) * (index - near) / (far - near)
                elif _match(box, found, (i for i in here if i != near)) is None:
                    continue
                boxes.append(box)
    return np.array(boxes, np.float64).reshape(-1, 4)


def _match(
    box: np.ndarray, found: Mapping[int, np.ndarray], frames: Iterable[int]
) -> tuple[int, np.ndarray] | None:
    """The first of the frames that has the face of a box, and its box there."""
    boxes = ((frame, other) for frame in frames for other in found[frame])
    return next(((frame, other) for frame, other in boxes if _is_same(box, other)), None)


def _is_same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two boxes are of one face: the middle of one is in the other."""
    apart = np.abs((one[:2] + one[2:]) - (other[:2] + other[2:])) / 2
    return bool((apart <= np.maximum(one[2:] - one[:2], other[2:] - other[:2]) / 2).all())


def covered(boxes: np.ndarray, width: int, height: int) -> np.ndarray:
    """(height, width) bool: the pixels that a mosaic hides."""
    hidden = np.zeros((height, width), bool)
    for rows, columns, _ in _regions(boxes, width, height):
        hidden[rows, columns] = True
    return hidden


def pixelated(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The (H, W, 3) picture with a mosaic over each of the (N, 4) boxes, grown; the picture itself
    if there is none. All pixels of a block are its mean, and no more is left of it."""
    if not len(boxes):
        return image
    shown = image.copy()
    for rows, columns, blocks in _regions(boxes, image.shape[1], image.shape[0]):
        region = shown[rows, columns]
        small = cv2.resize(region, blocks, interpolation=cv2.INTER_AREA)
        size = region.shape[1], region.shape[0]
        region[:] = cv2.resize(small, size, interpolation=cv2.INTER_NEAREST)
    return shown


def _regions(
    boxes: np.ndarray, width: int, height: int
) -> Iterator[tuple[slice, slice, tuple[int, int]]]:
    """Rows and columns of each box, grown, within a picture, and its blocks across and down."""
    for box in np.asarray(boxes, np.float64):
        middle, sides = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) * GROWN
        low = np.floor((middle - sides / 2).clip(0, (width, height))).astype(int)
        high = np.ceil((middle + sides / 2).clip(0, (width, height))).astype(int)
        if (high > low).all():
            # By the whole face: what is left of one at the edge has no smaller blocks.
            across, down = ((high - low) * BLOCKS / sides.max()).round().clip(1).astype(int)
            yield slice(low[1], high[1]), slice(low[0], high[0]), (int(across), int(down))
