"""Hand masks of a clip: adapted colour, motion, and the arm that comes in from the border.

Here: pixels to hands, hands to tracks with a side. Not here: objects, rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from ego_assets.masks.baseline.skin import SkinModel, bins_of, looked_up
from ego_assets.masks.baseline.tracking import MaskTrack, MaskTracker, centre
from ego_assets.vision.patches import BitFrames, Patch, Shelf
from ego_assets.vision.rle import edges_of
from ego_assets.vision.threads import each

LEARN_EVERY = 4
ROUNDS = 3
MAX_HANDS = 4
_MARGIN = 6
LEVELS = (0.2, 0.3, 0.42, 0.56, 0.7, 0.84, 0.95)


@dataclass(frozen=True)
class HandEvidence:
    """What speaks for a track of masks being a hand; each 0 to 1."""

    motion: float
    border: float
    color: float
    length: float

    @property
    def score(self) -> float:
        arrives = max(self.motion, 0.8 * self.border)
        return float(np.clip(arrives * self.color * (0.5 + 0.5 * self.length), 0, 1))


@dataclass(frozen=True)
class _Parts:
    """Connected parts of a picture that may be hands.

    window: what was looked at (rows, columns), which holds all of them; labels: (h, w) of its
    pixels; numbers: those labels that are parts, from the first line down; areas: of all labels.
    """

    window: tuple[slice, slice]
    labels: np.ndarray
    numbers: np.ndarray
    areas: np.ndarray
    shape: tuple[int, int]

    def inside(self) -> np.ndarray:
        """(h, w) bool: the parts, in the window."""
        is_part = np.zeros(len(self.areas), bool)
        is_part[self.numbers] = True
        mask: np.ndarray = is_part[self.labels]
        return mask

    def whole(self) -> np.ndarray:
        """(H, W) bool: the parts."""
        mask = np.zeros(self.shape, bool)
        mask[self.window] = self.inside()
        return mask


class _Learning:
    """The frames of a clip that the colours of its hands are learnt from.

    shelf: where what is kept of each frame goes.
    """

    def __init__(
        self, images: Mapping[int, np.ndarray], changed: BitFrames, model: SkinModel, shelf: Shelf
    ) -> None:
        self.chosen = sorted(images)[::LEARN_EVERY]
        self.changed = changed
        self.wanted = BitFrames()
        self._shelf = shelf
        surely = model.prior > 0.4

        def look(frame: int) -> tuple[np.ndarray, np.ndarray]:
            bins = bins_of(images[frame])
            return bins, changed[frame] & looked_up(surely, bins)

        for frame, (bins, wanted) in zip(self.chosen, each(look, self.chosen), strict=True):
            self._shelf["bins", frame] = bins
            self.wanted[frame] = wanted

    def bins(self, frame: int) -> np.ndarray:
        return self._shelf["bins", frame]

    def near(self, frame: int) -> np.ndarray:
        """(H, W) bool: near what moves."""
        return cv2.dilate(self.changed[frame].view(np.uint8), np.ones((9, 9))) > 0


def learn_skin(
    images: Mapping[int, np.ndarray],
    changed: BitFrames,
    model: SkinModel,
    min_area: int,
    shelf: Shelf,
) -> float:
    """Fit the colour model to a clip in rounds: moving skin-like pixels, then the hands found.

    Returns the probability over which a pixel counts as hand.
    """
    seen = _Learning(images, changed, model, shelf)
    if not model.hand.any():
        for frame in seen.chosen:
            model.learn(seen.bins(frame), seen.wanted[frame], ~seen.near(frame))
    level = LEVELS[1]
    for _ in range(ROUNDS):
        table = model.table()
        level = _best_level(seen, model, table, min_area)
        fresh = SkinModel()

        def learn(frame: int, table: np.ndarray = table, level: float = level) -> tuple[Any, ...]:
            parts = likely_parts(model.probability(seen.bins(frame), table), level, min_area)
            found = parts.whole()
            hand = _supported(parts, seen.near(frame))
            grown = cv2.dilate(hand.view(np.uint8), np.ones((7, 7))) > 0
            return hand, ~grown & ~(changed[frame] & found)

        for frame, (hand, rest) in zip(seen.chosen, each(learn, seen.chosen), strict=True):
            fresh.learn(seen.bins(frame), hand, rest)
        if fresh.hand.sum() < 50:
            break
        model.hand, model.rest = fresh.hand, fresh.rest
    return level


def _best_level(seen: _Learning, model: SkinModel, table: np.ndarray, min_area: int) -> float:
    """The level whose parts agree best with what is seen to move (largest F measure)."""
    frames = [f for f in seen.chosen[::2] if seen.wanted[f].any()]
    if not frames:
        return LEVELS[1]

    def areas(frame: int) -> np.ndarray:
        """(3, levels): of what moves, of the parts, of both."""
        probability = model.probability(seen.bins(frame), table)
        wanted = seen.wanted[frame]
        moved = int(np.count_nonzero(wanted))
        found = []
        for level in LEVELS:
            parts = likely_parts(probability, level, min_area)
            both = int(np.count_nonzero(parts.inside() & wanted[parts.window]))
            found.append((moved, int(parts.areas[parts.numbers].sum()), both))
        return np.array(found, np.int64).T

    moved, area, both = sum(each(areas, frames), np.zeros((3, len(LEVELS)), np.int64))
    return LEVELS[int(np.argmax(2 * both / np.maximum(1, area + moved)))]


def likely_parts(probability: np.ndarray, level: float, min_area: int) -> _Parts:
    """Parts of likely pixels that hold a surer core (hysteresis, Canny 1986).

    Opened, closed, small parts gone.
    """
    likely = probability > level
    shape = (likely.shape[0], likely.shape[1])
    edges = edges_of(likely)
    if edges is None:
        nothing = (slice(0, 0), slice(0, 0))
        none = np.zeros(0, np.int64)
        return _Parts(nothing, np.zeros((0, 0), np.int32), none, np.zeros(1, np.int64), shape)
    # So much wider that the edge of the window is of no effect on what is in it.
    left, top, right, bottom = edges
    rows = slice(max(0, top - _MARGIN), min(shape[0], bottom + _MARGIN))
    columns = slice(max(0, left - _MARGIN), min(shape[1], right + _MARGIN))
    small: np.ndarray = np.ascontiguousarray(likely[rows, columns]).view(np.uint8)
    small = cv2.morphologyEx(small, cv2.MORPH_OPEN, np.ones((3, 3)))
    small = cv2.morphologyEx(small, cv2.MORPH_CLOSE, np.ones((5, 5)))
    count, labels = cv2.connectedComponents(small, connectivity=4)
    areas = np.bincount(labels.ravel(), minlength=count)
    sure = probability[rows, columns] > max(0.45, level + 0.3 * (1 - level))
    cores = np.bincount(labels[sure], minlength=count)
    is_part = (areas >= min_area) & (cores >= 0.25 * areas)
    is_part[0] = False
    return _Parts((rows, columns), labels, np.flatnonzero(is_part), areas, shape)


def _supported(parts: _Parts, near_motion: np.ndarray) -> np.ndarray:
    """(H, W) bool: the parts of which a fair share lies where something moves."""
    moved = np.bincount(parts.labels[near_motion[parts.window]], minlength=len(parts.areas))
    numbers = parts.numbers[moved[parts.numbers] > 0.25 * parts.areas[parts.numbers]]
    return replace(parts, numbers=numbers).whole()


def hand_candidates(
    probability: np.ndarray, level: float, min_area: int
) -> list[tuple[Patch, float]]:
    """The parts that may be hands, the largest first, and how surely each is one."""
    parts = likely_parts(probability, level, min_area)
    likely = probability[parts.window]
    at = (parts.window[1].start, parts.window[0].start)
    order = sorted(parts.numbers.tolist(), key=lambda i: -parts.areas[i])
    found = []
    for number in order[: 2 * MAX_HANDS]:
        if parts.areas[number] < 0.5 * probability.size:
            pixels = parts.labels == number
            found.append((Patch.of(pixels, at, parts.shape), float(likely[pixels].mean())))
    return found


def evidence_of(
    track: MaskTrack, moving: BitFrames, colors: dict[int, float], frames: int
) -> HandEvidence:
    """Sum up a track: how much of it moves, touches the border, has the colour of hands."""
    shares, borders = [], []
    for frame, mask in track.masks.items():
        window = mask.window(2)
        near = cv2.dilate(moving[frame][window].astype(np.uint8), np.ones((5, 5))) > 0
        shares.append(float((mask.within(window) & near).sum()) / float(mask.area))
        borders.append(touches_border(mask))
    active = np.sort(shares)[-max(1, len(shares) // 3) :]
    return HandEvidence(
        motion=float(np.clip(np.mean(active) / 0.4, 0, 1)),
        border=float(np.mean(borders)),
        color=float(np.mean([colors[f] for f in track.masks])),
        length=float(min(1.0, len(track.masks) / max(1.0, 0.2 * frames))),
    )


def leave_two(tracks: list[MaskTrack], scores: dict[int, float]) -> list[MaskTrack]:
    """The tracks without the frames in which two stronger ones are seen: people have two hands.

    A track that loses most of its frames goes.
    """

    def strength(track: MaskTrack) -> float:
        return scores[track.key] * float(sum(np.sqrt(m.area) for m in track.masks.values()))

    taken: dict[int, int] = {}
    kept = []
    for track in sorted(tracks, key=strength, reverse=True):
        free = {f: m for f, m in track.masks.items() if taken.get(f, 0) < 2}
        if len(free) < 0.5 * len(track.masks):
            continue
        for frame in free:
            taken[frame] = taken.get(frame, 0) + 1
        kept.append(replace(track, masks=free))
    return sorted(kept, key=lambda t: t.key)


def is_wearers(track: MaskTrack) -> bool:
    """Whether the hand reaches into the picture from below, as the camera wearer's do."""
    low = [m.bottom > int(0.55 * m.shape[0]) for m in track.masks.values()]
    return float(np.mean(low)) > 0.5


def touches_border(mask: Patch) -> bool:
    """Whether the mask reaches the left, right or lower border."""
    height, width = mask.shape
    return mask.bottom > height - 2 or mask.left < 2 or mask.right > width - 2


def entry_x(mask: np.ndarray | Patch) -> float:
    """Where the arm behind a hand enters the picture, as a share of the width (may be outside).

    The long axis of the mask is followed down to the lower border.
    """
    rows, columns = mask.points() if isinstance(mask, Patch) else np.nonzero(mask)
    height, width = mask.shape
    points = np.column_stack([columns, rows]).astype(np.float64)
    middle = points.mean(axis=0)
    spread = (points - middle).T @ (points - middle) / len(points)
    _, vectors = np.linalg.eigh(spread + np.eye(2) * 1e-6)
    axis = vectors[:, 1]
    if abs(axis[1]) < 0.25:  # lies across: the side it lies on decides
        lowest = points[points[:, 1] >= np.percentile(points[:, 1], 90)]
        return float(lowest[:, 0].mean() / width)
    x = middle[0] + axis[0] / axis[1] * (height - middle[1])
    return float(np.clip(x / width, -0.5, 1.5))


def sides_of(tracks: list[MaskTrack]) -> dict[int, str]:
    """left or right of each track, from where its arm enters; two at a time are told apart."""
    votes = {t.key: [entry_x(m) for m in list(t.masks.values())[::3]] for t in tracks}
    entries = {key: float(np.median(v)) for key, v in votes.items()}
    sides = {key: "left" if x < 0.5 else "right" for key, x in entries.items()}
    for one in tracks:
        for other in tracks:
            together = set(one.masks) & set(other.masks)
            if one.key < other.key and len(together) > 3 and sides[one.key] == sides[other.key]:
                first, second = sorted((one, other), key=lambda t: entries[t.key])
                if abs(entries[one.key] - entries[other.key]) < 0.05:
                    frames = sorted(together)[::3]
                    mean = {
                        t.key: np.mean([centre(t.masks[f])[0] for f in frames])
                        for t in (one, other)
                    }
                    first, second = sorted((one, other), key=lambda t: mean[t.key])
                sides[first.key], sides[second.key] = "left", "right"
    return sides


def track_hands(
    candidates: dict[int, list[Patch]], max_gap: int, tracker: MaskTracker | None = None
) -> MaskTracker:
    """Join the candidates of every frame to tracks."""
    tracker = tracker or MaskTracker(max_gap)
    for frame in sorted(candidates):
        tracker.step(frame, candidates[frame])
    return tracker
