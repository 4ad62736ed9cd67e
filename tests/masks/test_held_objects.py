"""What a hand holds is cut out and followed; an empty hand holds nothing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import cv2
import numpy as np
import pytest

from ego_assets.masks.moved import holds as holds_module
from ego_assets.masks.moved.carry import ScannedClip, Thing, carry, name_tracks
from ego_assets.masks.moved.contact import Cut
from ego_assets.masks.moved.holds import HandPath, Hold, covered_by, find_holds
from ego_assets.masks.moved.objects import ObjectLook, _shrunk_hand, follow_objects
from ego_assets.masks.settings import SegmentSettings
from ego_assets.operator import Frame
from ego_assets.vision.patches import Patch

SHAPE = (240, 320)
FPS, FRAMES = 30, 60
# A hand that points to the right: wrist, then thumb and fingers from the palm to their tips.
JOINTS = np.array(
    [
        [0, 0],
        *[[8 + 7 * k, -16 - 2 * k] for k in range(4)],
        *[[22 + 7 * k, -9] for k in range(4)],
        *[[23 + 8 * k, -2] for k in range(4)],
        *[[22 + 7 * k, 5] for k in range(4)],
        *[[20 + 6 * k, 11] for k in range(4)],
    ],
    float,
)


def noise(seed: int, low: int, high: int, cell: int) -> np.ndarray:
    """Texture: a background or an object with features."""
    rng = np.random.default_rng(seed)
    small = rng.integers(low, high, (SHAPE[0] // cell, SHAPE[1] // cell, 3), dtype=np.uint8)
    return cv2.resize(small, SHAPE[::-1], interpolation=cv2.INTER_CUBIC)


def place(frame: int) -> np.ndarray:
    """Where the wrist is: it goes to and fro and up and down."""
    angle = 2 * np.pi * frame / 45
    return np.array([90 + 45 * np.sin(angle), 120 + 30 * np.cos(angle)])


def box_mask(corner: np.ndarray) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    x, y = np.round(corner).astype(int)
    cv2.rectangle(mask, (int(x), int(y)), (int(x) + 44, int(y) + 58), 1, -1)
    return mask.view(bool)


def scene(held: bool) -> tuple[ObjectLook, HandPath, dict[int, np.ndarray]]:
    """A clip in which a hand moves: with a red box, or with the box left lying far from it."""
    back = noise(0, 70, 160, 8)
    red = noise(1, 0, 60, 6) // 2 + np.array([170, 10, 20], np.uint8)
    look, hand, truth = ObjectLook(SegmentSettings(work_side_px=320)), HandPath(), {}
    for frame in range(FRAMES):
        image = back.copy()
        wrist = place(frame)
        corner = wrist + np.array([44, -40]) if held else np.array([255.0, 170.0])
        box = box_mask(corner)
        shift = np.round(corner).astype(int)
        image[box] = np.roll(red, shift[::-1], axis=(0, 1))[box]
        flesh = np.zeros(SHAPE, np.uint8)
        points = JOINTS + wrist
        for chain in ((0, 1, 2, 3, 4), *[(0, *range(5 + 4 * f, 9 + 4 * f)) for f in range(4)]):
            lines = np.round(points[list(chain)]).astype(np.int32)
            cv2.polylines(flesh, [lines], False, 1, 7)
        arm = np.round(np.array([wrist, [wrist[0] - 200, wrist[1] + 40]])).astype(np.int32)
        cv2.line(image, arm[0].tolist(), arm[1].tolist(), (205, 160, 130), 22)
        image[flesh.view(bool)] = (210, 160, 130)
        truth[frame] = box & ~flesh.view(bool)
        hand.masks[frame] = Patch.of(flesh.view(bool))
        hand.points[frame] = points
        look.see(Frame(frame, frame / FPS, image, 1.0))
    return look, hand, truth


def found_in(look: ObjectLook, hand: HandPath) -> tuple[list[Thing], list[Hold]]:
    things, holds, _ = look.find([hand], {}, 0)
    return things, holds


def test_what_moves_with_a_hand_is_cut_out_and_followed() -> None:
    look, hand, truth = scene(held=True)
    things, holds = found_in(look, hand)
    assert holds
    best = max(things, key=lambda thing: len(thing.masks))
    shares = [
        best.masks[f].iou(Patch.of(truth[f])) if f in best.masks else 0.0 for f in range(FRAMES)
    ]
    assert np.mean(shares) > 0.6
    assert np.mean(np.array(shares) > 0.5) > 0.8


def test_an_empty_hand_that_moves_holds_nothing() -> None:
    look, hand, _ = scene(held=False)
    things, holds = found_in(look, hand)
    assert things == []
    assert holds == []


def test_a_cut_that_no_other_bears_out_is_no_object() -> None:
    look, hand, _ = scene(held=True)
    keys = sorted(look._look.keys)
    few = HandPath(
        {f: m for f, m in hand.masks.items() if f in keys[:2]},
        {f: p for f, p in hand.points.items() if f in keys[:2]},
    )
    assert find_holds(look._look, [few], 0.1) == []


def test_no_hand_no_object() -> None:
    look, _, _ = scene(held=True)
    assert follow_objects(look._look, covered_by([]), [], SegmentSettings(), {}) == []
    assert isinstance(look._look, ScannedClip)
    assert look.find([], {}, 0)[0] == []


def test_what_is_seen_to_move_takes_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    look, hand, _ = scene(held=True)
    keys = sorted(look._look.keys)
    limit = 3 * SHAPE[0] * SHAPE[1]
    cuts = []
    for most in (holds_module.EVIDENCE_BYTES, limit):
        monkeypatch.setattr(holds_module, "EVIDENCE_BYTES", most)
        search = holds_module._Search(look._look, [hand], keys, 0.1)
        search.gather()
        found = [cut for key in keys for cut in search.cuts_of(key)]
        cuts.append([(number, cut.clear, cut.mask.bits.tobytes()) for number, cut in found])
    assert cuts[0] == cuts[1] != []
    assert len(search.evidence) > 3
    assert sum(votes.nbytes for votes in search.evidence._held.values()) <= limit


def seen_against(frame: int, count: int, step: float, unseen: Sequence[int] = ()) -> int:
    """The frame that motion is seen against, where a hand moves `step` pixels a frame."""
    look, hand = ScannedClip(pts_s={f: f / FPS for f in range(count)}), HandPath()
    hand.points = {f: JOINTS + np.array([step * f, 0]) for f in range(count) if f not in unseen}
    return holds_module._frame_before(look, hand, frame, 0.1)


@pytest.mark.parametrize("frame", range(12))
def test_motion_is_seen_over_the_gap_at_either_end_of_a_clip(frame: int) -> None:
    assert seen_against(frame, 12, 10.0) == (frame - 3 if frame >= 3 else frame + 3)


def test_motion_is_seen_against_a_frame_in_which_the_hand_was_elsewhere() -> None:
    assert seen_against(20, 60, 1.0) == 13  # 7 pixels off
    assert seen_against(20, 60, 0.0) == 8  # it rests: as far off as is looked
    assert seen_against(1, 60, 1.0) == 8


def test_motion_is_seen_against_a_later_frame_where_a_hand_has_just_come() -> None:
    assert seen_against(20, 60, 10.0, unseen=range(17)) == 17
    assert seen_against(20, 60, 10.0, unseen=range(18)) == 23
    assert seen_against(20, 60, 1.0, unseen=range(18)) == 27


def test_motion_is_seen_against_the_farthest_frame_of_a_clip_shorter_than_the_gap() -> None:
    assert [seen_against(frame, 3, 10.0) for frame in range(3)] == [2, 0, 0]
    assert seen_against(0, 1, 10.0) == 0


def area(left: int, right: int) -> Patch:
    mask = np.zeros(SHAPE, bool)
    mask[80:130, left:right] = True
    return Patch.of(mask)


@pytest.mark.parametrize("start", [0, 29])
def test_two_parts_of_one_cut_become_one_track(start: int) -> None:
    look = ObjectLook(SegmentSettings(work_side_px=320))
    image = noise(0, 70, 160, 8)
    whole, parts = area(100, 160), [area(100, 122), area(138, 160)]
    image[whole.whole()] = (noise(1, 0, 60, 6) // 2 + np.array([170, 10, 20]))[whole.whole()]
    for frame in range(30):
        look.see(Frame(frame, frame / FPS, image, 1.0))
    seen = [Hold(start, Cut(part, 1.0), 3.0) for part in parts]
    near = start + 1 if start < 12 else start - 1
    seen += [Hold(near, Cut(part, 1.0), 2.5) for part in parts]
    seen.append(Hold(12, Cut(whole, 1.0), 2.0))
    one, two = follow_objects(look._look, covered_by([]), seen, look.settings, {})
    assert set(one.masks) == set(one.outlines) == set(range(30))
    assert one.masks[12].iou(whole) == 1.0
    own = range(12) if start < 12 else range(13, 30)
    assert set(two.masks) == set(two.score) == set(two.outlines) == set(own)
    assert not any(two.masks[frame].overlap(one.masks[frame]) for frame in own)
    # The clip after it follows each object once, though it was given both.
    state = carry(look._look, [one, two], name_tracks([one, two], 0))
    assert {frame for number, frame in state["mask_owners"].tolist() if number == two.number} == {
        frame for frame in own if frame % 5 == 0
    }
    again = follow_objects(look._look, covered_by([]), seen[4:], look.settings, state)
    for frame in range(30):
        shown = [thing.masks[frame] for thing in again if frame in thing.masks]
        assert all(a.iou(b) < 0.7 for a, b in combinations(shown, 2))


@pytest.mark.parametrize(
    ("size", "small"),
    [((720, 1280), (270, 480)), ((468, 680), (330, 480)), ((540, 961), (270, 480)), (SHAPE,) * 2],
)
def test_a_hand_is_shrunk_as_its_whole_picture_is(
    size: tuple[int, int], small: tuple[int, int]
) -> None:
    rng = np.random.default_rng(0)
    masks = {}
    for frame in range(12):
        mask = np.zeros(size, np.uint8)
        for x, y, radius in rng.uniform(-0.1, 1.1, (frame % 4, 3)) * (size[1], size[0], 80):
            cv2.circle(mask, (int(x), int(y)), abs(int(radius)), 1, -1)
        masks[frame] = Patch.of(mask.view(bool))
    found = _shrunk_hand(HandPath(masks, dict.fromkeys(masks, JOINTS)), small).masks
    for frame, mask in masks.items():
        whole = mask.whole().view("u1") * 255
        soft = cv2.resize(whole, small[::-1], interpolation=cv2.INTER_AREA)
        assert found[frame].shape == small
        assert (found[frame].whole() == (soft >= 128)).all()


def test_what_is_cut_out_in_one_frame_only_starts_no_track() -> None:
    look = ObjectLook(SegmentSettings(work_side_px=320))
    image = noise(0, 70, 160, 8)
    for frame in range(12):
        look.see(Frame(frame, frame / FPS, image, 1.0))
    once = [Hold(0, Cut(area(100, 160), 1.0), 3.0)]
    assert follow_objects(look._look, covered_by([]), once, look.settings, {}) == []
    twice = [*once, Hold(6, Cut(area(100, 160), 1.0), 3.0)]
    assert len(follow_objects(look._look, covered_by([]), twice, look.settings, {})) == 1


def test_of_the_regions_at_a_hand_the_one_most_like_a_thing_is_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    look, hand, _ = scene(held=True)
    better, worse = Cut(area(100, 160), 1.0, 0.6, True), Cut(area(200, 260), 1.0, 0.4, True)
    moved = Cut(area(20, 60), 1.0, 0.1)
    monkeypatch.setattr(holds_module, "touched_regions", lambda *_: [worse, better])
    monkeypatch.setattr(holds_module, "cut_held", lambda *_: [moved])
    found = find_holds(look._look, [hand], 0.1)
    assert {hold.cut for hold in found} == {better, moved}


def test_a_region_is_not_joined_with_what_overlaps_it() -> None:
    region, part = Cut(area(100, 160), 1.0, 0.9, True), Cut(area(140, 180), 1.0, 0.5)
    other = Cut(area(150, 190), 1.0, 0.4)
    kept = holds_module._joined([Hold(0, cut, 3.0) for cut in (region, part)])
    assert [hold.cut for hold in kept] == [region]
    (both,) = holds_module._joined([Hold(0, cut, 3.0) for cut in (part, other)])
    assert both.cut.mask.area == area(140, 190).area


def test_more_witnesses_than_enough_do_not_make_a_cut_surer() -> None:
    few, many = (Hold(0, Cut(area(100, 160), 1.0, 0.5), support) for support in (3.0, 9.0))
    assert few.strength == many.strength > Hold(0, few.cut, 2.4).strength
