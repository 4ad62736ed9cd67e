"""What the baseline segmenter knows of a clip, and what the next clip of the take inherits of it.

Here: a clip at work size, its hands and objects, the masks that are carried on, the numbers of the
tracks that go on. Not here: how anything is found (`segment`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ego_assets.masks.baseline.skin import SkinModel
from ego_assets.operator import Carried
from ego_assets.vision.patches import BitFrames, Patch, Shelf

CARRY_S = 2.5
CARRY_STEP = 5
PICTURE_BYTES, EVIDENCE_BYTES = 512 * 2**20, 128 * 2**20
"""Of a clip at work size that are held in memory; more than that lies in a temporary file."""


@dataclass
class ScannedClip:
    """One clip at work size, by frame index."""

    images: Shelf = field(default_factory=lambda: Shelf(PICTURE_BYTES))
    evidence: Shelf = field(default_factory=lambda: Shelf(EVIDENCE_BYTES))
    pts_s: dict[int, float] = field(default_factory=dict)
    moving: BitFrames = field(default_factory=BitFrames)
    changed: BitFrames = field(default_factory=BitFrames)
    shape: tuple[int, int] = (0, 0)

    @property
    def frames(self) -> list[int]:
        return sorted(self.pts_s)


@dataclass
class Thing:
    """A hand or object of this clip: its visible masks, score and name."""

    kind: str
    masks: dict[int, Patch]
    score: dict[int, float]
    side: str | None = None
    is_wearer: bool = False
    number: int = -1
    outlines: dict[int, Patch] = field(default_factory=dict)


def carry(
    look: ScannedClip,
    hands: list[Thing],
    objects: list[Thing],
    counts: dict[str, int],
    model: SkinModel,
) -> Carried:
    """Masks of the last seconds, for the clip that shows some of these frames again."""
    frames = look.frames
    end = look.pts_s[frames[-1]]
    kept = [f for f in frames if end - look.pts_s[f] <= CARRY_S and f % CARRY_STEP == 0]
    masks, owners = [], []
    for thing in [*hands, *objects]:
        shown = thing.masks if thing.kind == "h" else thing.outlines
        for frame in kept:
            if frame in shown:
                masks.append(shown[frame].whole())
                owners.append([0 if thing.kind == "h" else 1, thing.number, frame])
    shape = look.shape
    stack = np.stack(masks) if masks else np.zeros((0, *shape), bool)
    return {
        "hands": counts["h"],
        "objects": counts["o"],
        "skin_hand": model.hand,
        "skin_rest": model.rest,
        "mask_bits": np.packbits(stack.reshape(len(stack), shape[0] * shape[1]), axis=1),
        "mask_shape": np.array(shape, np.int32),
        "mask_owners": np.array(owners, np.int32).reshape(-1, 3),
    }


def _carried_masks(carried: Carried, kind: int) -> dict[int, dict[int, Patch]]:
    """{track number: {frame: mask}} of the clip before."""
    if "mask_bits" not in carried:
        return {}
    shape = tuple(int(v) for v in carried["mask_shape"])
    found: dict[int, dict[int, Patch]] = {}
    for bits, (owner, number, frame) in zip(
        carried["mask_bits"], carried["mask_owners"].tolist(), strict=True
    ):
        if owner == kind:
            flat = np.unpackbits(bits)[: shape[0] * shape[1]]
            found.setdefault(number, {})[frame] = Patch.of(flat.reshape(shape).view(bool))
    return found


def carried_outlines(carried: Carried, look: ScannedClip) -> list[tuple[int, int, np.ndarray]]:
    """(number, frame, outline) of each object that the clip before was following."""
    found = []
    for number, masks in sorted(_carried_masks(carried, 1).items()):
        shared = [f for f in masks if f in look.images and masks[f].shape == look.shape]
        if shared:
            frame = max(shared)
            found.append((number, frame, masks[frame].whole()))
    return found


def name_tracks(things: list[Thing], carried: Carried, counts: dict[str, int]) -> None:
    """Give each thing the number of the track it continues, or a new one."""
    from scipy.optimize import linear_sum_assignment

    unnamed = [t for t in things if t.number < 0]
    known = _carried_masks(carried, 0) if unnamed and unnamed[0].kind == "h" else {}
    numbers = sorted(known)
    if known and unnamed:
        score = np.zeros((len(unnamed), len(numbers)))
        for row, thing in enumerate(unnamed):
            for column, number in enumerate(numbers):
                shared = set(thing.masks) & set(known[number])
                ious = [thing.masks[f].iou(known[number][f]) for f in shared]
                score[row, column] = float(np.mean(ious)) if ious else 0.0
        for row, column in zip(*linear_sum_assignment(-score), strict=True):
            if score[row, column] > 0.2:
                unnamed[row].number = numbers[column]
    for thing in things:
        if thing.number < 0:
            thing.number = counts[thing.kind]
            counts[thing.kind] += 1
