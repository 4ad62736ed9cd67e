"""Hand masks of a clip: adapted colour, motion, and the arm that comes in from the border.

Here: pixels to hands, hands to tracks with a side. Not here: objects, rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from ego_assets.operators.skin import SkinModel, bins_of
from ego_assets.operators.tracking import MaskTrack, MaskTracker, centre

LEARN_EVERY = 4
ROUNDS = 3
MAX_HANDS = 4
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


def learn_skin(
    images: list[np.ndarray], changed: list[np.ndarray], model: SkinModel, min_area: int
) -> float:
    """Fit the colour model to a clip in rounds: moving skin-like pixels, then the hands found.

    Returns the probability over which a pixel counts as hand.
    """
    chosen = range(0, len(images), LEARN_EVERY)
    bins = {i: bins_of(images[i]) for i in chosen}
    wanted = {i: changed[i] & (model.prior[bins[i]] > 0.4) for i in chosen}
    if not model.hand.any():
        for i in chosen:
            near = cv2.dilate(changed[i].astype(np.uint8), np.ones((9, 9))) > 0
            model.learn(bins[i], wanted[i], ~near)
    level = LEVELS[1]
    for _ in range(ROUNDS):
        table = model.table()
        seen = {i: model.probability(bins[i], table) for i in chosen}
        level = best_level(seen, wanted, min_area)
        fresh = SkinModel()
        for i in chosen:
            near = cv2.dilate(changed[i].astype(np.uint8), np.ones((9, 9))) > 0
            found = likely_parts(seen[i], level, min_area)
            hand = _supported(found, near)
            grown = cv2.dilate(hand.astype(np.uint8), np.ones((7, 7))) > 0
            fresh.learn(bins[i], hand, ~grown & ~(changed[i] & found))
        if fresh.hand.sum() < 50:
            break
        model.hand, model.rest = fresh.hand, fresh.rest
    return level


def best_level(
    probabilities: dict[int, np.ndarray], wanted: dict[int, np.ndarray], min_area: int
) -> float:
    """The level whose parts agree best with what is seen to move (largest F measure)."""
    frames = [i for i in list(probabilities)[::2] if wanted[i].any()]
    if not frames:
        return LEVELS[1]
    moved = sum(int(wanted[i].sum()) for i in frames)
    scores = []
    for level in LEVELS:
        parts = {i: likely_parts(probabilities[i], level, min_area) for i in frames}
        both = sum(int((parts[i] & wanted[i]).sum()) for i in frames)
        area = sum(int(parts[i].sum()) for i in frames)
        scores.append(2 * both / max(1, area + moved))
    return LEVELS[int(np.argmax(scores))]


def likely_parts(probability: np.ndarray, level: float, min_area: int) -> np.ndarray:
    """(H, W) bool: parts of likely pixels that hold a surer core (hysteresis, Canny 1986)."""
    mask = clean_mask(probability > level, min_area)
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    sure = probability > max(0.45, level + 0.3 * (1 - level))
    cores = np.bincount(labels[sure], minlength=count)
    keep = cores >= 0.25 * np.bincount(labels.ravel(), minlength=count)
    keep[0] = False
    return keep[labels]


def clean_mask(mask: np.ndarray, min_area: int) -> np.ndarray:
    """Opened, closed, small parts and small holes gone."""
    small: np.ndarray = mask.astype(np.uint8)
    small = cv2.morphologyEx(small, cv2.MORPH_OPEN, np.ones((3, 3)))
    small = cv2.morphologyEx(small, cv2.MORPH_CLOSE, np.ones((5, 5)))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(small, connectivity=4)
    keep = [i for i in range(1, count) if stats[i, cv2.CC_STAT_AREA] >= min_area]
    return np.isin(labels, keep)


def _supported(mask: np.ndarray, near_motion: np.ndarray) -> np.ndarray:
    """Parts of which a fair share lies where something moves."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    if count < 2:
        return mask
    areas = np.bincount(labels.ravel(), minlength=count)
    moved = np.bincount(labels[near_motion], minlength=count)
    keep = moved > 0.25 * areas
    keep[0] = False
    return keep[labels]


def hand_candidates(probability: np.ndarray, level: float, min_area: int) -> list[np.ndarray]:
    """(H, W) bool masks of the parts that may be hands, the largest first."""
    mask = likely_parts(probability, level, min_area)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), connectivity=4
    )
    order = sorted(range(1, count), key=lambda i: -stats[i, cv2.CC_STAT_AREA])
    limit = 0.5 * mask.size
    return [labels == i for i in order[: 2 * MAX_HANDS] if stats[i, cv2.CC_STAT_AREA] < limit]


def evidence_of(
    track: MaskTrack, moving: dict[int, np.ndarray], colors: dict[int, float], frames: int
) -> HandEvidence:
    """Sum up a track: how much of it moves, touches the border, has the colour of hands."""
    shares, borders = [], []
    for frame, mask in track.masks.items():
        near = cv2.dilate(moving[frame].astype(np.uint8), np.ones((5, 5))) > 0
        shares.append(float((mask & near).sum()) / float(mask.sum()))
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
        return scores[track.key] * float(sum(np.sqrt(m.sum()) for m in track.masks.values()))

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
    low = [m[int(0.55 * m.shape[0]) :].any() for m in track.masks.values()]
    return float(np.mean(low)) > 0.5


def touches_border(mask: np.ndarray) -> bool:
    """Whether the mask reaches the left, right or lower border."""
    return bool(mask[-2:].any() or mask[:, :2].any() or mask[:, -2:].any())


def entry_x(mask: np.ndarray) -> float:
    """Where the arm behind a hand enters the picture, as a share of the width (may be outside).

    The long axis of the mask is followed down to the lower border.
    """
    rows, columns = np.nonzero(mask)
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
    candidates: dict[int, list[np.ndarray]], max_gap: int, tracker: MaskTracker | None = None
) -> MaskTracker:
    """Join the candidates of every frame to tracks."""
    tracker = tracker or MaskTracker(max_gap)
    for frame in sorted(candidates):
        tracker.step(frame, candidates[frame])
    return tracker
