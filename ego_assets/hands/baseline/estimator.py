"""The hand estimator that needs no weights: an anatomical hand fitted to each mask.

Here: tracks through a clip, smoothing, rows. Not here: the hand itself (`hand_skeleton`), the
fit to one mask (`hand_fit`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from ego_assets.hands.baseline import fit as hand_fit
from ego_assets.hands.baseline.fit import HandView, view_of
from ego_assets.hands.baseline.solver import FitProblem, fit, joints_of
from ego_assets.hands.settings import HandPoseSettings
from ego_assets.hands.skeleton import HAND_LENGTH_M, SIZE, placed_columns
from ego_assets.operator import Carried, ClipInput, ClipOutput, Intrinsics
from ego_assets.vision.cameras import undistortion
from ego_assets.vision.rle import MaskCrop, decode_crop, edges_of
from ego_assets.vision.threads import each

GOOD_RMS = 0.10
BAD_RMS = 0.30
_TILE = 32


@dataclass(frozen=True)
class _Hand:
    """A hand in one frame."""

    track: str
    side: str
    view: HandView


@dataclass(frozen=True)
class _Fit:
    """What came of one mask. is_seen: it is not too small; else the parameters are those before,
    if there are any."""

    is_seen: bool
    parameters: np.ndarray | None
    error: float


class BaselineHandEstimator:
    """`hand_masks` → `hand_poses`: metric, since a hand's length is known within a tenth."""

    name = "baseline"
    version = "1"
    quality_tier = "baseline"
    weights_hash = ""

    def __init__(self, settings: HandPoseSettings) -> None:
        self.settings = settings
        self._scale = settings.hand_length_m / HAND_LENGTH_M

    def process(self, clip: ClipInput, carried: Carried | None) -> ClipOutput:
        """One row per mask row; bone lengths are the same for all rows."""
        tracks: dict[str, list[dict[str, Any]]] = {}
        for row in clip.tables["hand_masks"].to_pylist():
            tracks.setdefault(row["track_id"], []).append(row)
        for mine in tracks.values():
            mine.sort(key=lambda r: r["frame_index"])
        known = {k: np.array(v) for k, v in (carried or {}).get("tracks", {}).items()}
        followed = self._follow(clip, tracks, known)
        rows: list[dict[str, Any]] = []
        for track, mine in sorted(tracks.items()):
            rows.extend(self._rows(clip, mine, followed[track]))
        rows.sort(key=lambda r: (r["frame_index"], r["track_id"]))
        last = {track: found[-1].parameters for track, found in sorted(followed.items())}
        state = {track: found.tolist() for track, found in last.items() if found is not None}
        return ClipOutput({"hand_poses": rows}, carried={"tracks": state})

    def _follow(
        self,
        clip: ClipInput,
        tracks: Mapping[str, list[dict[str, Any]]],
        known: Mapping[str, np.ndarray],
    ) -> dict[str, list[_Fit]]:
        """The fits of each track, in the order of its masks; `known`: those of the clip before.

        A fit begins with the one of the frame before, so frames come in order, and the hands of
        each together.
        """
        lens = _Lens(clip.intrinsics, clip.frames.width, clip.frames.height)
        matrix = clip.intrinsics.matrix()
        frames: dict[int, list[dict[str, Any]]] = {}
        for row in (r for _, mine in sorted(tracks.items()) for r in mine):
            frames.setdefault(row["frame_index"], []).append(row)

        def look(frame: int) -> list[HandView | None]:
            return [view_of(lens.mask(r), matrix, r["is_wearer"]) for r in frames[frame]]

        found: dict[str, list[_Fit]] = {track: [] for track in tracks}
        before = dict(known)
        order = sorted(frames)
        for frame, views in zip(order, each(look, order), strict=True):
            hands = [
                _Hand(row["track_id"], tracks[row["track_id"]][0]["side"], view)
                for row, view in zip(frames[frame], views, strict=True)
                if view is not None
            ]
            fits = self._fit(hands, before)
            for row, view in zip(frames[frame], views, strict=True):
                track = row["track_id"]
                if view is None:
                    one = _Fit(False, before.get(track), np.inf)
                else:
                    before[track], error = fits[track]
                    one = _Fit(True, before[track], error)
                found[track].append(one)
        return found

    def _fit(
        self, hands: Sequence[_Hand], before: Mapping[str, np.ndarray]
    ) -> dict[str, tuple[np.ndarray, float]]:
        """Fit each track from the frame before, or from the start where that does not fit:
        {track: parameters, error}."""
        scale, rounds = self._scale, self.settings.rounds
        best: dict[str, tuple[np.ndarray, float]] = {}
        going = [hand for hand in hands if hand.track in before]
        problems = []
        for hand in going:
            last = before[hand.track]
            moved = last.copy()
            moved[3:5] = 0.5 * moved[3:5] + 0.5 * hand.view.wrist
            problems.append(FitProblem(hand.view, hand.side, np.stack([last, moved]), last))
        for hand, found in zip(going, fit(problems, scale, rounds), strict=True):
            for parameters, error in zip(*found, strict=True):
                if error < best.get(hand.track, (None, np.inf))[1]:
                    best[hand.track] = (parameters, float(error))
        lost = [h for h in hands if best.get(h.track, (None, np.inf))[1] > GOOD_RMS * 1.5]
        problems = [
            FitProblem(h.view, h.side, np.stack(hand_fit.first_guesses(h.view, h.side, scale)))
            for h in lost
        ]
        for hand, found in zip(lost, fit(problems, scale, rounds), strict=True):
            for parameters, error in zip(*found, strict=True):
                if error < 0.8 * best.get(hand.track, (None, np.inf))[1]:
                    best[hand.track] = (parameters, float(error))
        return best

    def _rows(
        self, clip: ClipInput, masks: list[dict[str, Any]], fits: list[_Fit]
    ) -> list[dict[str, Any]]:
        """The rows of a track."""
        first = next((f.parameters for f in fits if f.parameters is not None), None)
        if first is None:
            return [self._unseen(clip, row) for row in masks]
        whole = np.stack([f.parameters if f.parameters is not None else first for f in fits])
        calm = smoothed(whole, self.settings.smoothing_frames)
        joints = joints_of(calm, masks[0]["side"], self._scale)
        return [
            self._row(clip, row, joint, one.error, one.is_seen)
            for row, joint, one in zip(masks, joints, fits, strict=True)
        ]

    def _row(
        self,
        clip: ClipInput,
        mask: dict[str, Any],
        joints: np.ndarray,
        error: float,
        is_seen: bool,
    ) -> dict[str, Any]:
        reason = None
        if not is_seen:
            reason = "the mask is too small"
        elif error > BAD_RMS:
            reason = f"the hand model does not fit the mask (residual {error:.2f} palm radii)"
        elif not 0.08 < joints[0, 2] < 3.0:
            reason = f"implausible distance of {joints[0, 2]:.2f} m"
        quality = float(np.clip(1 - error / BAD_RMS, 0, 1)) if np.isfinite(error) else 0.0
        joints = np.where(joints[:, 2:] < 0.02, joints + np.array([0, 0, 0.05]), joints)
        return clip.row(mask["frame_index"], mask["pts_s"]) | {
            "track_id": mask["track_id"],
            "side": mask["side"],
            "is_valid": reason is None,
            "invalid_reason": reason,
            "is_wearer": mask["is_wearer"],
            "joints_px": project(joints, clip.intrinsics).tolist(),
            **placed_columns(joints, mask["side"]),
            "mano_pose": None,
            "mano_betas": None,
            "box": mask["box"],
            "score": float(mask["score"]) * quality,
            "backend": self.name,
            "quality_tier": self.quality_tier,
        }

    def _unseen(self, clip: ClipInput, mask: dict[str, Any]) -> dict[str, Any]:
        """A row for a mask that shows no hand's shape: an open hand at the mask's centre."""
        x0, y0, x1, y1 = mask["box"]
        centre = np.array([[[(x0 + x1) / 2, (y0 + y1) / 2]]], np.float64)
        flat = normalised(centre, clip.intrinsics)[0, 0]
        guess = np.zeros((1, SIZE))
        guess[0, :3] = [np.pi, 0, 0]
        guess[0, 3:6] = [flat[0], flat[1], np.log(0.5)]
        joints = joints_of(guess, mask["side"], self._scale)[0]
        return self._row(clip, mask, joints, np.inf, False)


def smoothed(values: np.ndarray, frames: float) -> np.ndarray:
    """(N, SIZE) parameters with jitter taken out (Gaussian over time; rotations as quaternions)."""
    from scipy.ndimage import gaussian_filter1d
    from scipy.spatial.transform import Rotation

    if len(values) < 3 or frames <= 0:
        return values
    result: np.ndarray = gaussian_filter1d(values, frames, axis=0, mode="nearest")
    quaternions = Rotation.from_rotvec(values[:, :3]).as_quat()
    flips = np.cumprod(np.r_[1, np.where((quaternions[1:] * quaternions[:-1]).sum(1) < 0, -1, 1)])
    even = gaussian_filter1d(quaternions * flips[:, None], frames, axis=0, mode="nearest")
    result[:, :3] = Rotation.from_quat(even).as_rotvec()
    return result


class _Lens:
    """Masks as a pinhole camera of the same matrix would see them."""

    def __init__(self, intrinsics: Intrinsics, width: int, height: int) -> None:
        self.maps = undistortion(intrinsics, intrinsics.matrix(), (width, height))
        if self.maps is not None:
            self._bounds = [_tile_bounds(places) for places in self.maps]

    def mask(self, row: dict[str, Any]) -> MaskCrop:
        """The mask of a row."""
        crop = decode_crop(row["rle"], row["height_px"], row["width_px"])
        if self.maps is None or not crop.pixels.size:
            return crop
        nothing = MaskCrop(np.zeros((0, 0), bool), 0, 0, crop.shape)
        # Only the tiles that show some of the mask are looked at.
        height, width = crop.pixels.shape
        (low_x, high_x), (low_y, high_y) = self._bounds
        shown = (high_x > crop.left - 1) & (low_x < crop.left + width)
        shown &= (high_y > crop.top - 1) & (low_y < crop.top + height)
        edges = edges_of(shown)
        if edges is None:
            return nothing
        left, top, right, bottom = (_TILE * edge for edge in edges)
        x, y = (places[top:bottom, left:right] for places in self.maps)
        # OpenCV rounds halves to the even pixel: which one that is must stay.
        odd_y, odd_x = crop.top % 2, crop.left % 2
        pixels = np.pad(crop.pixels.view(np.uint8), ((odd_y, 0), (odd_x, 0)))
        x0, y0 = crop.left - odd_x, crop.top - odd_y
        seen = cv2.remap(pixels, x - x0, y - y0, cv2.INTER_NEAREST)
        tight = MaskCrop.of(seen > 0)
        if not tight.pixels.size:
            return nothing
        return MaskCrop(tight.pixels, tight.left + left, tight.top + top, crop.shape)


def _tile_bounds(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest value of each tile of a map."""
    rows, columns = (range(0, n, _TILE) for n in places.shape)
    low = np.minimum.reduceat(np.minimum.reduceat(places, rows, axis=0), columns, axis=1)
    high = np.maximum.reduceat(np.maximum.reduceat(places, rows, axis=0), columns, axis=1)
    return low, high


def normalised(points_px: np.ndarray, intrinsics: Intrinsics) -> np.ndarray:
    """(N, 1, 2) x / z, y / z of pixels."""
    matrix, distortion = intrinsics.matrix(), np.array(intrinsics.distortion)
    if intrinsics.model == "OPENCV_FISHEYE":
        return cv2.fisheye.undistortPoints(points_px, matrix, distortion)
    return cv2.undistortPoints(points_px, matrix, distortion if distortion.size else None)


def project(points_camera: np.ndarray, intrinsics: Intrinsics) -> np.ndarray:
    """(N, 2) pixels of (N, 3) points in the camera."""
    matrix, distortion = intrinsics.matrix(), np.array(intrinsics.distortion)
    points = np.ascontiguousarray(points_camera, np.float64)[:, None]
    zero = np.zeros(3)
    if intrinsics.model == "OPENCV_FISHEYE":
        pixels, _ = cv2.fisheye.projectPoints(points, zero, zero, matrix, distortion)
    else:
        pixels, _ = cv2.projectPoints(
            points, zero, zero, matrix, distortion if distortion.size else None
        )
    return pixels.reshape(-1, 2)
