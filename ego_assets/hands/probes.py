"""Hand poses: could a hand do that, and does the picture agree?

Here: probes of `hand_poses`. Not here: accuracy against truth (`benchmarks`).
Joints are in MANO order; angles are measured in the hand's own frame, so that a left hand called
right bends its fingers backward.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from ego_assets.hands.settings import HandProbeSettings
from ego_assets.hands.skeleton import BACKWARD_DEG, BONES, finger_flexion_deg
from ego_assets.quality.finding import (
    Evidence,
    Finding,
    Tracks,
    Units,
    judge,
    probe,
    valid_share,
)
from ego_assets.vision.rle import mask_contains

_TRACK = ("clip_id", "track_id", "frame_index", "pts_s", "is_valid")
_VIDEO = {"video_manifest": ("video_id", "width_px", "height_px")}

FLEXION_LIMITS_DEG = np.array([[-45.0, 90.0], [-5.0, 110.0], [-15.0, 90.0]])
"""Knuckle, middle and end joint of the four fingers, extended to flexed: range of motion of
healthy adults (American Academy of Orthopaedic Surgeons, "Joint Motion", 1965)."""
THUMB_LIMIT_DEG = 90.0
_MIDDLE_FINGER = (0, 9, 10, 11, 12)
_REFERENCE_PX = 1080.0


@probe("hand_poses", reads=("clip_id", "is_valid"), others={"hand_masks": ("clip_id",)})
def hands_are_valid(evidence: Evidence, settings: HandProbeSettings) -> Finding:
    """Most hands that were masked have a pose to be trusted: a model with the wrong weights has
    none, and then there is nothing for the other probes to look at."""
    masks = pl.DataFrame(evidence.tables["hand_masks"].select(["clip_id"]))
    return judge(
        valid_share(evidence.rows, masks.group_by("clip_id").len("count")),
        settings.min_valid_hand_share,
        "of its hand masks",
        "clips with few valid hands",
        settings.max_invalid_hand_clip_share,
        least=True,
    )


@probe("hand_poses", reads=(*_TRACK, "side", "joints_camera_m"))
def joints_within_limits(evidence: Evidence, settings: HandProbeSettings) -> Finding:
    """Fingers bend as far as fingers can: knuckles, middle and end joints, thumb."""
    tracks = Tracks.of(evidence.valid_rows)
    flexion, thumb = finger_flexion_deg(tracks.column("joints_camera_m"), _is_right(tracks))
    slack = settings.joint_limit_slack_deg
    low, high = FLEXION_LIMITS_DEG.T
    is_beyond = ((flexion < low - slack) | (flexion > high + slack)).any(axis=(1, 2))
    is_beyond |= (thumb > THUMB_LIMIT_DEG + slack).any(axis=1)
    return judge(
        tracks.units(is_beyond, "mean"),
        settings.max_beyond_limits_share,
        "of its frames",
        "hand tracks with a joint beyond its limits",
        settings.tolerated_share,
    )


@probe("hand_poses", reads=(*_TRACK, "side", "joints_camera_m"), severity="error")
def hands_are_not_mirrored(evidence: Evidence, settings: HandProbeSettings) -> Finding:
    """Fingers bend toward the palm. Where they bend backward, left was taken for right."""
    tracks = Tracks.of(evidence.valid_rows)
    flexion, _ = finger_flexion_deg(tracks.column("joints_camera_m"), _is_right(tracks))
    is_backward = flexion.mean(axis=(1, 2)) < BACKWARD_DEG
    return judge(
        tracks.units(is_backward, "mean"),
        settings.max_mirrored_share,
        "of its frames",
        "hand tracks whose fingers bend backward",
        settings.tolerated_share,
    )


@probe("hand_poses", reads=(*_TRACK, "side", "joints_px"))
def left_hands_are_on_the_left(evidence: Evidence, settings: HandProbeSettings) -> Finding:
    """Where both hands are seen, the left one is mostly on the left. A model told the wrong
    side makes a sound hand of the wrong side: only its place gives it away."""
    pairs = _both_hands(evidence)
    crossed = pairs.select("clip_id", crossed=pl.col("x_left") > pl.col("x_right"))
    shares = crossed.group_by("clip_id").agg(pl.col("crossed").mean()).sort("clip_id")
    return judge(
        Units.of(shares["clip_id"], shares["crossed"]),
        settings.max_crossed_share,
        "of the frames with two hands",
        "clips with the left hand on the right",
        settings.tolerated_share,
    )


@probe("hand_poses", reads=(*_TRACK, "side", "joints_px"))
def sides_do_not_swap(evidence: Evidence, settings: HandProbeSettings) -> Finding:
    """A track keeps its side, and left and right do not change places between two frames."""
    tracks = Tracks.of(evidence.valid_rows)
    is_right = _is_right(tracks)
    changes = np.zeros(len(is_right))
    changes[1:] = (np.diff(tracks.group) == 0) & (is_right[1:] != is_right[:-1])
    found = pl.DataFrame({"clip_id": pl.from_arrow(tracks.rows["clip_id"]), "swaps": changes})
    pairs = _both_hands(evidence).sort("clip_id", "frame_index")
    if len(pairs) > 1:
        at = pairs.select("x_left", "y_left", "x_right", "y_right").to_numpy().reshape(-1, 2, 2)
        straight = np.linalg.norm(np.diff(at, axis=0), axis=2).sum(axis=1)
        exchanged = np.linalg.norm(at[1:, ::-1] - at[:-1], axis=2).sum(axis=1)
        clip = pairs["clip_id"].to_numpy()
        is_next = (clip[1:] == clip[:-1]) & (np.diff(pairs["frame_index"].to_numpy()) == 1)
        swaps = np.r_[0.0, is_next & (exchanged < straight / 2)]
        found = pl.concat([found, pl.DataFrame({"clip_id": pairs["clip_id"], "swaps": swaps})])
    counts = found.group_by("clip_id").agg(pl.col("swaps").sum()).sort("clip_id")
    return judge(
        Units.of(counts["clip_id"], counts["swaps"]),
        settings.max_side_swaps,
        "swaps",
        "clips in which left becomes right",
        settings.tolerated_share,
    )


@probe("hand_poses", reads=(*_TRACK, "joints_camera_m"))
def bones_keep_their_length(evidence: Evidence, settings: HandProbeSettings) -> Finding:
    """A bone is as long at the end of a track as at its start, but for the hand's common scale."""
    tracks = Tracks.of(evidence.valid_rows)
    joints = tracks.column("joints_camera_m").astype(np.float64)
    ends = joints[:, np.array(BONES)]
    lengths = np.linalg.norm(ends[:, :, 1] - ends[:, :, 0], axis=2)
    # One scale for a whole hand is a matter of depth, and depth has a probe of its own.
    lengths /= np.maximum(lengths.sum(axis=1, keepdims=True), 1e-9)
    names = [f"bone_{i}" for i in range(lengths.shape[1])]
    frame = pl.DataFrame(lengths, schema=names).with_columns(group=pl.Series(tracks.group))
    spread = (
        frame.group_by("group", maintain_order=True)
        # A bone without any length has lost all of it.
        .agg((pl.col(names).std(ddof=0) / pl.col(names).mean()).fill_nan(1.0))
        .select(pl.max_horizontal(names).alias("worst"))["worst"]
    )
    firsts = np.flatnonzero(np.diff(tracks.group, prepend=-1))
    names_of = tracks.rows.select(["clip_id", "track_id"]).take(firsts).to_pylist()
    where = [f"{row['clip_id']} {row['track_id']}" for row in names_of]
    return judge(
        Units.of(where, spread),
        settings.max_bone_variation,
        "of its length",
        "hand tracks whose bones stretch",
        settings.tolerated_share,
    )


@probe("hand_poses", reads=(*_TRACK, "joints_camera_m"))
def hands_have_a_plausible_size(evidence: Evidence, settings: HandProbeSettings) -> Finding:
    """From wrist to fingertip a hand is as long as people's hands are: it is no point, no giant."""
    tracks = Tracks.of(evidence.valid_rows)
    middle = tracks.column("joints_camera_m").astype(np.float64)[:, _MIDDLE_FINGER]
    length = np.linalg.norm(np.diff(middle, axis=1), axis=2).sum(axis=1)
    is_odd = (length < settings.min_hand_length_m) | (length > settings.max_hand_length_m)
    return judge(
        tracks.units(is_odd, "mean"),
        settings.max_odd_size_share,
        "of its frames",
        "hand tracks of an implausible size",
        settings.tolerated_share,
        numbers={"median length, m": float(np.median(length))} if len(length) else None,
    )


@probe("hand_poses", reads=("video_id", *_TRACK, "joints_px"), others=_VIDEO)
def hands_do_not_jitter(evidence: Evidence, settings: HandProbeSettings) -> Finding:
    """Joints follow a smooth path: RMS to a parabola through seven frames, pixels at 1080p."""
    tracks = Tracks.of(evidence.valid_rows)
    residual = tracks.jitter(tracks.column("joints_px"))
    videos = pl.DataFrame(evidence.tables["video_manifest"]).select(
        "video_id", short=pl.min_horizontal("width_px", "height_px")
    )
    ids = pl.DataFrame({"video_id": pl.from_arrow(tracks.rows["video_id"])})
    short = ids.join(videos.unique("video_id"), on="video_id", how="left", maintain_order="left")[
        "short"
    ]
    scaled = residual * _REFERENCE_PX / short.cast(pl.Float64).fill_null(_REFERENCE_PX).to_numpy()
    return judge(
        tracks.units(scaled, "rms"),
        settings.max_jitter_px,
        "px RMS at 1080p",
        "hand tracks that jitter",
        settings.tolerated_share,
    )


@probe("hand_poses", reads=(*_TRACK, "camera_from_hand_m"))
def hands_are_within_reach(evidence: Evidence, settings: HandProbeSettings) -> Finding:
    """The wearer's hands are between 0.1 and 1.5 m before the camera."""
    tracks = Tracks.of(evidence.valid_rows)
    depth = tracks.column("camera_from_hand_m")[:, 2]
    is_odd = (depth < settings.min_hand_depth_m) | (depth > settings.max_hand_depth_m)
    return judge(
        tracks.units(is_odd, "mean"),
        settings.max_odd_depth_share,
        "of its frames",
        "hand tracks out of reach",
        settings.tolerated_share,
        numbers={"median depth, m": float(np.median(depth))} if len(depth) else None,
    )


@probe(
    "hand_poses",
    reads=(*_TRACK, "joints_px"),
    others={
        "hand_masks": ("clip_id", "track_id", "frame_index", "height_px", "width_px", "rle"),
    },
)
def joints_fall_on_the_hand_mask(evidence: Evidence, settings: HandProbeSettings) -> Finding:
    """The joints of a pose lie on the mask of its hand, but for what an object hides."""
    poses = evidence.valid_rows.select([c for c in (*_TRACK, "joints_px") if c != "is_valid"])
    tracks = Tracks.of(_spread(poses, settings.sampled_masks))
    numbered = tracks.rows.append_column("number", pa.array(np.arange(len(tracks.group))))
    keys = ["clip_id", "track_id", "frame_index"]
    # Arrow joins no nested columns: the joints are found again by their row's number.
    pairs = evidence.tables["hand_masks"].join(
        numbered.select([*keys, "number"]), keys, join_type="inner"
    )
    joints = tracks.column("joints_px")
    share = np.full(len(joints), np.nan)
    for row in pairs.select(["number", "height_px", "width_px", "rle"]).to_pylist():
        inside = mask_contains(row["rle"], row["height_px"], row["width_px"], joints[row["number"]])
        share[row["number"]] = inside.mean()
    return judge(
        tracks.units(share, "mean", least=True),
        settings.min_joints_on_mask,
        "of its joints on the mask",
        "hand tracks beside their mask",
        settings.tolerated_share,
        least=True,
    )


def _is_right(tracks: Tracks) -> np.ndarray:
    found: np.ndarray = pc.equal(tracks.rows["side"], "right").to_numpy()
    return found


def _both_hands(evidence: Evidence) -> pl.DataFrame:
    """Mean joint (x, y) of both hands, for each frame of a clip that has one of each side."""
    tracks = Tracks.of(evidence.valid_rows)
    middle = tracks.column("joints_px").astype(np.float64).mean(axis=1)
    rows = pl.DataFrame(tracks.rows.select(["clip_id", "frame_index", "side"])).with_columns(
        x=pl.Series(middle[:, 0], dtype=pl.Float64), y=pl.Series(middle[:, 1], dtype=pl.Float64)
    )
    keys = ["clip_id", "frame_index"]
    # Other people's hands make pairs ambiguous: only frames with one hand a side.
    rows = rows.filter(pl.len().over([*keys, "side"]) == 1)
    left, right = (rows.filter(pl.col("side") == side).drop("side") for side in ("left", "right"))
    return left.rename({"x": "x_left", "y": "y_left"}).join(
        right.rename({"x": "x_right", "y": "y_right"}), on=keys
    )


def _spread(rows: pa.Table, most: int) -> pa.Table:
    """Up to `most` rows of each track, at equal distances."""
    tracks = Tracks.of(rows)
    starts = np.searchsorted(tracks.group, tracks.group)
    sizes = np.searchsorted(tracks.group, tracks.group, side="right") - starts
    place = np.arange(len(starts)) - starts
    # A row is taken where the count of rows that should have been taken grows.
    is_taken = (place + 1) * most // np.maximum(sizes, most) > place * most // np.maximum(
        sizes, most
    )
    return tracks.rows.filter(is_taken)


PROBES = (
    *hands_are_valid,
    *joints_within_limits,
    *hands_are_not_mirrored,
    *left_hands_are_on_the_left,
    *sides_do_not_swap,
    *bones_keep_their_length,
    *hands_have_a_plausible_size,
    *hands_do_not_jitter,
    *hands_are_within_reach,
    *joints_fall_on_the_hand_mask,
)
