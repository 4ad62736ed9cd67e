"""Hands by landmarks: tracks that are joined, sides and persons, masks from bones."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from ego_assets.masks.landmarks import follow
from ego_assets.masks.landmarks.carry import carried_hands, known_hands, name_hands
from ego_assets.masks.landmarks.follow import HandFollower, HandTrack
from ego_assets.masks.landmarks.link import linked, without_doubles
from ego_assets.masks.landmarks.persons import PictureView, forearm_entry, persons_hands
from ego_assets.masks.landmarks.scan import _TURNS, HandScan, are_one, box_of
from ego_assets.masks.landmarks.shape import (
    _CORE,
    _REACH,
    DrawnHand,
    _drawn,
    draw_hand,
    pixels_a_metre,
)
from ego_assets.models.hand_nets.landmarks import HandLook, region_of
from ego_assets.models.hand_nets.palms import Palm, Region
from ego_assets.operator import Frame
from ego_assets.vision.patches import Patch

WIDTH, HEIGHT = 640, 480
VIEW = PictureView(WIDTH, HEIGHT, 500.0)
_FINGERS = np.array([-40.0, -18.0, 0.0, 16.0, 30.0])


def flat_hand(x: float, y: float, length: float = 120.0, turn: float = 0.0) -> np.ndarray:
    """(21, 2) joints of an open hand whose wrist is at x, y; turn: 0 is fingers up, clockwise."""
    points = [np.zeros(2)]
    for number, angle in enumerate(np.radians(_FINGERS)):
        ahead = np.array([np.sin(angle), -np.cos(angle)])
        reach = (0.3, 0.5, 0.65, 0.78) if number == 0 else (0.5, 0.7, 0.85, 0.97)
        points += [ahead * length * share for share in reach]
    cosine, sine = np.cos(turn), np.sin(turn)
    return np.array(points) @ np.array([[cosine, sine], [-sine, cosine]]) + (x, y)


def look(points: np.ndarray, right: float = 0.9, presence: float = 0.95) -> HandLook:
    flat = points - points.mean(axis=0)
    metres = np.column_stack([flat * (0.18 / np.ptp(flat, axis=0).max()), np.zeros(21)])
    return HandLook(points, presence, right, metres, region_of(points))


def drawn(points: np.ndarray) -> DrawnHand:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(points.astype(np.int32)), 1)
    return DrawnHand(Patch.of(mask.view(bool)), 0.9)


def track(
    key: int,
    frames: range,
    *,
    x: float = 320,
    y: float = 400,
    turn: float = 0.0,
    right: float = 0.9,
    presence: float = 0.95,
    length: float = 120.0,
) -> HandTrack:
    found = HandTrack(key)
    points = flat_hand(x, y, length, turn)
    for frame in frames:
        found.looks[frame] = look(points, right, presence)
        found.drawn[frame] = drawn(points)
        found.times[frame] = frame / 30
    return found


def test_a_hand_that_is_found_again_where_it_was_lost_is_one() -> None:
    pieces = [track(0, range(0, 20)), track(1, range(25, 40), x=340)]
    [chain] = linked(pieces)
    assert chain.key == 0
    assert sorted(chain.looks) == [*range(0, 20), *range(25, 40)]
    assert len(linked([track(0, range(0, 20)), track(1, range(60, 80))])) == 2, "too long ago"
    assert len(linked([track(0, range(0, 20)), track(1, range(25, 40), x=600)])) == 2, "elsewhere"


def test_two_tracks_on_one_hand_are_one() -> None:
    sure, weak = track(0, range(0, 30)), track(1, range(5, 25), x=325, presence=0.6)
    assert [t.key for t in without_doubles([weak, sure])] == [0]
    other = track(2, range(0, 30), x=120)
    assert [t.key for t in without_doubles([sure, other])] == [0, 2]


def test_a_track_on_the_hand_of_another_goes_on_in_that_one() -> None:
    """Fingers alone were taken for a hand, until the whole hand was found."""
    long, short = track(0, range(0, 40)), track(1, range(30, 46), presence=0.97)
    whole, fingers = short.looks[35].points, flat_hand(320, 340, 60.0)
    for frame in range(28, 40):
        long.looks[frame], long.drawn[frame] = look(fingers, presence=0.9), drawn(fingers)
    [kept] = without_doubles([long, short])
    assert (kept.key, kept.frames) == (0, [*range(46)])
    assert kept.times[45] == 45 / 30
    assert [f for f in kept.frames if not np.array_equal(kept.looks[f].points, whole)] == [28, 29]
    assert kept.drawn[35] is short.drawn[35]
    unsure = track(2, range(0, 10), x=322, presence=0.94)
    assert without_doubles([kept, unsure]) == [kept]
    assert np.array_equal(kept.looks[5].points, whole), "less sure looks change nothing"


def test_the_forearm_goes_on_behind_the_wrist() -> None:
    assert forearm_entry(flat_hand(320, 240), WIDTH, HEIGHT)[1] == 1
    assert forearm_entry(flat_hand(320, 240, turn=np.pi), WIDTH, HEIGHT)[1] == -1
    assert forearm_entry(flat_hand(320, 240, turn=np.pi / 2), WIDTH, HEIGHT)[0] == -1


def test_a_track_votes_with_all_its_frames() -> None:
    voting = track(0, range(0, 30), x=420)
    for frame in range(0, 9):
        voting.looks[frame] = look(voting.looks[frame].points, right=0.1)
    [hand] = persons_hands([voting], VIEW)
    assert (hand.side, hand.is_wearer) == ("right", True)
    assert 0.5 < hand.side_score < 1


def test_a_person_has_one_hand_of_each_side() -> None:
    left = track(0, range(0, 30), x=200, right=0.55)
    right = track(1, range(0, 30), x=460, right=0.97)
    hands = persons_hands([left, right], VIEW)
    assert {h.parts[0].key: h.side for h in hands} == {0: "left", 1: "right"}
    again = track(2, range(60, 90), x=450, right=0.97)
    hands = persons_hands([left, right, again], VIEW)
    assert sorted(len(h.parts) for h in hands) == [1, 2], "the wearer's right hand is back"


def test_hands_from_above_and_far_hands_are_not_the_wearers() -> None:
    own = track(0, range(0, 30), x=420)
    opposite = track(1, range(0, 30), x=200, y=120, turn=np.pi)
    far = track(2, range(0, 30), x=300, y=300, length=30)
    hands = {h.parts[0].key: h.is_wearer for h in persons_hands([own, opposite, far], VIEW)}
    assert hands == {0: True, 1: False, 2: False}


def test_a_third_hand_at_a_time_is_somebody_elses() -> None:
    hands = persons_hands(
        [
            track(0, range(0, 30), x=200, right=0.05),
            track(1, range(0, 30), x=460, right=0.97),
            track(2, range(0, 30), x=330, right=0.9, presence=0.6),
        ],
        VIEW,
    )
    assert {h.parts[0].key: h.is_wearer for h in hands} == {0: True, 1: True, 2: False}


def test_names_and_sides_last_through_a_take() -> None:
    first = persons_hands([track(0, range(0, 60), x=420)], VIEW)
    name_hands(first, {}, {}, 0)
    carried = carried_hands(first, {f: f / 30 for f in range(60)}, 0, {})
    # The next clip shows the last frames again, and there the net is wrong all the time.
    second = [track(7, range(40, 90), x=420, right=0.05), track(8, range(40, 90), x=150, right=0.1)]
    known = known_hands(carried, second)
    assert {key: hand.number for key, hand in known.items()} == {7: 0}
    votes = {k: h.votes for k, h in known.items()}
    hands = persons_hands(second, VIEW, votes, {k: h.side for k, h in known.items()})
    name_hands(hands, known, carried, 0)
    assert {h.parts[0].key: (h.number, h.side) for h in hands} == {7: (0, "right"), 8: (1, "left")}


def test_a_hand_is_drawn_up_to_its_wrist() -> None:
    points = flat_hand(320, 300)
    image = np.full((HEIGHT, WIDTH, 3), (60, 90, 60), np.uint8)
    for joint in range(1, 21):
        start = points[joint - 1 if joint % 4 != 1 else 0]
        cv2.line(
            image,
            start.astype(int).tolist(),
            points[joint].astype(int).tolist(),
            (205, 150, 125),
            13,
        )
    cv2.fillConvexPoly(image, points[[0, 1, 5, 9, 13, 17]].astype(np.int32), (205, 150, 125))
    cv2.line(image, (320, 300), (320, 479), (205, 150, 125), 36)
    seen = look(points)
    assert pixels_a_metre(points, seen.metres) == pytest.approx(np.ptp(points, axis=0).max() / 0.18)
    made = draw_hand(image, points, seen.metres)
    mask = made.mask.whole()
    assert made.skin > 0.5
    assert not mask[325:].any(), "the forearm is not part of the hand"
    inside = [mask[int(y), int(x)] for x, y in points[1:]]
    assert np.mean(inside) > 0.9
    assert mask.sum() < 1.5 * (image[:310, :, 0] > 150).sum()


def test_a_joint_that_is_off_does_not_make_a_hand_large() -> None:
    points = flat_hand(320, 300)
    seen = look(points)
    size = pixels_a_metre(points, seen.metres)
    off = points.copy()
    off[[4, 8]] += (150, -150)
    assert pixels_a_metre(off, seen.metres) == pytest.approx(size, rel=0.02)
    deep = seen.metres + np.array([0.0, 0.0, 1.0]) * np.arange(21)[:, None]
    assert np.isfinite(pixels_a_metre(points, deep)), "a hand that is seen end on has a size"


def shown_hand(points: np.ndarray, breadth: int) -> np.ndarray:
    """A picture of a hand whose fingers are so many pixels broad."""
    image = np.full((HEIGHT, WIDTH, 3), (60, 90, 60), np.uint8)
    for joint in range(1, 21):
        start = points[joint - 1 if joint % 4 != 1 else 0]
        ends = start.astype(int).tolist(), points[joint].astype(int).tolist()
        cv2.line(image, *ends, (205, 150, 125), breadth)
    cv2.fillConvexPoly(image, points[[0, 1, 5, 9, 13, 17]].astype(np.int32), (205, 150, 125))
    return image


def test_a_hand_is_drawn_where_its_joints_are_a_little_off() -> None:
    points = flat_hand(320, 300)
    image = shown_hand(points, 13)
    beside = points.copy()
    beside[[18, 19, 20]] += (8, -2)
    mask = draw_hand(image, beside, look(beside).metres).mask.whole()
    tip = mask[int(points[19, 1]) - 2 : int(points[19, 1]) + 3, int(points[19, 0]) - 5 :][:, :11]
    assert tip.mean() > 0.8, "the finger is where it is seen"


def test_shadow_between_fingers_is_the_hands() -> None:
    points = flat_hand(320, 300)
    image = shown_hand(points, 17)
    shadow = [(points[a] + points[b]) / 2 for a, b in ((9, 13), (13, 17))]
    for x, y in shadow:
        cv2.line(image, (int(x), int(y) - 14), (int(x), int(y) + 4), (20, 15, 12), 3)
    mask = draw_hand(image, points, look(points).metres).mask.whole()
    assert np.mean([mask[int(y), int(x)] for x, y in shadow]) == 1.0


def test_the_arm_beside_a_wrist_is_not_the_hands() -> None:
    points = flat_hand(320, 300)
    image = shown_hand(points, 17)
    cv2.rectangle(image, (288, 280), (352, 479), (205, 150, 125), -1)
    mask = draw_hand(image, points, look(points).metres).mask.whole()
    assert 20 < mask[298].sum() < 50


def test_no_drawn_hand_is_broader_than_its_reach() -> None:
    points = flat_hand(320, 300)
    scale = pixels_a_metre(points, look(points).metres)
    core, hand, reach = (
        _drawn((HEIGHT, WIDTH), points, scale, breadth) for breadth in (_CORE, 1.0, _REACH)
    )
    few = 0.002 * hand.sum()  # of rounding
    assert (core & ~hand).sum() < few
    assert (hand & ~reach).sum() < few
    assert abs(int(reach[298].sum()) - int(hand[298].sum())) <= 3, "the wrist is as broad in each"


def test_boxes_and_sameness() -> None:
    points = flat_hand(300, 300)
    assert are_one(points, points + 5)
    assert not are_one(points, points + 100)
    assert box_of(points)[3] == pytest.approx(300)


def noted_windows(scan: HandScan, monkeypatch: pytest.MonkeyPatch) -> list[Region]:
    """The windows in which palms are looked for, as they come."""
    looked: list[Region] = []
    find = scan._palms.find

    def noted(image: np.ndarray, window: Region, least: float) -> list[Palm]:
        looked.append(window)
        return find(image, window, least)

    monkeypatch.setattr(scan._palms, "find", noted)
    return looked


def test_what_appears_and_holds_still_is_looked_at_by_all_turns(
    hand_nets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = HandScan(hand_nets)
    looked = noted_windows(scan, monkeypatch)

    def turns_of(picture: np.ndarray) -> list[float]:
        """Of the small windows in the upper left corner."""
        looked.clear()
        assert scan.find(picture, []) == []
        corner = {(w.x, w.y) for w in looked if w.side < HEIGHT}
        first = min(corner, default=None)
        return sorted(w.angle for w in looked if (w.x, w.y) == first)

    empty = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    thing = empty.copy()
    thing[30:110, 30:110] = np.random.default_rng(0).integers(0, 255, (80, 80, 1), np.uint8)
    assert len(turns_of(empty)) == 4
    assert turns_of(empty) == []
    assert sorted(turn for _ in range(4) for turn in turns_of(thing)) == sorted(_TURNS)
    assert turns_of(thing) == []
    assert not looked


@pytest.fixture(scope="module")
def shown(real_data: Path) -> list[Frame]:
    """A hand before a wall, that moves, goes out of sight, and is back."""
    file = sorted((real_data / "images" / "hands_freihand").glob("*.jpg"))[0]
    picture = np.ascontiguousarray(cv2.imread(str(file))[..., ::-1])
    frames = []
    for index in range(16):
        image = np.full((360, 480, 3), 120, np.uint8)
        if index not in (7, 8):
            image[60:284, 20 + 10 * index : 244 + 10 * index] = picture
        frames.append(Frame(index, index / 10, image, 1.0))
    return frames


def test_a_real_hand_is_followed_both_ways_from_where_it_is_found(
    hand_nets: Path, shown: list[Frame]
) -> None:
    follower = HandFollower(HandScan(hand_nets), interval_s=0.5)
    for frame in shown:
        follower.see(frame)
    [chain] = linked(follower.tracks)
    assert set(chain.looks) == set(range(16)) - {7, 8}
    moved = chain.looks[15].points.mean(axis=0) - chain.looks[0].points.mean(axis=0)
    assert moved == pytest.approx([150, 0], abs=12)


def test_a_lost_hand_is_searched_for_where_it_was(
    hand_nets: Path, shown: list[Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two scans, one window a search, whatever else has changed in the picture."""
    scan = HandScan(hand_nets)
    looked = noted_windows(scan, monkeypatch)
    follower = HandFollower(scan, interval_s=100.0)
    for frame in shown[:7]:
        follower.see(frame)
    [track] = follower.tracks
    there = track.looks[6].next_region
    looked.clear()
    for frame in shown[7:9]:
        follower.see(Frame(frame.index, frame.pts_s, np.roll(frame.image, 1, 0), 1.0))
    assert 1 <= len(looked) <= 2
    assert {(w.x, w.y) for w in looked} == {(there.x, there.y)}
    follower.see(Frame(9, 0.9, shown[6].image, 1.0))
    assert [t.frames for t in follower.tracks] == [[*range(7)], [9]]


class WideScan:
    """Shows hands in regions of so many pixels only, as after a sudden turn of the head."""

    def __init__(self, hands: list[np.ndarray]) -> None:
        self.hands = hands
        self.presence = 0.9
        self.least_side = 0.0

    def look(self, image: np.ndarray, region: Region) -> HandLook:
        apart = [np.hypot(h[:, 0].mean() - region.x, h[:, 1].mean() - region.y) for h in self.hands]
        nearest = self.hands[int(np.argmin(apart))]
        is_seen = region.side >= self.least_side
        return look(nearest, presence=self.presence if is_seen else 0.1)

    def find(self, image: np.ndarray, known: list[HandLook]) -> list[HandLook]:
        others = [h for h in self.hands if not any(are_one(h, k.points) for k in known)]
        return [look(hand) for hand in others]

    def search(self, *_: object) -> list[HandLook]:
        return []

    def forget(self) -> None:
        pass


def lost_at_once(scan: WideScan, hands: list[np.ndarray], presence: float) -> list[list[int]]:
    """Frames of each track, where the last two are seen in wider regions alone."""
    follower = HandFollower(scan, interval_s=100.0)  # type: ignore[arg-type]
    blank = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    for index in range(5):
        if index == 3:
            scan.hands, scan.presence = hands, presence
            scan.least_side = 1.2 * region_of(hands[0]).side
        follower.see(Frame(index, index / 30, blank, 1.0))
    return [t.frames for t in follower.tracks]


def test_a_hand_that_is_not_where_it_was_is_looked_for_in_a_wider_region() -> None:
    hand = flat_hand(320, 300)
    assert lost_at_once(WideScan([hand]), [hand + 30], 0.9) == [[0, 1, 2, 3, 4]]
    assert lost_at_once(WideScan([hand]), [hand + 30], 0.4) == [[0, 1, 2]], "must be surer there"


def test_a_wider_region_gives_no_track_the_hand_of_another() -> None:
    one, other = flat_hand(320, 300), flat_hand(380, 300)
    assert lost_at_once(WideScan([one, other]), [other], 0.9) == [[0, 1, 2], [0, 1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("blank", "found"), [((3,), [0, 1, 2, 4, 5]), ((1, 2, 3, 4), [5])], ids=["short", "too_long"]
)
def test_a_new_hand_is_followed_backwards_past_a_few_frames_that_do_not_show_it(
    hand_nets: Path,
    shown: list[Frame],
    monkeypatch: pytest.MonkeyPatch,
    blank: tuple[int, ...],
    found: list[int],
) -> None:
    scan = HandScan(hand_nets)
    find = scan.find
    monkeypatch.setattr(scan, "find", lambda image, known: find(image, known) if late else [])
    follower = HandFollower(scan, interval_s=0.25)
    for index, frame in enumerate(shown[:6]):
        late = index > 0
        image = np.full_like(frame.image, 120) if index in blank else frame.image
        follower.see(Frame(index, index * 0.05, image, 1.0))
    assert [t.frames for t in follower.tracks] == [found]


def test_frames_are_held_within_a_budget(
    hand_nets: Path, shown: list[Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the interval is: what does not fit is scanned for early, so nothing is lost."""
    assert follow._MAX_HELD_BYTES <= 96 << 20
    size = shown[0].image.nbytes
    monkeypatch.setattr(follow, "_MAX_HELD_BYTES", 4 * size)
    follower = HandFollower(HandScan(hand_nets), interval_s=100.0)
    blank = Frame(0, 0.0, np.full_like(shown[0].image, 120), 1.0)
    held = []
    for frame in [blank, *(Frame(f.index + 1, f.pts_s + 0.1, f.image, 1.0) for f in shown[:6])]:
        follower.see(frame)
        held.append(sum(f.image.nbytes for f in follower._recent))
    assert max(held) <= 4 * size
    [track] = follower.tracks
    assert track.frames == [1, 2, 3, 4, 5, 6]


def test_a_frame_beyond_the_budget_is_scanned_at_once(
    hand_nets: Path, shown: list[Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "_MAX_HELD_BYTES", 1)
    follower = HandFollower(HandScan(hand_nets), interval_s=100.0)
    for frame in shown[:3]:
        follower.see(frame)
        assert follower._recent == [frame]
    assert [t.frames for t in follower.tracks] == [[0, 1, 2]]
