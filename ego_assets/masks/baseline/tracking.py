"""Tracks of masks through frames: assignment by overlap, gaps tolerated.

Here: which mask is which thing over time. Not here: how masks are found.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from ego_assets.vision.patches import Patch


@dataclass
class MaskTrack:
    """Masks at work size by frame index."""

    key: int
    masks: dict[int, Patch] = field(default_factory=dict)
    last_frame: int = -1

    @property
    def last(self) -> Patch:
        return self.masks[self.last_frame]

    def add(self, frame: int, mask: Patch) -> None:
        self.masks[frame] = mask
        self.last_frame = frame


class MaskTracker:
    """Joins the masks of each frame to tracks: most overlap in all (Kuhn 1955)."""

    def __init__(self, max_gap: int, first_key: int = 0) -> None:
        self.max_gap = max_gap
        self.tracks: list[MaskTrack] = []
        self.next_key = first_key

    def alive(self, frame: int) -> list[MaskTrack]:
        return [t for t in self.tracks if frame - t.last_frame <= self.max_gap]

    def step(self, frame: int, masks: list[Patch]) -> None:
        """Enter the masks of a frame; those that fit no track begin one."""
        alive = self.alive(frame)
        masks = split_merged(masks, [t.last for t in alive if t.last_frame == frame - 1])
        pairs = match(alive, masks)
        for row, column in pairs:
            alive[row].add(frame, masks[column])
        taken = {column for _, column in pairs}
        for column, mask in enumerate(masks):
            if column not in taken:
                track = MaskTrack(self.next_key)
                track.add(frame, mask)
                self.tracks.append(track)
                self.next_key += 1


def match(tracks: list[MaskTrack], masks: list[Patch]) -> list[tuple[int, int]]:
    """Pairs (track, mask) that overlap or lie close, the best in all."""
    from scipy.optimize import linear_sum_assignment

    if not tracks or not masks:
        return []
    score = np.array([[_closeness(t.last, m) for m in masks] for t in tracks])

    rows, columns = linear_sum_assignment(-score)
    return [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if score[r, c] > 0.05]


def _closeness(one: Patch, other: Patch) -> float:
    overlap = one.iou(other)
    if overlap > 0:
        return 0.3 + overlap
    distance = float(np.linalg.norm(centre(one) - centre(other)))
    reach = 0.6 * float(np.sqrt(max(one.area, other.area)))
    return max(0.0, 0.3 * (1 - distance / max(reach, 1.0)))


def centre(mask: Patch) -> np.ndarray:
    """(x, y) mean of a non-empty mask."""
    rows, columns = mask.points()
    return np.array([columns.mean(), rows.mean()])


def split_merged(masks: list[Patch], before: list[Patch]) -> list[Patch]:
    """Cut a mask that covers two masks of the frame before: each pixel goes to the nearer one."""
    found: list[Patch] = []
    for mask in masks:
        parents = [b for b in before if b.overlap(mask) > 0.35 * b.area]
        if len(parents) < 2:
            found.append(mask)
            continue
        distances = np.stack(
            [cv2.distanceTransform((~p.whole()).view(np.uint8), cv2.DIST_L2, 3) for p in parents]
        )
        owner = distances.argmin(axis=0)
        pixels = mask.whole()
        for number in range(len(parents)):
            part = Patch.of(pixels & (owner == number))
            if part.area:
                found.append(part)
    return found
