"""The movement estimator that needs no weights: contact and velocity make the state of an object.

Here: contact from masks, speed from poses (or from the picture, where there is no pose), states,
intervals. Not here: masks, poses.

An object is held while a hand touches it and it moves, and through pauses of such a carry; it is
moving if it moves untouched; else it is still.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np

from ego_assets.arrays import runs_of_true
from ego_assets.objects.settings import MovementSettings
from ego_assets.operator import Carried, ClipInput, ClipOutput, Frame, FrameSource
from ego_assets.vision.egomotion import camera_homography
from ego_assets.vision.mask_scaling import decode_area
from ego_assets.vision.patches import Patch
from ego_assets.vision.threads import each, side_by_side

WORK_SIDE_PX = 320
_Seen = dict[tuple[str, int], Patch]
"""Masks of hands at work size, by track and frame: each is decoded once, whatever is near it."""


@dataclass
class _Path:
    """One object over its frames: everything by position in `frames`.

    place: (N, 3) world units, NaN where there is no pose; scene_px: (N, 2) position in the
    picture of the first frame, camera motion taken out; touch: (N,) hand track or "".
    """

    frames: list[int]
    pts_s: np.ndarray
    place: np.ndarray
    scene_px: np.ndarray
    touch: list[str]
    size_px: float


class BaselineMovementEstimator:
    """Masks, poses and cameras → `object_movements`."""

    name = "baseline"
    version = "2"
    quality_tier = "baseline"
    weights_hash = ""

    def __init__(self, settings: MovementSettings) -> None:
        self.settings = settings

    def process(self, clip: ClipInput, carried: Carried | None) -> ClipOutput:
        """The intervals of a track cover its frames without overlap."""
        objects = clip.tables["object_masks"].to_pylist()
        if not objects:
            return ClipOutput({"object_movements": []})
        hands: dict[int, list[dict[str, Any]]] = {}
        for row in clip.tables["hand_masks"].to_pylist():
            hands.setdefault(row["frame_index"], []).append(row)
        first_from_frame = self._camera_motion(clip)
        poses = {
            (r["track_id"], r["frame_index"]): r
            for r in clip.tables["object_poses"].to_pylist()
            if r["world_from_object_m"] is not None
        }
        sides = {r["track_id"]: r["side"] for rows in hands.values() for r in rows}
        rows: list[dict[str, Any]] = []
        state: dict[str, str] = {}
        seen: _Seen = {}
        for track in sorted({r["track_id"] for r in objects}):
            mine = sorted(
                (r for r in objects if r["track_id"] == track), key=lambda r: r["frame_index"]
            )
            path = self._path(mine, hands, poses, first_from_frame, seen)
            before = (carried or {}).get(track, "still")
            states = self.states(path, before)
            scale = next(
                (p["scale_kind"] for (t, _), p in poses.items() if t == track), "arbitrary"
            )
            rows.extend(self._intervals(clip, track, path, states, sides, scale))
            state[track] = states[-1]
        return ClipOutput({"object_movements": rows}, carried=dict(state))

    # -- what is seen --------------------------------------------------------------------------

    def _camera_motion(self, clip: ClipInput) -> dict[int, np.ndarray]:
        """(3, 3) full-size pixels of each frame -> of the first, by homographies of the scene."""
        found: dict[int, np.ndarray] = {}
        total = np.eye(3)
        with side_by_side():
            for index, size, homography in each(_to_frame_before, _with_before(clip.frames)):
                total = total @ homography
                total = total / total[2, 2]
                scale = np.diag([size, size, 1.0])
                found[index] = np.linalg.inv(scale) @ total @ scale
        return found

    def _path(
        self,
        masks: list[dict[str, Any]],
        hands: dict[int, list[dict[str, Any]]],
        poses: dict[tuple[str, int], dict[str, Any]],
        first_from_frame: dict[int, np.ndarray],
        seen: _Seen,
    ) -> _Path:
        place, scene, touch, sizes = [], [], [], []
        for row in masks:
            frame = row["frame_index"]
            pose = poses.get((row["track_id"], frame))
            place.append(pose["world_from_object_m"] if pose else [np.nan] * 3)
            x0, y0, x1, y1 = row["box"]
            centre = np.array([(x0 + x1) / 2, (y0 + y1) / 2, 1.0])
            flat = first_from_frame.get(frame, np.eye(3)) @ centre
            scene.append(flat[:2] / flat[2])
            sizes.append(np.sqrt(row["area_px"]))
            touch.append(self._touching(row, hands.get(frame, []), seen))
        return _Path(
            frames=[r["frame_index"] for r in masks],
            pts_s=np.array([r["pts_s"] for r in masks]),
            place=np.array(place, np.float64),
            scene_px=np.array(scene),
            touch=touch,
            size_px=float(np.median(sizes)),
        )

    def _touching(self, row: dict[str, Any], hands: list[dict[str, Any]], seen: _Seen) -> str:
        """Track of the hand whose mask comes closest to the object, if it is close enough."""
        reach = self.settings.touch_share * np.sqrt(row["area_px"])
        near = [h for h in hands if _boxes_gap(row["box"], h["box"]) <= reach]
        if not near:
            return ""
        object_mask, scale = _small(row)
        size = 2 * max(1, int(reach * scale)) + 1
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
        grown = cv2.dilate(object_mask, kernel) > 0
        overlaps = {h["track_id"]: _covered(h, grown, seen) for h in near}
        best = max(sorted(overlaps), key=lambda t: overlaps[t])
        return best if overlaps[best] >= 3 else ""

    # -- states --------------------------------------------------------------------------------

    def states(self, path: _Path, before: str) -> list[str]:
        """State of every frame. before: the state in which the clip before ended."""
        settings = self.settings
        touched = _lasting(np.array([bool(t) for t in path.touch]), path.pts_s, settings)
        moves = _lasting(self._moves(path), path.pts_s, settings)
        held = np.zeros(len(moves), bool)
        for start, end in runs_of_true(touched):
            inside = moves[start:end]
            if inside.any():
                # From when it first moves to when it last does: pauses of a carry are held.
                first = start + int(np.argmax(inside))
                last = end - int(np.argmax(inside[::-1]))
                if start == 0 and before == "held":
                    first = 0
                held[first:last] = True
        return [
            "held" if h else "moving" if m else "still" for h, m in zip(held, moves, strict=True)
        ]

    def _moves(self, path: _Path) -> np.ndarray:
        """(N,) bool: faster than noise in the picture, and in the world where there are poses."""
        speed = _speed(path.scene_px, path.pts_s) / max(path.size_px, 1.0)
        moves = speed > self.settings.min_speed_sizes_per_s
        known = ~np.isnan(path.place[:, 0])
        if known.mean() < 0.5:
            return moves
        filled = np.column_stack(
            [np.interp(path.pts_s, path.pts_s[known], path.place[known, k]) for k in range(3)]
        )
        # World units to object sizes: both are seen in the same frames.
        in_world = _speed(filled, path.pts_s)
        span = float(np.linalg.norm(np.ptp(filled, axis=0)))
        noise = float(np.median(in_world))
        limit = max(3.0 * noise, self.settings.min_speed_path_share_per_s * span)
        near = np.convolve(known, np.ones(5), "same") > 0
        return np.where(
            near, (in_world > limit) & (speed > 0.25 * self.settings.min_speed_sizes_per_s), moves
        )

    def _intervals(
        self,
        clip: ClipInput,
        track: str,
        path: _Path,
        states: list[str],
        sides: dict[str, str],
        scale_kind: str,
    ) -> list[dict[str, Any]]:
        cuts = [0, *(i for i in range(1, len(states)) if states[i] != states[i - 1]), len(states)]
        rows = []
        for start, end in pairwise(cuts):
            touching = [t for t in path.touch[start:end] if t]
            hand = max(sorted(set(touching)), key=touching.count) if touching else None
            end_frame = path.frames[end] if end < len(path.frames) else path.frames[-1] + 1
            is_last = end_frame == clip.clip["end_frame"]
            end_s = clip.clip["end_pts_s"] if is_last else clip.frames.time_of(end_frame)
            duration = end_s - float(path.pts_s[start])
            row = {
                "video_id": clip.clip["video_id"],
                "shard": clip.clip["shard"],
                "clip_id": clip.clip_id,
                "track_id": track,
                "start_frame": path.frames[start],
                "end_frame": end_frame,
                "start_pts_s": float(path.pts_s[start]),
                "end_pts_s": end_s,
                "state": states[start],
                "displacement_px": float(
                    np.linalg.norm(path.scene_px[end - 1] - path.scene_px[start])
                ),
                "scale_kind": scale_kind,
                "touching_side": sides[hand] if hand else None,
                "touching_track_id": hand,
                "touch_share": len(touching) / (end - start),
                "backend": self.name,
                "quality_tier": self.quality_tier,
            }
            rows.append(row | _lengths(path.place[start:end], duration))
        return rows


def _lengths(place: np.ndarray, duration_s: float) -> dict[str, float | None]:
    """Displacement, path length and mean speed of an interval; null without poses."""
    from scipy.ndimage import gaussian_filter1d

    known = place[~np.isnan(place[:, 0])]
    if len(known) < max(2, 0.3 * len(place)):
        return {"displacement": None, "path_length": None, "mean_speed": None}
    smooth = gaussian_filter1d(known, 2.0, axis=0, mode="nearest")
    length = float(np.linalg.norm(np.diff(smooth, axis=0), axis=1).sum())
    return {
        "displacement": float(np.linalg.norm(smooth[-1] - smooth[0])),
        "path_length": length,
        "mean_speed": length / duration_s if duration_s > 0 else 0.0,
    }


def _speed(place: np.ndarray, pts_s: np.ndarray) -> np.ndarray:
    """(N,) speed of a smoothed path, units a second."""
    from scipy.ndimage import gaussian_filter1d, median_filter

    if len(place) < 3:
        return np.zeros(len(place))
    calm = median_filter(place, size=(min(5, len(place)), 1), mode="nearest")
    smooth = gaussian_filter1d(calm, 2.0, axis=0, mode="nearest")
    times = np.maximum.accumulate(pts_s + np.arange(len(pts_s)) * 1e-9)
    speed: np.ndarray = np.linalg.norm(np.gradient(smooth, times, axis=0), axis=1)
    return speed


def _lasting(flags: np.ndarray, pts_s: np.ndarray, settings: MovementSettings) -> np.ndarray:
    """Close gaps and drop runs shorter than `min_interval_s`."""
    result = flags.copy()
    for value in (False, True):
        for start, end in runs_of_true(result == value):
            inner = start > 0 and end < len(result)
            if (inner or value) and pts_s[end - 1] - pts_s[start] < settings.min_interval_s:
                result[start:end] = not value
    return result


def _boxes_gap(one: list[float], other: list[float]) -> float:
    dx = max(one[0] - other[2], other[0] - one[2], 0.0)
    dy = max(one[1] - other[3], other[1] - one[3], 0.0)
    return float(np.hypot(dx, dy))


def _with_before(frames: FrameSource) -> Iterator[tuple[Frame, np.ndarray, np.ndarray | None]]:
    """Each frame, grey, with the one before it."""
    before = None
    for frame in frames.read(max_side_px=WORK_SIDE_PX):
        grey = cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY)
        yield frame, grey, before
        before = grey


def _to_frame_before(
    seen: tuple[Frame, np.ndarray, np.ndarray | None],
) -> tuple[int, float, np.ndarray]:
    """(index, scale, (3, 3) pixels of a frame -> of the frame before)."""
    frame, grey, before = seen
    homography = np.eye(3) if before is None else camera_homography(grey, before)
    return frame.index, frame.scale, homography


def _covered(hand: dict[str, Any], grown: np.ndarray, seen: _Seen) -> int:
    """Pixels of a hand, at work size, that are in a mask."""
    key = (hand["track_id"], hand["frame_index"])
    if key not in seen:
        seen[key] = Patch.of(_small(hand)[0] > 0)
    patch = seen[key]
    return int(np.count_nonzero(grown[patch.window(0)] & patch.pixels()))


def _small(row: dict[str, Any]) -> tuple[np.ndarray, float]:
    """(mask uint8 at work size, scale)."""
    height, width = row["height_px"], row["width_px"]
    scale = min(1.0, WORK_SIDE_PX / max(height, width))
    shape = (round(height * scale), round(width * scale)) if scale < 1 else (height, width)
    return decode_area(row["rle"], height, width, shape), scale
