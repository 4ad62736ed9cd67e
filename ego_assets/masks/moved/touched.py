"""Finds the regions of one picture that a hand may touch.

Here: which nodes of the region tree around a hand look like a thing at it. Not here: the tree
(`regions`), what moves with a hand (`contact`), which regions other frames bear out (`holds`).

A thing has colours unlike those around it, few borders inside, lies along much of the hand, and is
no backdrop. None of that makes it one: what happens to lie behind a hand may look the same.
"""

from __future__ import annotations

import cv2
import numpy as np

from ego_assets.masks.moved.contact import (
    CLEAR,
    FRINGE,
    LEAST_AREA,
    OFF_HAND,
    Cut,
    HandSeen,
    flesh_of,
    goes_with,
)
from ego_assets.masks.moved.cutting import CutWindow, disc
from ego_assets.masks.moved.regions import RegionTree, region_tree
from ego_assets.vision.rle import mask_iou

SIDE = 128
"""Pixels of the longer side of the crop."""
REACHES = (0.5, 1.3, 3.0)
"""How far around the hand regions are looked for, in sizes of the hand: the nearer, the smaller."""
_MOST = 2
"""Regions that are kept of a hand in a frame."""
_MOST_AREA, _NEAR, _BEHIND = 9.0, 0.12, 0.35
"""Of the area of the hand; of its size: what lies so near to it is at it, and a thing may go on
behind a finger that is no wider."""
_CUT_OFF, _SAME = 0.5, 0.6
"""Of the side of a region, that may lie at the end of the crop; IoU of regions that are one."""


def touched_regions(
    picture: np.ndarray, votes: np.ndarray | None, hand: HandSeen, others: np.ndarray
) -> list[Cut]:
    """What a hand may touch, by its colours; nothing if nothing looks like a thing.

    picture: (H, W, 3) uint8 RGB, of the size of the masks or larger; votes: (H, W) int8, above 0
    what moves with the hand, below what stays, None if the hand rests; others: (H, W) bool, all
    other hands.
    """
    low, high = hand.points.min(axis=0), hand.points.max(axis=0)
    found: list[Cut] = []
    for reach in REACHES:
        crop = CutWindow.around(low, high, reach * hand.size, hand.mask.shape, SIDE)
        if crop is None:
            continue
        barred = flesh_of(crop, hand, others)
        tree = region_tree(crop.picture(picture), barred, _BEHIND * hand.size * crop.scale)
        if tree is not None:
            found += [cut for cut in _best(tree, crop, hand, barred) if goes_with(cut.mask, votes)]
    found.sort(key=lambda cut: -cut.worth)
    chosen: list[Cut] = []
    for cut in found:
        if all(cut.mask.iou(other.mask) < _SAME for other in chosen):
            chosen.append(cut)
    return chosen[:_MOST]


def _best(tree: RegionTree, crop: CutWindow, hand: HandSeen, barred: np.ndarray) -> list[Cut]:
    """The regions of a crop that look most like a thing at the hand."""
    size, flesh = hand.size * crop.scale, crop.mask(hand.mask)
    near = cv2.dilate(flesh.view("u1"), disc(_NEAR * size)).view(bool) & ~barred
    fringe = cv2.dilate(barred.view("u1"), disc(FRINGE * size)).view(bool)
    area, at_hand, palm = tree.sizes(), tree.sizes(near), max(1, int(flesh.sum()))
    fair = (at_hand > 0) & (area > LEAST_AREA * palm) & (area < _MOST_AREA * palm)
    fair &= tree.sizes(~fringe) > OFF_HAND * area
    fair &= tree.sizes(crop.ends(2)) < _CUT_OFF * np.sqrt(area)
    nodes = np.flatnonzero(fair)
    clear, apart, inside = tree.borders(nodes)
    worth = np.log((0.5 + apart) / (1 + inside)) * clear
    worth *= np.sqrt(at_hand[nodes] / max(1, near.sum()) * np.minimum(1, area[nodes] / palm))
    worth[clear < CLEAR] = 0
    found: list[Cut] = []
    kept: list[np.ndarray] = []
    for place in np.argsort(-worth).tolist():
        if worth[place] <= 0 or len(kept) >= _MOST:
            break
        pixels = tree.pixels(int(nodes[place]))
        if _is_backdrop(pixels, crop) or any(mask_iou(pixels, k) > _SAME for k in kept):
            continue
        kept.append(pixels)
        mask = crop.patch(pixels)
        if mask.area:
            found.append(Cut(mask, float(clear[place]), float(worth[place]), is_region=True))
    return found


def _is_backdrop(pixels: np.ndarray, crop: CutWindow) -> bool:
    """Whether a region goes from one side of the picture to the other."""
    height, width = crop.shape
    is_upright = crop.top == 0 and crop.bottom == height and pixels[[0, -1]].any(axis=1).all()
    is_level = crop.left == 0 and crop.right == width and pixels[:, [0, -1]].any(axis=0).all()
    return bool(is_upright or is_level)
