"""The segmenter that needs no weights: hands by colour and motion, objects by what hands move.

Here: the order of the steps, and the rows of detections. The steps are in `egomotion`, `skin`,
`hand_masks`, `object_masks` and `tracking`; rows of masks are in `rows`; what the next clip of the
take inherits is in `segment_carry`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from ego_assets.masks.baseline import hand_masks, object_masks
from ego_assets.masks.baseline.carry import ScannedClip, Thing, carried_outlines, carry, name_tracks
from ego_assets.masks.baseline.object_masks import FollowedObject, Follower, Lazily, Motion, Seed
from ego_assets.masks.baseline.rows import mask_rows
from ego_assets.masks.baseline.skin import SkinModel, bins_of, looked_up
from ego_assets.masks.baseline.tracking import MaskTrack, MaskTracker
from ego_assets.masks.settings import SegmentSettings
from ego_assets.operator import Carried, ClipInput, ClipOutput
from ego_assets.vision.egomotion import MotionField, moving_pixels
from ego_assets.vision.patches import BitFrames, Patch
from ego_assets.vision.threads import each, side_by_side

CHANGE_LEVEL = 7.0
Box = Sequence[float]


class BaselineSegmenter:
    """`detections`, `object_masks` and `hand_masks` from one look at the frames of a clip.

    Frames are worked on side by side, by as many threads as the process may use. One after the
    other go only the joining of hands to tracks, and each object's way through the clip.
    """

    name = "baseline"
    version = "3"
    quality_tier = "baseline"
    weights_hash = ""

    def __init__(self, settings: SegmentSettings) -> None:
        self.settings = settings

    def process(self, clip: ClipInput, carried: Carried | None) -> ClipOutput:
        """A clip in which nothing is found gives no rows."""
        with side_by_side():
            return self._process(clip, carried or {})

    def _process(self, clip: ClipInput, carried: Carried) -> ClipOutput:
        look = self._look(clip)
        min_area = max(12, int(self.settings.min_area_share * look.shape[0] * look.shape[1]))
        hands, candidates = self._hands(look, min_area, carried)
        covered = _union(hands)
        objects, seeds = find_objects(look, covered, min_area, self.settings.max_objects, carried)
        first = clip.first_track_number
        counts = {"h": int(carried.get("hands", first)), "o": int(carried.get("objects", first))}
        for things in (hands, objects):
            name_tracks(things, carried, counts)
        state = carry(look, hands, objects, counts, self.model)
        things = [*hands, *objects]
        rows = mask_rows(clip, things, look.pts_s, self.name, self.quality_tier)
        rows["detections"] = self._detections(clip, look, candidates, seeds)
        notes = {"hand tracks": len(hands), "object tracks": len(objects)}
        return ClipOutput(rows, carried=state, notes=notes)

    # -- the steps -----------------------------------------------------------------------------

    def _look(self, clip: ClipInput) -> ScannedClip:
        look = ScannedClip()
        for shown in clip.frames.read(max_side_px=self.settings.work_side_px):
            look.images[shown.index] = shown.image
            look.pts_s[shown.index] = shown.pts_s
        look.shape = look.images[look.frames[0]].shape[:2]
        see_motion(look, self.settings.motion_gap_s)
        return look

    def _hands(
        self, look: ScannedClip, min_area: int, carried: Carried
    ) -> tuple[list[Thing], dict[int, list[tuple[Box, float]]]]:
        frames = look.frames
        self.model = SkinModel(carried.get("skin_hand"), carried.get("skin_rest"))
        level = hand_masks.learn_skin(
            look.images, look.changed, self.model, min_area, look.evidence
        )
        table = self.model.table()

        def candidates(frame: int) -> list[tuple[Patch, float]]:
            probability = self.model.probability(bins_of(look.images[frame]), table)
            return hand_masks.hand_candidates(probability, level, min_area)

        found: dict[int, list[Patch]] = {}
        colors: dict[int, float] = {}
        scored: dict[int, list[tuple[Box, float]]] = {}
        for frame, some in zip(frames, each(candidates, frames), strict=True):
            found[frame] = [mask for mask, _ in some]
            scored[frame] = [(mask.box, score) for mask, score in some]
            colors[frame] = float(np.mean([s for _, s in some])) if some else 0.0
        tracker = hand_masks.track_hands(found, max_gap=max(3, len(frames) // 20))
        tracks, scores = self._confirmed(tracker, look, colors)
        own = [t for t in tracks if hand_masks.is_wearers(t)]
        others = [t for t in tracks if not hand_masks.is_wearers(t)]
        things = []
        for is_wearer, group in ((True, own), (False, others)):
            kept = hand_masks.leave_two(group, scores)
            sides = hand_masks.sides_of(kept)
            for track in kept:
                score = float(np.clip(scores[track.key], 0.05, 1.0))
                by_frame = dict.fromkeys(track.masks, score)
                side = sides[track.key]
                things.append(Thing("h", track.masks, by_frame, side=side, is_wearer=is_wearer))
        return things, scored

    def _confirmed(
        self, tracker: MaskTracker, look: ScannedClip, colors: dict[int, float]
    ) -> tuple[list[MaskTrack], dict[int, float]]:
        """The tracks that are hands, and {key: score}."""
        frames = len(look.images)
        scores = {
            t.key: hand_masks.evidence_of(t, look.moving, colors, frames).score
            for t in tracker.tracks
            if len(t.masks) >= min(5, frames)
        }
        chosen = [t for t in tracker.tracks if scores.get(t.key, 0) >= self.settings.min_hand_score]
        return chosen, scores

    # -- rows ----------------------------------------------------------------------------------

    def _detections(
        self,
        clip: ClipInput,
        look: ScannedClip,
        candidates: dict[int, list[tuple[Box, float]]],
        seeds: list[Seed],
    ) -> list[dict[str, Any]]:
        scale = clip.frames.width / look.shape[1]
        by_frame: dict[int, list[tuple[str, Box, float]]] = {}
        for frame, found in candidates.items():
            by_frame[frame] = [("hand", box, score) for box, score in found]
        for seed in seeds:
            share = min(1.0, seed.strength / (4.0 * max(1.0, float(seed.mask.area))))
            by_frame[seed.frame].append(("object", seed.mask.box, share))
        rows = []
        for frame in sorted(by_frame):
            for index, (label, box, score) in enumerate(by_frame[frame]):
                rows.append(
                    clip.row(frame, look.pts_s[frame])
                    | {
                        "detection_index": index,
                        "label": label,
                        "side": None,
                        "score": float(np.clip(score, 0, 1)),
                        "box": [v * scale for v in box],
                        "backend": self.name,
                        "quality_tier": self.quality_tier,
                    }
                )
        return rows


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


def _union(things: list[Thing]) -> dict[int, Patch]:
    found: dict[int, Patch] = {}
    for thing in things:
        for frame, mask in thing.masks.items():
            found[frame] = found[frame].joined(mask) if frame in found else mask
    return found


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
    return Thing("o", masks, score, number=number, outlines=thing.outlines)
