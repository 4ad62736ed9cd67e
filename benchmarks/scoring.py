"""Metrics: what an operator found against what is true.

Here: pure functions of numpy arrays, and accumulators of masks that keep only counts. Not here:
running operators, reading truth, tables, floors.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from ego_assets.vision.geometry import mean_rotation, rotation_angle_deg, umeyama


@dataclass(frozen=True)
class DetectionScore:
    """Counts of a matching: hits, false alarms, misses."""

    hits: int
    false_alarms: int
    misses: int

    @property
    def precision(self) -> float:
        found = self.hits + self.false_alarms
        return self.hits / found if found else 1.0

    @property
    def recall(self) -> float:
        true = self.hits + self.misses
        return self.hits / true if true else 1.0

    @property
    def f1(self) -> float:
        total = 2 * self.hits + self.false_alarms + self.misses
        return 2 * self.hits / total if total else 1.0

    def __add__(self, other: DetectionScore) -> DetectionScore:
        return DetectionScore(
            self.hits + other.hits,
            self.false_alarms + other.false_alarms,
            self.misses + other.misses,
        )


def score_cuts(found: Sequence[int], true: Sequence[int], tolerance: int = 1) -> DetectionScore:
    """Cuts (first frames of scenes) matched one to one within `tolerance` frames."""
    return score_intervals(found, [(t - tolerance, t + tolerance) for t in true])


def score_intervals(found: Sequence[int], true: Sequence[tuple[int, int]]) -> DetectionScore:
    """Cuts matched one to one to intervals (both ends inclusive): gradual changes."""
    left = sorted(found)
    hits = 0
    # Earliest end first with the earliest point that fits is an optimal matching.
    for low, high in sorted(true, key=lambda interval: interval[1]):
        fits = next((f for f in left if low <= f <= high), None)
        if fits is not None:
            left.remove(fits)
            hits += 1
    return DetectionScore(hits, len(left), len(true) - hits)


@dataclass
class MaskScorer:
    """Masks of one take, frame by frame: IoU under the best assignment, and identity switches.

    Each true object gets one track for the whole take, by Hungarian assignment on the summed
    IoU; a visible frame without that track counts 0. A switch is a frame in which the track
    that covers an object best (one to one, IoU of at least `match_iou`) is another than the
    last one that did (CLEAR MOT, Bernardin and Stiefelhagen 2008).
    """

    match_iou: float = 0.3
    visible: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    total_iou: dict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))
    switches: int = 0
    unmatched: int = 0
    _last: dict[str, str] = field(default_factory=dict)

    def add(self, true: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> None:
        """One frame: (H, W) bool masks by object and by track; empty true masks are skipped."""
        names = [n for n in sorted(true) if true[n].any()]
        tracks = sorted(found)
        iou = np.array([[_iou(true[n], found[t]) for t in tracks] for n in names])
        iou = iou.reshape(len(names), len(tracks))
        for i, name in enumerate(names):
            self.visible[name] += 1
            for k, track in enumerate(tracks):
                if iou[i, k] > 0:
                    self.total_iou[name, track] += float(iou[i, k])
        rows, columns = linear_sum_assignment(-iou)
        matched: dict[int, int] = {
            int(i): int(k) for i, k in zip(rows, columns, strict=True) if iou[i, k] > self.match_iou
        }
        self.unmatched += len(tracks) - len(matched)
        for i, k in matched.items():
            before = self._last.get(names[i])
            self.switches += before is not None and before != tracks[k]
            self._last[names[i]] = tracks[k]

    def assignment(self) -> dict[str, str]:
        """Track of each object that has one."""
        names = sorted(self.visible)
        tracks = sorted({t for _, t in self.total_iou})
        total = np.array([[self.total_iou.get((n, t), 0.0) for t in tracks] for n in names])
        total = total.reshape(len(names), len(tracks))
        rows, columns = linear_sum_assignment(-total)
        pairs = zip(rows, columns, strict=True)
        return {names[i]: tracks[k] for i, k in pairs if total[i, k] > 0}

    def object_iou(self) -> dict[str, float]:
        """Mean IoU over the visible frames of each object."""
        tracks = self.assignment()
        return {
            n: self.total_iou.get((n, tracks[n]), 0.0) / count if n in tracks else 0.0
            for n, count in sorted(self.visible.items())
        }

    def mean_iou(self) -> float:
        """Mean IoU over all visible (object, frame) pairs; nan if there are none."""
        total = sum(self.visible.values())
        by_object = self.object_iou()
        return sum(by_object[n] * c for n, c in self.visible.items()) / total if total else np.nan


def _iou(one: np.ndarray, other: np.ndarray) -> float:
    union = np.count_nonzero(one | other)
    return float(np.count_nonzero(one & other) / union) if union else 0.0


@dataclass(frozen=True)
class CameraScore:
    """Camera path against the truth; position is a share of the true path's length.

    rotation_deg uses the similarity's rotation; own_rotation_deg the best common rotation,
    which a straight path (whose similarity leaves a turn open) does not spoil.
    """

    position_share: float
    rotation_deg: float
    own_rotation_deg: float
    path_length: float
    scale: float


def score_cameras(
    found: np.ndarray, true: np.ndarray, path_length: float | None = None
) -> CameraScore:
    """world_from_camera (N, 4, 4) of equal frames, after Sim3 (Umeyama 1991) alignment.

    Position is the RMS distance over the true path's length (of `true`, unless given); rotation
    the mean angle. Raises ValueError for fewer than three poses.
    """
    if len(found) != len(true) or len(found) < 3:
        raise ValueError(f"score_cameras: {len(found)} and {len(true)} poses; three at least")
    centres, truth = found[:, :3, 3], true[:, :3, 3]
    scale, rotation, translation = umeyama(centres, truth)
    off = np.linalg.norm(scale * centres @ rotation.T + translation - truth, axis=1)
    length = path_length if path_length is not None else path_length_of(true)
    turns = found[:, :3, :3]
    own = mean_rotation(true[:, :3, :3] @ np.swapaxes(turns, 1, 2))
    return CameraScore(
        position_share=float(np.sqrt(np.mean(off**2)) / length) if length > 0 else np.inf,
        rotation_deg=float(rotation_angle_deg(rotation @ turns, true[:, :3, :3]).mean()),
        own_rotation_deg=float(rotation_angle_deg(own @ turns, true[:, :3, :3]).mean()),
        path_length=length,
        scale=scale,
    )


def path_length_of(poses: np.ndarray) -> float:
    """Length of the path of (N, 4, 4) poses' origins."""
    return float(np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1).sum())


def relative_rotation_errors_deg(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """(N,) error of the turn since the first pose, for rotations (N, 3, 3) in the camera.

    An object frame that is fixed at first sight has no true counterpart, but its turn
    R(t) R(0)^T in the camera does not depend on the choice of the object frame.
    """
    turned = found @ found[0].T
    return rotation_angle_deg(turned, true @ true[0].T)


def joint_errors(found_px: np.ndarray, true_px: np.ndarray) -> np.ndarray:
    """(N, J) distances over the hand box: the longer side of the true joints' box.

    found_px, true_px: (N, J, 2); true joints that are nan are left out (nan).
    """
    side = np.nanmax(
        np.nanmax(true_px, axis=1, keepdims=True) - np.nanmin(true_px, axis=1, keepdims=True),
        axis=2,
    )
    return np.linalg.norm(found_px - true_px, axis=2) / np.maximum(side, 1e-9)


def pck(errors: np.ndarray, threshold: float = 0.2) -> float:
    """Share of the joints whose error (a share of the hand box) is at most `threshold`."""
    known = errors[np.isfinite(errors)]
    return float(np.mean(known <= threshold)) if len(known) else float("nan")


def aligned_joint_error(found: np.ndarray, true: np.ndarray) -> float:
    """Mean joint distance after a similarity fit of (J, 3) to (J, 3): PA-MPJPE, true's unit."""
    scale, rotation, translation = umeyama(found, true)
    moved = scale * found @ rotation.T + translation
    return float(np.linalg.norm(moved - true, axis=1).mean())
