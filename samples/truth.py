"""The exact ground truth of a sample video: what is kept, how it is stored and read."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

HANDS = 100
"""Pixel identities: 0 background, 1 + o object o, HANDS + side a hand, HANDS + 2 a sleeve,
FOREARMS + side the bare forearm between the two."""
FOREARMS = HANDS + 3


@dataclass(frozen=True)
class Truth:
    """F frames, O objects, sides 0 left and 1 right. Metres, OpenCV camera frame, pixels.

    cuts: first frame of each scene but the first; every scene has a world of its own.
    world_from_camera (F, 4, 4); world_from_object (F, O, 4, 4), NaN where the object is not in the
    scene; object_visible (F, O); hand_visible (F, 2): at least 0.2 % of the picture shows it.
    joints_camera_m (F, 2, 21, 3), joints_px (F, 2, 21, 2): MANO order. contacts (F, 2, O).
    contact_onsets_s: when something is touched or put down; the audio has a sound then.
    A hand's mask is its visible skin up to the wrist; the forearm and the sleeve are no part of it.
    """

    fps: float
    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    frame_count: int
    pts_s: np.ndarray
    cuts: list[int]
    world_from_camera: np.ndarray
    object_names: list[str]
    world_from_object: np.ndarray
    object_visible: np.ndarray
    hand_visible: np.ndarray
    joints_camera_m: np.ndarray
    joints_px: np.ndarray
    contacts: np.ndarray
    contact_onsets_s: list[float]
    run_starts: np.ndarray
    run_values: np.ndarray
    run_frames: np.ndarray

    def identities(self, frame: int) -> np.ndarray:
        """(H, W) uint8 of what each pixel shows."""
        first, last = self.run_frames[frame], self.run_frames[frame + 1]
        starts = self.run_starts[first:last]
        lengths = np.diff(np.r_[starts, self.width * self.height])
        flat = np.repeat(self.run_values[first:last], lengths)
        return flat.reshape(self.height, self.width)

    def object_mask(self, frame: int, index: int) -> np.ndarray:
        """(H, W) bool of an object's visible pixels."""
        mask: np.ndarray = self.identities(frame) == 1 + index
        return mask

    def hand_mask(self, frame: int, side: int) -> np.ndarray:
        """(H, W) bool of a hand's visible skin, up to the wrist."""
        mask: np.ndarray = self.identities(frame) == HANDS + side
        return mask

    def forearm_mask(self, frame: int, side: int) -> np.ndarray:
        """(H, W) bool of the visible skin between wrist and sleeve."""
        mask: np.ndarray = self.identities(frame) == FOREARMS + side
        return mask


def runs_of(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(starts, values) of the runs of equal pixels, row by row."""
    flat = ids.ravel()
    starts = np.r_[0, np.flatnonzero(flat[1:] != flat[:-1]) + 1]
    return starts.astype(np.int32), flat[starts]


def truth_path(video: Path) -> Path:
    return video.parent / "truth" / f"{video.stem}.npz"


def save_truth(video: Path, truth: Truth) -> None:
    """Store beside the video as an npz without pickles."""
    path = truth_path(video)
    path.parent.mkdir(parents=True, exist_ok=True)
    values = {f.name: np.asarray(getattr(truth, f.name)) for f in fields(Truth)}
    np.savez_compressed(path, allow_pickle=False, **values)


def load_truth(video: Path) -> Truth:
    """Truth of a rendered video. Raises FileNotFoundError."""
    with np.load(truth_path(Path(video)), allow_pickle=False) as stored:
        values = {name: stored[name] for name in stored.files}
    plain = {name: value.item() if value.ndim == 0 else value for name, value in values.items()}
    for name in ("cuts", "object_names", "contact_onsets_s"):
        plain[name] = values[name].tolist()
    return Truth(**plain)
