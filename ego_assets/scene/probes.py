"""Cameras: does the path move with the picture, without leaps, on enough points, at one scale?

Here: probes of `scene_reconstruction`, and the measure of how much pictures change. Not here:
reading pictures (the caller gives `Evidence.look`).
"""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow.compute as pc

from ego_assets.quality.finding import (
    Evidence,
    Finding,
    Tracks,
    Units,
    judge,
    probe,
    valid_share,
)
from ego_assets.scene.settings import CameraProbeSettings
from ego_assets.vision.geometry import matrix_from_quaternion, rotation_angle_deg

_CLIP = ("clip_id",)
_FRAME = ("clip_id", "frame_index", "pts_s", "is_valid")
_POSE = (*_FRAME, "world_from_camera_m", "world_from_camera_xyzw")
_SAME_TURN_DEG = 0.01
_SAME_PLACE = 1e-4
_STRETCHES = 4
_TYPICAL_STEPS = 8.0
_LEAST_OVERLAP = 5
_LEAST_LIKENESS = 0.9
"""Slow noise of two clips that have nothing in common is alike by less, 99 times of 100."""


@probe("scene_reconstruction", severity="error", reads=(*_POSE, "motion_kind"))
def cameras_move_with_the_image(evidence: Evidence, settings: CameraProbeSettings) -> Finding:
    """A pose that stays the same for half a second, as identity poses do, has a picture that stays
    the same, too. Pictures are looked at only where a pose is frozen. A camera that says that it
    stands still has points of the background to show for it."""
    moving = evidence.valid_rows.filter(pc.field("motion_kind") != "static")
    tracks = Tracks.of(moving, _CLIP)
    look = evidence.look
    where, frames, changes = [], [], []
    stretches = frozen_stretches(tracks, settings.min_frozen_s)
    for clip, first, last in stretches:
        change = look(clip, first, last) if look else None
        if change is not None:
            where.append(clip)
            frames.append(first)
            changes.append(change)
    return judge(
        Units(where, frames, np.array(changes, np.float64)),
        settings.max_change_grey_levels,
        "grey levels",
        "stretches with a frozen camera whose picture changes by",
        0.0,
        numbers={"frozen stretches without pictures": float(len(stretches) - len(where))},
    )


@probe("scene_reconstruction", reads=_POSE)
def cameras_do_not_jump(evidence: Evidence, settings: CameraProbeSettings) -> Finding:
    """A step between two frames is small beside the clip's whole path, or like its other steps."""
    tracks = Tracks.of(evidence.valid_rows, _CLIP)
    at = tracks.column("world_from_camera_m").astype(np.float64)
    steps = np.full(len(at), np.nan)
    if len(at):
        steps[1:] = np.linalg.norm(np.diff(at, axis=0), axis=1)
        steps[~tracks.is_next] = np.nan
    frame = pl.DataFrame(
        {"group": tracks.group, "step": steps, "extent": _extent(tracks, at)}
    ).with_columns(pl.col("step").fill_nan(None))
    share = frame.select(
        pl.when(pl.col("step") > _TYPICAL_STEPS * pl.col("step").quantile(0.9).over("group"))
        .then(pl.col("step") / pl.col("extent"))
        .when(pl.col("step").is_not_null())
        .then(0.0)
    ).to_series()
    return judge(
        tracks.units(share.fill_null(np.nan).to_numpy(), "max"),
        settings.max_camera_step,
        "of the path's extent",
        "clips whose camera leaps",
        settings.tolerated_share,
    )


@probe("scene_reconstruction", reads=(*_POSE, "scale_kind"))
def cameras_do_not_jitter(evidence: Evidence, settings: CameraProbeSettings) -> Finding:
    """Positions follow a smooth path: RMS to a parabola through seven frames, beside the extent of
    the clip's path. In metres, what a still head and a good registration leave does not count."""
    tracks = Tracks.of(evidence.valid_rows, _CLIP)
    at = tracks.column("world_from_camera_m").astype(np.float64)
    jitter = tracks.jitter(at[:, None])
    is_metric = pc.not_equal(tracks.rows["scale_kind"], "arbitrary").to_numpy()
    jitter[is_metric & (jitter < settings.min_camera_jitter_m)] = 0.0
    return judge(
        tracks.units(jitter / np.maximum(_extent(tracks, at), 1e-12), "rms"),
        settings.max_camera_jitter,
        "of the path's extent",
        "clips whose camera jitters",
        settings.tolerated_share,
    )


@probe("scene_reconstruction", reads=_POSE)
def cameras_turn_like_heads(evidence: Evidence, settings: CameraProbeSettings) -> Finding:
    """No turn between two frames is faster than a head turns."""
    tracks = Tracks.of(evidence.valid_rows, _CLIP)
    speed = _turn_deg(tracks) / tracks.step_s()
    return judge(
        tracks.units(speed, "max"),
        settings.max_turn_deg_per_s,
        "degrees a second",
        "clips whose camera spins",
        settings.tolerated_share,
    )


@probe(
    "scene_reconstruction",
    reads=("clip_id", "is_valid"),
    others={"clips": ("clip_id", "start_frame", "end_frame")},
)
def frames_are_registered(evidence: Evidence, settings: CameraProbeSettings) -> Finding:
    """Most frames of a clip have a pose, and every clip has frames."""
    clips = pl.DataFrame(evidence.tables["clips"]).select(
        "clip_id", count=pl.col("end_frame") - pl.col("start_frame")
    )
    return judge(
        valid_share(evidence.rows, clips),
        settings.min_registered_share,
        "of its frames",
        "clips without poses",
        settings.max_unregistered_clip_share,
        least=True,
    )


@probe("scene_reconstruction", reads=(*_FRAME, "inlier_share"))
def poses_rest_on_inliers(evidence: Evidence, settings: CameraProbeSettings) -> Finding:
    """Most of the points that a frame saw agree with its pose."""
    tracks = Tracks.of(evidence.valid_rows, _CLIP)
    shares = pc.cast(tracks.rows["inlier_share"], "float64").fill_null(np.nan).to_numpy()
    return judge(
        tracks.units(shares, "median", least=True),
        settings.min_inlier_share,
        "of the points",
        "clips with poses on few inliers",
        settings.tolerated_share,
        least=True,
    )


@probe(
    "scene_reconstruction",
    reads=(*_POSE, "world_id", "scale_kind"),
    others={"clips": ("clip_id", "take_id", "index_in_take", "start_frame", "end_frame")},
)
def scale_does_not_drift(evidence: Evidence, settings: CameraProbeSettings) -> Finding:
    """Two clips of a take that share a world are at one scale in the frames that both have.

    Their paths there must be alike but for rotation and scale: of a head that holds still each
    clip has its own noise, and the scale of noise says nothing."""
    rows = evidence.valid_rows
    poses = pl.DataFrame(
        rows.select(["clip_id", "frame_index", "world_id", "scale_kind"])
    ).with_columns(pl.Series("at", rows["world_from_camera_m"]))
    clips = pl.DataFrame(evidence.tables["clips"]).sort("take_id", "index_in_take")
    following = clips.select(
        "clip_id",
        after=pl.col("clip_id").shift(-1).over("take_id", order_by="index_in_take"),
    ).drop_nulls()
    ours = poses.join(following, on="clip_id")
    both = ours.join(
        poses, left_on=["after", "frame_index"], right_on=["clip_id", "frame_index"], suffix="_b"
    ).filter(
        (pl.col("world_id") == pl.col("world_id_b"))
        | ((pl.col("scale_kind") == "metric") & (pl.col("scale_kind_b") == "metric"))
    )
    where, ratios = [], []
    for (after,), pair in both.sort("frame_index").group_by("after", maintain_order=True):
        paths = [pair[name].to_numpy() for name in ("at", "at_b")]
        first, second = (spread_of(path) for path in paths)
        if len(pair) >= _LEAST_OVERLAP and likeness(*paths) >= _LEAST_LIKENESS:
            where.append(str(after))
            ratios.append(float(np.exp(abs(np.log(second / first)))))
    return judge(
        Units.of(where, ratios),
        settings.max_scale_ratio,
        "times",
        "clips at another scale than the one before",
        settings.tolerated_share,
    )


@probe(
    "scene_reconstruction",
    reads=(*_FRAME, "scale_kind"),
    others={"hand_masks": ("clip_id", "frame_index", "is_wearer")},
)
def hands_have_a_place_in_metres(evidence: Evidence, settings: CameraProbeSettings) -> Finding:
    """Most of the wearer's hands are seen by a camera that has a pose in a world of metres: without
    one, a wrist has no path through the room."""
    cameras = pl.DataFrame(evidence.valid_rows.select(["clip_id", "frame_index", "scale_kind"]))
    placed = cameras.filter(pl.col("scale_kind") != "arbitrary").select(
        "clip_id", "frame_index", is_placed=True
    )
    hands = pl.DataFrame(evidence.tables["hand_masks"]).filter(pl.col("is_wearer").fill_null(True))
    shares = (
        hands.join(placed, on=["clip_id", "frame_index"], how="left")
        .group_by("clip_id")
        .agg(pl.col("is_placed").fill_null(False).mean())
        .sort("clip_id")
    )
    return judge(
        Units.of(shares["clip_id"], shares["is_placed"]),
        settings.min_placed_hand_share,
        "of the wearer's hand masks",
        "clips whose hands have no place in metres",
        settings.max_lost_hand_clip_share,
        least=True,
    )


def frozen_stretches(tracks: Tracks, least_s: float) -> list[tuple[str, int, int]]:
    """(clip, first, last frame) of the stretches with one and the same pose that last for least_s:
    the longest few of each clip, the longest first. More than one, for a long one may be rightly
    still."""
    count = len(tracks.group)
    if count < 2:
        return []
    at = tracks.column("world_from_camera_m").astype(np.float64)
    step = np.r_[np.nan, np.linalg.norm(np.diff(at, axis=0), axis=1)]
    size = np.array([spread_of(a) for a in np.split(at, np.flatnonzero(np.diff(tracks.group)) + 1)])
    # A whole clip in one place has no size: then any step is a step.
    limit = _SAME_PLACE * size[tracks.group] / np.sqrt(np.bincount(tracks.group)[tracks.group])
    is_same = tracks.is_next & (_turn_deg(tracks) < _SAME_TURN_DEG) & (step <= limit)
    starts = np.flatnonzero(~is_same)
    ends = np.r_[starts[1:], count] - 1
    lasts = tracks.seconds[ends] - tracks.seconds[starts]
    clips = tracks.rows["clip_id"].to_pylist()
    frame = tracks.frame
    found: dict[str, list[tuple[str, int, int]]] = {}
    for i in np.argsort(-lasts, kind="stable"):
        stretches = found.setdefault(clip := clips[starts[i]], [])
        if lasts[i] >= least_s and len(stretches) < _STRETCHES:
            stretches.append((clip, int(frame[starts[i]]), int(frame[ends[i]])))
    return [stretch for _, stretches in sorted(found.items()) for stretch in stretches]


def spread_of(at: np.ndarray) -> float:
    """Root mean square distance of (N, 3) places from their centre."""
    at = np.asarray(at, np.float64)
    return float(np.sqrt(((at - at.mean(axis=0)) ** 2).sum(axis=1).mean())) if len(at) else 0.0


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Correlation of two paths (N, 3) after the best shift, rotation and scale, 0 to 1; 0 of a
    path without extent.

    The singular values of the paths' product are what a rotation can make of it (Schönemann 1966).
    """
    if not all(np.ptp(path, axis=0).any() for path in (one, other)):
        return 0.0
    one, other = (np.asarray(p, np.float64) - np.mean(p, axis=0) for p in (one, other))
    size = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(np.linalg.svd(one.T @ other, compute_uv=False).sum()) / size


def _extent(tracks: Tracks, at: np.ndarray) -> np.ndarray:
    """(N,) diagonal of the box around the whole path, (N, 3) places, that each row is of."""
    if not len(at):
        return np.empty(0)
    starts = np.flatnonzero(np.diff(tracks.group, prepend=-1))
    size = np.maximum.reduceat(at, starts) - np.minimum.reduceat(at, starts)
    return np.repeat(np.linalg.norm(size, axis=1), np.diff(np.r_[starts, len(at)]))


def _turn_deg(tracks: Tracks) -> np.ndarray:
    """(N,) turn since the frame before; NaN where there is none."""
    turn = np.full(len(tracks.group), np.nan)
    if len(turn) > 1:
        rotation = matrix_from_quaternion(tracks.column("world_from_camera_xyzw"))
        turn[1:] = rotation_angle_deg(rotation[:-1], rotation[1:])
        turn[~tracks.is_next] = np.nan
    return turn


PROBES = (
    *cameras_move_with_the_image,
    *cameras_do_not_jump,
    *cameras_do_not_jitter,
    *cameras_turn_like_heads,
    *frames_are_registered,
    *poses_rest_on_inliers,
    *scale_does_not_drift,
    *hands_have_a_place_in_metres,
)
