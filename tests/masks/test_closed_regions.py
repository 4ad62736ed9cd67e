"""A tree of regions, and those of them that look like a thing at a hand."""

from __future__ import annotations

import cv2
import numpy as np

from ego_assets.masks.moved.contact import HandSeen
from ego_assets.masks.moved.cutting import disc
from ego_assets.masks.moved.regions import RegionTree, region_tree
from ego_assets.masks.moved.touched import touched_regions
from ego_assets.vision.patches import Patch
from ego_assets.vision.rle import mask_iou

SHAPE = (240, 320)
GREY, RED, FLESH = (120, 125, 130), (180, 30, 40), (210, 160, 130)
# A hand that comes from the left and lies at a box.
POINTS = np.array(
    [
        [90, 120],
        *[[100 + 9 * k, 106 - 2 * k] for k in range(4)],
        *[[118 + 7 * k, 112 + 8 * f] for f in range(4) for k in range(4)],
    ],
    float,
)


def shaded(colour: tuple[int, int, int], seed: int) -> np.ndarray:
    """A picture of one colour, with noise."""
    noise = np.random.default_rng(seed).normal(0, 4, (*SHAPE, 3))
    return np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)


def box(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[top:bottom, left:right] = True
    return mask


def hand_at() -> HandSeen:
    flesh = np.zeros(SHAPE, np.uint8)
    cv2.fillConvexPoly(flesh, cv2.convexHull(np.round(POINTS).astype(np.int32)), 1)
    return HandSeen(flesh.view(bool), POINTS)


def scene(thing: np.ndarray, hand: HandSeen) -> np.ndarray:
    picture = shaded(GREY, 0)
    picture[thing] = shaded(RED, 1)[thing]
    picture[hand.mask] = FLESH
    return picture


def found_at(thing: np.ndarray, votes: np.ndarray | None = None) -> list[Patch]:
    hand = hand_at()
    cuts = touched_regions(scene(thing, hand), votes, hand, np.zeros(SHAPE, bool))
    assert all(cut.is_region for cut in cuts)
    return [cut.mask for cut in cuts]


def _large(tree: RegionTree) -> list[int]:
    return np.flatnonzero(tree.sizes() > 2000).tolist()


def best_node(tree: RegionTree, thing: np.ndarray) -> float:
    return max(mask_iou(tree.pixels(node), thing) for node in _large(tree))


def test_a_thing_is_a_node_of_the_tree() -> None:
    thing = box(140, 60, 220, 170)
    image = scene(thing, HandSeen(np.zeros(SHAPE, bool), POINTS))
    tree = region_tree(image, np.zeros(SHAPE, bool), 0)
    assert tree is not None
    assert best_node(tree, thing) > 0.95
    assert tree.sizes()[-1] == thing.size  # the last node is all


def test_what_a_finger_parts_is_one_thing() -> None:
    barred = box(60, 105, 200, 115)
    thing = box(60, 60, 200, 170)
    image = scene(thing, HandSeen(barred, POINTS))
    seen = thing & ~barred
    joined, apart = (region_tree(image, barred, reach) for reach in (20, 5))
    assert joined is not None and apart is not None
    assert best_node(joined, seen) > 0.95
    upper = thing & (np.arange(SHAPE[0]) < 105)[:, None]
    assert best_node(apart, seen) < 0.7 < best_node(apart, upper)


def test_borders_say_how_far_a_thing_is_from_what_is_around_it() -> None:
    thing = box(140, 60, 220, 170)
    image = scene(thing, HandSeen(np.zeros(SHAPE, bool), POINTS))
    tree = region_tree(image, np.zeros(SHAPE, bool), 0)
    assert tree is not None
    node = max(_large(tree), key=lambda node: mask_iou(tree.pixels(node), thing))
    clear, apart, inside = tree.borders(np.array([node]))
    assert clear[0] > 0.95
    assert apart[0] > 5 * inside[0]


def test_nothing_but_a_hand_has_no_regions() -> None:
    assert region_tree(shaded(GREY, 0), np.ones(SHAPE, bool), 5) is None


def test_a_thing_that_rests_at_a_resting_hand_is_found() -> None:
    thing = box(138, 70, 200, 170)
    visible = Patch.of(thing & ~hand_at().mask)
    assert max(mask.iou(visible) for mask in found_at(thing)) > 0.85


def test_a_plain_background_is_no_thing() -> None:
    assert found_at(np.zeros(SHAPE, bool)) == []


def test_what_stays_while_the_hand_moves_is_not_touched() -> None:
    thing = box(138, 70, 200, 170)
    stays = np.where(thing, -1, 0).astype(np.int8)
    assert found_at(thing, stays) == []
    assert found_at(thing, -stays)


def likeness(thing: np.ndarray) -> float:
    visible = Patch.of(thing & ~hand_at().mask)
    return max((mask.iou(visible) for mask in found_at(thing)), default=0.0)


def test_a_backdrop_is_no_thing() -> None:
    assert likeness(box(138, 0, 184, 236)) > 0.8
    assert likeness(box(138, 0, 184, 240)) < 0.3, "from one side of the picture to the other"


def test_the_rim_of_a_hand_is_no_thing() -> None:
    """Flesh that the mask leaves out."""
    flesh = hand_at().mask.view(np.uint8)
    rims = [cv2.dilate(flesh, disc(radius)).view(bool) for radius in (6, 10)]
    assert [likeness(rim) > 0.5 for rim in rims] == [False, True]


def test_what_is_far_from_the_hand_is_not_touched() -> None:
    assert found_at(box(230, 20, 290, 90)) == []
