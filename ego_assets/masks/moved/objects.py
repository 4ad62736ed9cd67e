"""Objects without weights: what hands hold and touch, followed through the clip.

Here: what is kept of a clip's frames, and the order of the steps. Not here: the steps (`contact`,
`holds`, `follow`), what the next clip inherits (`carry`), rows (`rows`), hands.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from ego_assets.masks.moved.carry import ScannedClip, Thing, carried_outlines, carry, name_tracks
from ego_assets.masks.moved.follow import FollowedObject, Follower
from ego_assets.masks.moved.holds import HandPath, Hold, covered_by, find_holds
from ego_assets.masks.settings import SegmentSettings
from ego_assets.operator import Carried, Frame
from ego_assets.vision.patches import Patch
from ego_assets.vision.threads import side_by_side

KEY_S = 0.2
"""Between frames in which objects are looked for, and drawn again."""
KEY_SIDE_PX = 960
"""Longer side of the pictures of these: a hand further off has few pixels at work size."""
_SAME = 0.7
"""IoU of the masks of two tracks that show one thing."""
_LEAST_CUTS, _AS_CUT = 2, 0.5
"""Frames in which a new track lies as something was cut out there, and the IoU of that."""


class ObjectLook:
    """The frames of a clip at work size: it sees each of them, then finds what hands hold."""

    def __init__(self, settings: SegmentSettings) -> None:
        self.settings = settings
        self._look = ScannedClip()
        self._last_key = -1

    @property
    def pts_s(self) -> dict[int, float]:
        return self._look.pts_s

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) at work size."""
        return self._look.shape

    def see(self, frame: Frame) -> None:
        """Keep a frame, shrunk to work size; and larger now and then: the first frame of the clip,
        then at times of the video, on which neighbouring clips agree."""
        small = _shrunk_picture(frame.image, self.settings.work_side_px)
        self._look.images[frame.index] = small
        self._look.pts_s[frame.index] = frame.pts_s
        self._look.shape = small.shape[:2]
        key = int(frame.pts_s / KEY_S + 1e-6)
        if key != self._last_key and self.settings.max_objects:
            self._last_key = key
            side = max(KEY_SIDE_PX, self.settings.work_side_px)
            self._look.keys[frame.index] = _shrunk_picture(frame.image, side)

    def find(
        self, hands: Sequence[HandPath], before: Carried, first: int
    ) -> tuple[list[Thing], list[Hold], Carried]:
        """Objects of the clip, where hands were seen to hold them, and what the next clip of the
        take gets of them.

        hands: at any size; first: the least number of a track of this clip.
        """
        look, settings = self._look, self.settings
        small = [_shrunk_hand(hand, look.shape) for hand in hands]
        things: list[Thing] = []
        holds: list[Hold] = []
        if settings.max_objects:
            least = max(12, int(settings.min_area_share * look.shape[0] * look.shape[1]))
            with side_by_side():
                holds = find_holds(look, small, settings.motion_gap_s)
                holds = [hold for hold in holds if hold.cut.mask.area >= least]
                things = follow_objects(look, covered_by(small), holds, settings, before)
        count = name_tracks(things, int(before.get("objects", first)))
        return things, holds, carry(look, things, count)


def _shrunk_picture(image: np.ndarray, side: int) -> np.ndarray:
    height, width = image.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _shrunk_hand(hand: HandPath, shape: tuple[int, int]) -> HandPath:
    masks, points = {}, {}
    for frame, mask in hand.masks.items():
        scale = shape[1] / mask.shape[1]
        masks[frame] = _shrunk(mask, shape)
        points[frame] = (hand.points[frame] + 0.5) * scale - 0.5
    return HandPath(masks, points)


def _shrunk(mask: Patch, shape: tuple[int, int]) -> Patch:
    """A mask at another size: the pixels that it covers at least half of."""
    if mask.shape == shape or not mask.area:
        return mask if mask.shape == shape else Patch.of(np.zeros(shape, bool))
    # Where a small pixel's edge falls on a large one's, a part is shrunk as the whole is.
    down, across = (
        long // math.gcd(long, short) for long, short in zip(mask.shape, shape, strict=True)
    )
    top, left = mask.top // down * down, mask.left // across * across
    window = (
        slice(top, -(-mask.bottom // down) * down),
        slice(left, -(-mask.right // across) * across),
    )
    part = mask.within(window).view("u1") * 255
    by_rows, by_columns = shape[0] / mask.shape[0], shape[1] / mask.shape[1]
    size = round(part.shape[1] * by_columns), round(part.shape[0] * by_rows)
    soft = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    return Patch.of(soft >= 128, (round(left * by_columns), round(top * by_rows)), shape)


def follow_objects(
    look: ScannedClip,
    hands: Mapping[int, Patch],
    holds: Sequence[Hold],
    settings: SegmentSettings,
    carried: Carried,
) -> list[Thing]:
    """The objects of a clip: those of the clip before, then what is held, the surest first."""
    cuts: dict[int, list[Patch]] = {}
    for hold in holds:
        cuts.setdefault(hold.frame, []).append(hold.cut.mask)
    follower = Follower(look, hands, cuts)
    things: list[Thing] = []

    def add(frame: int, outline: Patch, number: int) -> None:
        thing = _visible(follower.follow(frame, outline), number, hands)
        _end_where_same(thing, frame, things)
        is_known = number >= 0 and bool(thing.outlines)
        if is_known or _borne_out(thing, cuts) >= _LEAST_CUTS:
            things.append(thing)

    for number, frame, outline in carried_outlines(carried, look):
        add(frame, Patch.of(outline), number)
    for hold in holds:
        if len(things) >= settings.max_objects:
            break
        if not any(_shows_part(t.outlines.get(hold.frame), hold.cut.mask) for t in things):
            add(hold.frame, hold.cut.mask, -1)
    return things


def _borne_out(thing: Thing, cuts: Mapping[int, Sequence[Patch]]) -> int:
    """In how many frames an object lies as something was cut out at a hand there."""
    return sum(
        any(thing.masks[frame].iou(cut) > _AS_CUT for cut in some)
        for frame, some in cuts.items()
        if frame in thing.masks
    )


def _end_where_same(thing: Thing, start: int, others: Sequence[Thing]) -> None:
    """End a track, both ways from where it starts, where its mask becomes that of another.

    Two parts of one thing are apart until it is cut out as a whole, which both take for theirs.
    """
    same = [
        frame
        for frame, mask in thing.masks.items()
        if any(frame in o.masks and mask.iou(o.masks[frame]) > _SAME for o in others)
    ]
    before = max((f for f in same if f <= start), default=-math.inf)
    after = min((f for f in same if f >= start), default=math.inf)
    for by_frame in (thing.masks, thing.score, thing.outlines):
        for frame in [f for f in by_frame if not before < f < after]:
            del by_frame[frame]


def _shows_part(outline: Patch | None, part: Patch) -> bool:
    """Tell whether what was cut out is what an outline is drawn around, or a part of that."""
    if outline is None:
        return False
    window = part.window(0)
    covered = outline.grown(5, window) & part.pixels()
    return bool(covered.sum() > 0.35 * part.area or outline.iou(part) > 0.2)


def _visible(thing: FollowedObject, number: int, hands: Mapping[int, Patch]) -> Thing:
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
