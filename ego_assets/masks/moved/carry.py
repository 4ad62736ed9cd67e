"""What is kept of a clip to find its objects, and what the next clip of the take inherits of them.

Here: a clip at work size, its objects, the masks that are carried on, the numbers of the tracks
that go on. Not here: how anything is found (`objects`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import cv2
import numpy as np

from ego_assets.operator import Carried
from ego_assets.vision.patches import Patch, Shelf

CARRY_S = 2.5
CARRY_STEP = 5
PICTURE_BYTES, KEY_BYTES = 512 * 2**20, 128 * 2**20
"""Of the pictures of a clip at work size, and of the larger ones of its key frames, that are held
in memory; more than that lies in a temporary file."""


@dataclass
class ScannedClip:
    """One clip at work size, by frame index. keys: larger pictures of some frames."""

    images: Shelf = field(default_factory=lambda: Shelf(PICTURE_BYTES))
    keys: Shelf = field(default_factory=lambda: Shelf(KEY_BYTES))
    pts_s: dict[int, float] = field(default_factory=dict)
    shape: tuple[int, int] = (0, 0)

    @cached_property
    def frames(self) -> list[int]:
        """All frames, once they have been seen."""
        return sorted(self.pts_s)

    def grey(self, frame: int) -> np.ndarray:
        return cv2.cvtColor(self.images[frame], cv2.COLOR_RGB2GRAY)


@dataclass
class Thing:
    """An object of this clip: its visible masks, score and number; its outlines, as if nothing lay
    in front."""

    masks: dict[int, Patch]
    score: dict[int, float]
    number: int = -1
    outlines: dict[int, Patch] = field(default_factory=dict)


def carry(look: ScannedClip, objects: list[Thing], count: int) -> Carried:
    """Outlines of the last seconds, for the clip that shows some of these frames again.

    count: one more than the highest number of a track so far.
    """
    frames = look.frames
    end = look.pts_s[frames[-1]]
    kept = [f for f in frames if end - look.pts_s[f] <= CARRY_S and f % CARRY_STEP == 0]
    masks, owners = [], []
    for thing in objects:
        for frame in kept:
            if frame in thing.outlines:
                masks.append(thing.outlines[frame].whole())
                owners.append([thing.number, frame])
    shape = look.shape
    stack = np.stack(masks) if masks else np.zeros((0, *shape), bool)
    return {
        "objects": count,
        "mask_bits": np.packbits(stack.reshape(len(stack), shape[0] * shape[1]), axis=1),
        "mask_shape": np.array(shape, np.int32),
        "mask_owners": np.array(owners, np.int32).reshape(-1, 2),
    }


def _carried_masks(carried: Carried) -> dict[int, dict[int, Patch]]:
    """{track number: {frame: outline}} of the clip before."""
    if "mask_bits" not in carried:
        return {}
    shape = tuple(int(v) for v in carried["mask_shape"])
    found: dict[int, dict[int, Patch]] = {}
    for bits, (number, frame) in zip(
        carried["mask_bits"], carried["mask_owners"].tolist(), strict=True
    ):
        flat = np.unpackbits(bits)[: shape[0] * shape[1]]
        found.setdefault(number, {})[frame] = Patch.of(flat.reshape(shape).view(bool))
    return found


def carried_outlines(carried: Carried, look: ScannedClip) -> list[tuple[int, int, np.ndarray]]:
    """(number, frame, outline) of each object that the clip before was following."""
    found = []
    for number, masks in sorted(_carried_masks(carried).items()):
        shared = [f for f in masks if f in look.images and masks[f].shape == look.shape]
        if shared:
            frame = max(shared)
            found.append((number, frame, masks[frame].whole()))
    return found


def name_tracks(things: list[Thing], count: int) -> int:
    """Give each new object a number, from `count` on. Returns the next one that is free."""
    for thing in things:
        if thing.number < 0:
            thing.number = count
            count += 1
    return count
