"""Objects without weights: what hands move, found while it moves and followed through the clip.

Here: what is kept of a clip's frames, and the order of the steps. Not here: the steps
(`object_masks`), what the next clip inherits (`carry`), rows (`rows`), hands.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

from ego_assets.masks.colors import bins_of, looked_up
from ego_assets.masks.moved import object_masks
from ego_assets.masks.moved.carry import ScannedClip, Thing, carried_outlines, carry, name_tracks
from ego_assets.masks.moved.object_masks import FollowedObject, Follower, Lazily, Motion, Seed
from ego_assets.masks.settings import SegmentSettings
from ego_assets.operator import Carried, Frame
from ego_assets.vision.egomotion import MotionField, moving_pixels
from ego_assets.vision.patches import BitFrames, Patch
from ego_assets.vision.threads import each, side_by_side

CHANGE_LEVEL = 7.0


class ObjectLook:
    """The frames of a clip at work size: it sees each of them, then finds what hands moved."""

    def __init__(self, settings: SegmentSettings) -> None:
        self.settings = settings
        self._look = ScannedClip()

    @property
    def pts_s(self) -> dict[int, float]:
        return self._look.pts_s

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) at work size."""
        return self._look.shape

    def see(self, frame: Frame) -> None:
        """Keep a frame, shrunk to work size."""
        height, width = frame.image.shape[:2]
        scale = min(1.0, self.settings.work_side_px / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        small = cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA)
        self._look.images[frame.index] = small
        self._look.pts_s[frame.index] = frame.pts_s
        self._look.shape = small.shape[:2]

    def find(
        self, hands: Mapping[int, list[Patch]], before: Carried, first: int
    ) -> tuple[list[Thing], list[Seed], Carried]:
        """Objects of the clip, where each was first seen to move, and what the next clip of the
        take gets of them.

        hands: masks by frame, at any size; first: the least number of a track of this clip.
        """
        look, settings = self._look, self.settings
        covered: dict[int, Patch] = {}
        for frame, masks in hands.items():
            for mask in masks:
                small = _shrunk(mask, look.shape)
                covered[frame] = covered[frame].joined(small) if frame in covered else small
        least = max(12, int(settings.min_area_share * look.shape[0] * look.shape[1]))
        with side_by_side():
            see_motion(look, settings.motion_gap_s)
            things, seeds = find_objects(look, covered, least, settings.max_objects, before)
        count = name_tracks(things, int(before.get("objects", first)))
        return things, seeds, carry(look, things, count)


def _shrunk(mask: Patch, shape: tuple[int, int]) -> Patch:
    """A mask at another size: the pixels that it covers at least half of."""
    if mask.shape == shape:
        return mask
    soft = cv2.resize(
        mask.whole().view("u1") * 255, (shape[1], shape[0]), interpolation=cv2.INTER_AREA
    )
    return Patch.of(soft >= 128)


def see_motion(look: ScannedClip, gap_s: float) -> None:
    """Enter what moves on its own in each frame of a clip, against the frame `gap_s` before."""
    frames = look.frames
    span = look.pts_s[frames[-1]] - look.pts_s[frames[0]]
    rate = (len(frames) - 1) / span if span > 0 else 30.0
    gap = int(np.clip(round(gap_s * rate), 1, max(1, len(frames) - 1)))
    field_of = MotionField(gap)
    motion = Motion(look.changed, look.evidence)

    def compare(place: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        other = place - gap if place >= gap else min(place + gap, len(frames) - 1)
        if other == place:
            still = np.zeros(look.shape, np.float32)
            return still, still > 0, still > 0
        earlier, later = (
            cv2.cvtColor(look.images[frames[p]], cv2.COLOR_RGB2GRAY) for p in (other, place)
        )
        residual, change = field_of.residual(earlier, later)
        moving = moving_pixels(residual, gap)
        return residual, moving, moving & (change > CHANGE_LEVEL)

    seen = each(compare, range(len(frames)))
    for frame, (residual, moving, changed) in zip(frames, seen, strict=True):
        look.moving[frame] = moving
        motion.keep(frame, residual, changed)


def find_objects(
    look: ScannedClip, hands: dict[int, Patch], min_area: int, max_objects: int, carried: Carried
) -> tuple[list[Thing], list[Seed]]:
    """What hands move in a clip, followed through it; and where it was first seen to move."""
    arms = BitFrames()
    parts = each(lambda f: object_masks.arm_parts(look.moving[f], hands.get(f)), look.frames)
    for frame, arm in zip(look.frames, parts, strict=True):
        arms[frame] = arm
    barred = Lazily(lambda f: arms[f] | hands[f].whole() if f in hands else arms[f])
    movers = object_masks.mover_colors(look.images, look.changed, look.moving, barred)
    likely = Lazily(lambda f: cv2.blur(looked_up(movers, bins_of(look.images[f])), (3, 3)))
    motion = Motion(look.changed, look.evidence)
    seeds = object_masks.find_seeds(look.changed, motion, likely, hands, arms, min_area)
    follower = Follower(look.images, hands)
    followed: list[tuple[FollowedObject, int]] = []
    for number, frame, outline in carried_outlines(carried, look):
        followed.append((follower.follow(frame, outline), number))
    for seed in seeds:
        if len(followed) >= max_objects:
            break
        if any(_overlaps(o.outlines.get(seed.frame), seed.mask) for o, _ in followed):
            continue
        never = barred[seed.frame] | (likely[seed.frame] < object_masks.UNLIKELY)
        rough = seed.mask.whole()
        mask = object_masks.cut_out(look.images[seed.frame], rough, never, rounds=4)
        if not min_area <= mask.sum() <= object_masks.MAX_AREA_SHARE * mask.size:
            continue
        drawn = Patch.of(mask)
        if any(_overlaps(o.outlines.get(seed.frame), drawn) for o, _ in followed):
            continue
        if float(likely[seed.frame][mask].mean()) < object_masks.SURELY:
            continue
        thing = follower.begin(seed.frame, mask)
        if not _is_carried_along(thing, look):
            continue
        free = object_masks.free_frame(thing, look.frames, hands)
        if free is not None:
            whole = object_masks.whole_object(
                look.images[free], thing.outlines[free].whole(), likely[free], barred[free]
            )
            drawn = Patch.of(whole)
            if any(_overlaps(o.outlines.get(free), drawn) for o, _ in followed):
                continue
            thing = follower.follow(free, whole)
        followed.append((thing, -1))
    return [_visible(o, number, hands) for o, number in followed], seeds


def _overlaps(outline: Patch | None, part: Patch) -> bool:
    if outline is None:
        return False
    window = part.window(0)
    covered = outline.grown(5, window) & part.pixels()
    return bool(covered.sum() > 0.35 * part.area or outline.iou(part) > 0.2)


def _is_carried_along(thing: FollowedObject, look: ScannedClip) -> bool:
    """Whether the outline keeps moving around its seed: a lasting thing and no flicker."""
    near = thing.near(12)
    moved = [
        float((look.moving[f][o.window(0)] & o.pixels()).sum() / max(1, o.area))
        for f, o in ((f, thing.outlines[f]) for f in near)
    ]
    return len(near) >= min(8, len(look.images)) and float(np.mean(moved)) > 0.3


def _visible(thing: FollowedObject, number: int, hands: dict[int, Patch]) -> Thing:
    masks, score = {}, {}
    for frame, outline in thing.outlines.items():
        mask = outline
        if frame in hands:
            window = outline.window(0)
            pixels = outline.pixels() & ~hands[frame].within(window)
            mask = Patch.of(pixels, (outline.left, outline.top), outline.shape)
        if mask.area >= 8:
            masks[frame] = mask
            score[frame] = float(np.clip(thing.trust[frame], 0.05, 1.0))
    return Thing(masks, score, number=number, outlines=thing.outlines)
