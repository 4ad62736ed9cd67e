"""Draws the mask of a hand from its joints: flesh around the bones, its border set by the colours.

Here: one hand in one picture. Not here: which joints belong to which hand.

Fingers are capsules and the palm is a polygon, as wide as flesh is at the size of the hand. Whether
a pixel near that outline belongs to the hand is for its colour to say (GrabCut, Rother et al. 2004,
in a band that is as broad as the joints are unsure). A hand ends at its wrist: the forearm is not
part of it. What lies between fingers that all but touch is shadow, and belongs to the hand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from ego_assets.masks.colors import bins_of, looked_up, skin_prior
from ego_assets.vision.patches import Patch

_SIDE = 80
"""Pixels of the longer side of the crop that a hand is drawn in."""
_MARGIN = 0.3
_SHIFT = 4
"""OpenCV draws in sixteenths of a pixel."""
_FINGERS = ((1, 2, 3, 4), (5, 6, 7, 8), (9, 10, 11, 12), (13, 14, 15, 16), (17, 18, 19, 20))
_BONES = np.array([(0 if b % 4 == 1 else b - 1, b) for b in range(1, 21)]).T
_ASLANT = 0.5
"""Bones that look shorter than this share of their length do not tell how large a hand looks."""
_RADII_M = np.array(
    [
        [0.0150, 0.0125, 0.0110, 0.0095],
        [0.0115, 0.0095, 0.0085, 0.0075],
        [0.0115, 0.0095, 0.0085, 0.0075],
        [0.0110, 0.0090, 0.0080, 0.0070],
        [0.0100, 0.0080, 0.0070, 0.0065],
    ]
)
"""Of the flesh around the joints of each finger, from palm to tip (Greiner 1991, half breadths)."""
_WRIST_M = 0.026
"""Half of the breadth of a wrist."""
_BEHIND_M = 0.008
"""How far behind the wrist's joint the crease lies that a hand ends at."""
_CORE, _REACH = 0.55, 1.8
"""Of the drawn breadth: what is surely hand, and beyond what nothing is. At the wrist that is the
drawn breadth itself, or else the forearm would come in at its sides."""
_ROUNDS = 2
_HOLE = 0.04
_GAP_M = 0.010
"""Between fingers that are this close, what is seen is shadow, or a ring."""
_BIN, _NEAR = 8, 16.0
_LEAST_SPREAD = np.array([22.0, 4.5, 4.5], np.float32)
"""Of the colour of a hand, in CIELAB: shade changes more than hue."""
_PRIOR = skin_prior()
_GREY, _RED, _COLOURLESS = 2.0, 5.0, 4.0


def pixels_a_metre(points: np.ndarray, metres: np.ndarray) -> float:
    """How large a hand looks: (21, 2) joints in pixels, (21, 3) in its own frame.

    The median over its bones: a few joints that are off do not make it large or small.
    """
    starts, ends = _BONES
    flat = np.linalg.norm(points[ends] - points[starts], axis=1)
    real = metres[ends] - metres[starts]
    across = np.linalg.norm(real[:, :2], axis=1)
    is_seen = across > _ASLANT * np.linalg.norm(real, axis=1)
    if not is_seen.any():
        return float(flat.sum() / max(across.sum(), 1e-6))
    return float(np.median(flat[is_seen] / across[is_seen]))


@dataclass(frozen=True, eq=False)
class DrawnHand:
    """The mask of a hand in a picture, and how much the colour of its flesh speaks for skin, 0 to
    1."""

    mask: Patch
    skin: float


def draw_hand(image: np.ndarray, points: np.ndarray, metres: np.ndarray) -> DrawnHand:
    """Draw a hand in a picture, (H, W, 3) uint8 RGB, by its (21, 2) joints there and (21, 3) in its
    own frame. The mask is empty if it lies outside."""
    height, width = image.shape[:2]
    low, high = points.min(axis=0), points.max(axis=0)
    margin = _MARGIN * float((high - low).max()) + 2
    x0, y0 = np.maximum(np.floor(low - margin), 0).astype(int)
    x1, y1 = np.minimum(np.ceil(high + margin), (width, height)).astype(int)
    if x1 - x0 < 4 or y1 - y0 < 4:
        return DrawnHand(Patch.of(np.zeros((height, width), bool)), 0.0)
    crop = image[y0:y1, x0:x1]
    scale = min(1.0, _SIDE / max(crop.shape[:2]))
    size = max(4, round((x1 - x0) * scale)), max(4, round((y1 - y0) * scale))
    small = cv2.resize(crop, size, interpolation=cv2.INTER_AREA) if scale < 1 else crop
    ratio = np.array(size) / (x1 - x0, y1 - y0)
    flat = (points - (x0, y0) + 0.5) * ratio - 0.5
    mask, skin = _refined(small, flat, pixels_a_metre(points, metres) * float(ratio.mean()))
    if scale < 1:
        soft = cv2.resize(
            mask.astype(np.float32), (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR
        )
        mask = soft > 0.5
    return DrawnHand(Patch.of(mask, (int(x0), int(y0)), (height, width)), skin)


def _refined(image: np.ndarray, points: np.ndarray, scale: float) -> tuple[np.ndarray, float]:
    """(h, w) bool mask of a crop, and how much of it has a colour of skin.

    points: (21, 2) in the crop; scale: pixels a metre.
    """
    shape = image.shape[:2]
    drawn = _drawn(shape, points, scale, 1.0)
    core = _drawn(shape, points, scale, _CORE)
    reach = _drawn(shape, points, scale, _REACH)
    beyond = _behind_wrist(shape, points, scale)
    bones = core & ~beyond
    likely = looked_up(_PRIOR, bins_of(image))
    skin = _redness(image, bones)
    alike = _of_hand_colour(image, bones, likely)
    labels = np.full(shape, cv2.GC_BGD, np.uint8)
    labels[reach] = cv2.GC_PR_BGD
    labels[drawn & alike] = cv2.GC_PR_FGD
    labels[core & alike] = cv2.GC_FGD
    labels[beyond] = cv2.GC_BGD
    is_sure = labels == cv2.GC_FGD
    if is_sure.sum() < 10 or (labels == cv2.GC_BGD).sum() < 10:
        return drawn & ~beyond, skin
    cv2.setRNGSeed(0)
    back, fore = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(image, labels, (0, 0, 1, 1), back, fore, _ROUNDS, cv2.GC_INIT_WITH_MASK)
    found = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    found = _largest(found, is_sure)
    found |= _closed(found, round(_GAP_M / 2 * scale)) & drawn & ~beyond
    return _without_holes(found), skin


def _redness(image: np.ndarray, bones: np.ndarray) -> float:
    """How much flesh lets its blood be seen, 0 to 1; 1 in pictures without colour.

    Skin of every shade is redder than grey (CIELAB's a; Xiao et al. 2017); metal, plastic and paper
    mostly are not.
    """
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)[..., 1:].astype(np.float32) - 128
    if not bones.any() or np.abs(lab).max() < _COLOURLESS:
        return 1.0
    red = float(np.median(lab[bones, 0]))
    return float(np.clip((red - _GREY) / (_RED - _GREY), 0, 1))


def _of_hand_colour(image: np.ndarray, core: np.ndarray, likely: np.ndarray) -> np.ndarray:
    """(h, w) bool: pixels of the colour that most of the hand has. What it holds, and what hides
    it, lies between its bones too, so colours that are likely skin count for more."""
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.float32)
    inside = lab[core]
    if len(inside) < 10:
        return np.ones(core.shape, bool)
    weights = 0.1 + likely[core]
    chroma = (inside[:, 1:] / _BIN).astype(np.int64)
    counts = np.zeros((256 // _BIN, 256 // _BIN), np.float32)
    np.add.at(counts, (chroma[:, 0], chroma[:, 1]), weights)
    mode = np.unravel_index(int(cv2.GaussianBlur(counts, (5, 5), 1.2).argmax()), counts.shape)
    centre = (np.array(mode) + 0.5) * _BIN
    near = np.linalg.norm(inside[:, 1:] - centre, axis=1) < _NEAR
    if near.sum() < 10:
        return np.ones(core.shape, bool)
    mean, spread = inside[near].mean(axis=0), inside[near].std(axis=0)
    away = (lab - mean) / np.maximum(spread, _LEAST_SPREAD)
    return np.asarray((away**2).sum(axis=2) < 9.0)


def _drawn(shape: tuple[int, ...], points: np.ndarray, scale: float, breadth: float) -> np.ndarray:
    """(h, w) bool: the hand, with its flesh `breadth` times as broad."""
    canvas = np.zeros(shape, np.uint8)
    radii = (_RADII_M * (scale * breadth)).tolist()
    for finger, sizes in zip(_FINGERS, radii, strict=True):
        for one, other, start, end in zip(finger, finger[1:], sizes, sizes[1:], strict=False):
            _capsule(canvas, points[one], points[other], start, end)
    palm = [(0, 1), (1, 5), (5, 9), (9, 13), (13, 17), (17, 0)]
    thick = {j: radii[f][0] for f, finger in enumerate(_FINGERS) for j in finger[:1]}
    at_wrist = min(breadth, 1.0)
    half = _WRIST_M * scale * at_wrist
    thick[0] = thick[17] / breadth * at_wrist
    across = _across(points)
    ends = [points[0] + sign * (half - thick[0]) * across for sign in (-1.0, 1.0)]
    thumb, little = sorted(ends, key=lambda p: float(np.linalg.norm(p - points[1])))
    corners = [thumb, points[1], points[5], points[9], points[13], points[17], little]
    hull = cv2.convexHull(np.round(np.array(corners) * 2**_SHIFT).astype(np.int32))
    cv2.fillPoly(canvas, [hull], 1, shift=_SHIFT)
    for one, other in palm:
        start, end = thick[one], thick[other]
        first, second = (
            little if j == 0 and 17 in (one, other) else points[j] for j in (one, other)
        )
        _capsule(canvas, thumb if one == 0 and other == 1 else first, second, start, end)
    return canvas.view(bool)


def _across(points: np.ndarray) -> np.ndarray:
    """(2,) unit vector across the wrist."""
    ahead = points[9] - points[0]
    length = float(np.linalg.norm(ahead))
    return np.array([-ahead[1], ahead[0]]) / length if length > 1e-6 else np.array([1.0, 0.0])


def _behind_wrist(shape: tuple[int, ...], points: np.ndarray, scale: float) -> np.ndarray:
    """(h, w) bool: where the forearm is."""
    across = _across(points)
    ahead = np.array([across[1], -across[0]])
    y, x = np.mgrid[: shape[0], : shape[1]]
    along = (x - points[0, 0]) * ahead[0] + (y - points[0, 1]) * ahead[1]
    aside = np.abs((x - points[0, 0]) * across[0] + (y - points[0, 1]) * across[1])
    # A finger that is bent back beyond the wrist is none of the forearm's.
    return np.asarray((along < -_BEHIND_M * scale) & (aside < 2.0 * _WRIST_M * scale))


def _capsule(
    canvas: np.ndarray, start: np.ndarray, end: np.ndarray, first: float, second: float
) -> None:
    """Draw what lies between two circles of different size."""
    # Plain numbers: arrays of two take longer than all that is drawn.
    (x0, y0), (x1, y1) = start.tolist(), end.tolist()
    unit = 2**_SHIFT
    for x, y, radius in ((x0, y0, first), (x1, y1, second)):
        centre = round(x * unit), round(y * unit)
        cv2.circle(canvas, centre, max(1, round(radius * unit)), 1, -1, shift=_SHIFT)
    right, down = x1 - x0, y1 - y0
    length = math.sqrt(right * right + down * down)
    if length > 1e-6:
        across, along = -down / length, right / length
        corners = [
            (x0 + across * first, y0 + along * first),
            (x1 + across * second, y1 + along * second),
            (x1 - across * second, y1 - along * second),
            (x0 - across * first, y0 - along * first),
        ]
        outline = np.array([(round(x * unit), round(y * unit)) for x, y in corners], np.int32)
        cv2.fillConvexPoly(canvas, outline, 1, shift=_SHIFT)


def _closed(mask: np.ndarray, radius: int) -> np.ndarray:
    """A mask without the gaps that are narrower than two radii, in pixels."""
    size = 2 * max(1, radius) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    return cv2.morphologyEx(mask.view(np.uint8), cv2.MORPH_CLOSE, disc).view(bool)


def _without_holes(mask: np.ndarray) -> np.ndarray:
    """A mask whose small holes are filled: the gap in a fist is the fist's."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats((~mask).view(np.uint8))
    areas = stats[:, cv2.CC_STAT_AREA]
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    is_hole = areas < _HOLE * mask.sum()
    is_hole[np.unique(edge)] = False
    return mask | (is_hole[labels] & ~mask) if count > 1 else mask


def _largest(mask: np.ndarray, sure: np.ndarray) -> np.ndarray:
    """The parts of a mask that hold some of what is sure; all else is another thing's."""
    count, labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=4)
    holds = np.zeros(count, bool)
    holds[np.unique(labels[sure & mask])] = True
    holds[0] = False
    return np.asarray(holds[labels])
