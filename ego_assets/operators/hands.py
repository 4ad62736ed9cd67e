"""The hand estimator that needs no weights: an anatomical hand fitted to each mask.

Here: tracks through a clip, smoothing, rows. Not here: the hand itself (`hand_skeleton`), the
fit to one mask (`hand_fit`).
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from ego_assets.config import HandPoseSettings
from ego_assets.operators import hand_fit
from ego_assets.operators.cameras import undistortion
from ego_assets.operators.geometry import quaternion_from_matrix
from ego_assets.operators.hand_fit import HandView
from ego_assets.operators.rle import decode_mask
from ego_assets.protocols import Carried, ClipInput, ClipOutput, Intrinsics

GOOD_RMS = 0.10
BAD_RMS = 0.30


class BaselineHandEstimator:
    """`hand_masks` → `hand_poses`: metric, since a hand's length is known within a tenth."""

    name = "baseline"
    version = "1"
    quality_tier = "baseline"
    weights_hash = ""

    def __init__(self, settings: HandPoseSettings) -> None:
        self.settings = settings

    def process(self, clip: ClipInput, carried: Carried | None) -> ClipOutput:
        """See `HandEstimator`. One row a mask row; bone lengths are the same for all rows."""
        masks = clip.tables["hand_masks"].to_pylist()
        tracks: dict[str, list[dict[str, Any]]] = {}
        for row in sorted(masks, key=lambda r: (r["track_id"], r["frame_index"])):
            tracks.setdefault(row["track_id"], []).append(row)
        known = (carried or {}).get("tracks", {})
        rows: list[dict[str, Any]] = []
        state: dict[str, list[float]] = {}
        for track, mine in tracks.items():
            found, last = self._track(clip, mine, known.get(track))
            rows.extend(found)
            if last is not None:
                state[track] = last.tolist()
        rows.sort(key=lambda r: (r["frame_index"], r["track_id"]))
        return ClipOutput({"hand_poses": rows}, carried={"tracks": state})

    def _track(
        self, clip: ClipInput, masks: list[dict[str, Any]], start: list[float] | None
    ) -> tuple[list[dict[str, Any]], np.ndarray | None]:
        side, scale = masks[0]["side"], self.settings.hand_length_m / 0.183
        before = None if start is None else np.array(start)
        values, errors, views = [], [], []
        for row in masks:
            view = hand_fit.view_of(
                undistorted_mask(row, clip.intrinsics), clip.intrinsics.matrix(), row["is_wearer"]
            )
            views.append(view)
            if view is None:
                values.append(before)
                errors.append(np.inf)
                continue
            before, error = self._fit(view, side, scale, before)
            values.append(before)
            errors.append(error)
        first = next((v for v in values if v is not None), None)
        if first is None:
            return [self._unseen(clip, row, scale) for row in masks], None
        whole = np.stack([v if v is not None else first for v in values])
        joints = hand_fit.joints_of(smoothed(whole, self.settings.smoothing_frames), side, scale)
        rows = [
            self._row(clip, row, joint, error, view)
            for row, joint, error, view in zip(masks, joints, errors, views, strict=True)
        ]
        return rows, before

    def _fit(
        self,
        view: HandView,
        side: str,
        scale: float,
        before: np.ndarray | None,
    ) -> tuple[np.ndarray, float]:
        """Go on from the frame before; begin anew where that does not fit."""
        best, error = None, np.inf
        if before is not None:
            moved = before.copy()
            moved[3:5] = 0.5 * moved[3:5] + 0.5 * view.wrist
            for guess in (before, moved):
                found, value = hand_fit.fit(guess, view, side, scale, before, self.settings.rounds)
                if value < error:
                    best, error = found, value
        if best is None or error > GOOD_RMS * 1.5:
            for guess in hand_fit.first_guesses(view, side, scale):
                found, value = hand_fit.fit(guess, view, side, scale, None, self.settings.rounds)
                if value < 0.8 * error:
                    best, error = found, value
        assert best is not None
        return best, error

    def _row(
        self,
        clip: ClipInput,
        mask: dict[str, Any],
        joints: np.ndarray,
        error: float,
        view: HandView | None,
    ) -> dict[str, Any]:
        reason = None
        if view is None:
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
            "joints_px": project(joints, clip.intrinsics).tolist(),
            "joints_camera_m": joints.tolist(),
            "camera_from_hand_m": joints[0].tolist(),
            "camera_from_hand_xyzw": quaternion_from_matrix(
                hand_axes(joints, mask["side"])
            ).tolist(),
            "mano_pose": None,
            "mano_betas": None,
            "box": mask["box"],
            "score": float(mask["score"]) * quality,
            "backend": self.name,
            "quality_tier": self.quality_tier,
        }

    def _unseen(self, clip: ClipInput, mask: dict[str, Any], scale: float) -> dict[str, Any]:
        """A row for a mask that shows no hand's shape: an open hand at the mask's centre."""
        x0, y0, x1, y1 = mask["box"]
        centre = np.array([[[(x0 + x1) / 2, (y0 + y1) / 2]]], np.float64)
        flat = normalised(centre, clip.intrinsics)[0, 0]
        guess = np.zeros((1, hand_fit.SIZE))
        guess[0, :3] = [np.pi, 0, 0]
        guess[0, 3:6] = [flat[0], flat[1], np.log(0.5)]
        joints = hand_fit.joints_of(guess, mask["side"], scale)[0]
        return self._row(clip, mask, joints, np.inf, None)


def smoothed(values: np.ndarray, frames: float) -> np.ndarray:
    """(N, SIZE) parameters with jitter taken out (Gaussian over time; rotations as quaternions)."""
    if len(values) < 3 or frames <= 0:
        return values
    result = gaussian_filter1d(values, frames, axis=0, mode="nearest")
    quaternions = Rotation.from_rotvec(values[:, :3]).as_quat()
    flips = np.cumprod(np.r_[1, np.where((quaternions[1:] * quaternions[:-1]).sum(1) < 0, -1, 1)])
    even = gaussian_filter1d(quaternions * flips[:, None], frames, axis=0, mode="nearest")
    result[:, :3] = Rotation.from_quat(even).as_rotvec()
    return result


def hand_axes(joints: np.ndarray, side: str) -> np.ndarray:
    """(3, 3) camera_from_hand rotation: x to the middle knuckle, z out of the back of the hand."""
    x = joints[9] - joints[0]
    x = x / np.linalg.norm(x)
    across = joints[5] - joints[17]  # towards the thumb
    z = np.cross(x, across) if side == "right" else np.cross(across, x)
    z = z / np.linalg.norm(z)
    return np.column_stack([x, np.cross(z, x), z])


def undistorted_mask(row: dict[str, Any], intrinsics: Intrinsics) -> np.ndarray:
    """(H, W) bool mask of a row as a pinhole camera of the same matrix would see it."""
    mask = decode_mask(row["rle"], row["height_px"], row["width_px"])
    maps = undistortion(intrinsics, intrinsics.matrix(), (mask.shape[1], mask.shape[0]))
    if maps is None:
        return mask
    return cv2.remap(mask.astype(np.uint8), *maps, cv2.INTER_NEAREST) > 0


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
