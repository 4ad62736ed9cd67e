"""Objects: do their poses stay on the object, move without leaps, and fall when nothing holds them?

Here: probes of `object_poses` and `object_movements`.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from ego_assets.arrays import array_of
from ego_assets.objects.settings import ObjectProbeSettings
from ego_assets.operator import Intrinsics
from ego_assets.quality.finding import (
    Evidence,
    Finding,
    Tracks,
    Units,
    judge,
    probe,
)
from ego_assets.vision.cameras import project_points
from ego_assets.vision.geometry import matrix_from_quaternion

_KEY = ("clip_id", "track_id", "frame_index")
_TRACK = (*_KEY, "pts_s", "is_valid")
_CAMERA = ("camera_model", "fx_px", "fy_px", "cx_px", "cy_px", "distortion")
_TYPICAL_STEPS = 6.0
_UPWARD = 0.5


@probe("object_poses", reads=(*_TRACK, "camera_from_object_m", "object_frame"))
def objects_do_not_jump(evidence: Evidence, settings: ObjectProbeSettings) -> Finding:
    """No step between two frames is a large part of the distance and unlike the track's others."""
    tracks = Tracks.of(evidence.valid_rows)
    at = tracks.column("camera_from_object_m").astype(np.float64)
    steps = np.full(len(at), np.nan)
    if len(at) > 1:
        frame = tracks.rows["object_frame"]
        same = pc.equal(frame.slice(1), frame.slice(0, len(at) - 1)).to_numpy()
        way = np.linalg.norm(np.diff(at, axis=0), axis=1)
        distance = np.maximum(np.linalg.norm(at[:-1], axis=1), 1e-9)
        steps[1:] = np.where(same & tracks.is_next[1:], way / distance, np.nan)
    typical = (
        pl.DataFrame({"group": tracks.group, "step": steps})
        .with_columns(pl.col("step").fill_nan(None))
        .select(pl.col("step").quantile(0.9).over("group"))
        .to_series()
        .fill_null(np.inf)
        .to_numpy()
    )
    steps = np.where(steps > _TYPICAL_STEPS * typical, steps, np.where(np.isnan(steps), np.nan, 0))
    return judge(
        tracks.units(steps, "max"),
        settings.max_object_step,
        "of the distance",
        "object tracks that jump",
        settings.tolerated_share,
    )


@probe(
    "object_poses",
    reads=("video_id", *_TRACK, "camera_from_object_m"),
    others={
        "object_masks": (*_KEY, "box"),
        "scene_reconstruction": ("clip_id", "frame_index", *_CAMERA),
    },
)
def objects_fall_on_their_mask(evidence: Evidence, settings: ObjectProbeSettings) -> Finding:
    """The origin of an object, seen through the camera, lies on the object, or close by its box.

    The box, not the mask: a hand may hide the middle of what it holds."""
    tracks = Tracks.of(evidence.valid_rows)
    at = tracks.column("camera_from_object_m").astype(np.float64)
    numbered = tracks.rows.select(list(_KEY)).append_column("number", pa.array(np.arange(len(at))))
    masks, cameras = evidence.tables["object_masks"], evidence.tables["scene_reconstruction"]
    boxes = masks.append_column("mask", pa.array(np.arange(masks.num_rows)))
    seen = cameras.append_column("camera", pa.array(np.arange(cameras.num_rows)))
    pairs = numbered.join(boxes.select([*_KEY, "mask"]), list(_KEY), join_type="inner").join(
        seen.select(["clip_id", "frame_index", "camera"]),
        ["clip_id", "frame_index"],
        join_type="inner",
    )
    number, mask, camera = (pairs[n].to_numpy() for n in ("number", "mask", "camera"))
    off = np.full(len(at), np.nan)
    pixels = _project(at[number], cameras.select(list(_CAMERA)).take(pa.array(camera)))
    box = _vectors(masks["box"])[mask]
    outside = np.maximum(np.maximum(box[:, :2] - pixels, pixels - box[:, 2:]), 0.0)
    size = np.maximum(np.linalg.norm(box[:, 2:] - box[:, :2], axis=1), 1.0)
    distance = np.linalg.norm(outside, axis=1) / size
    # What is behind the camera is nowhere in the picture.
    distance[at[number, 2] <= 0] = np.inf
    off[number] = distance > settings.max_off_mask_sizes
    return judge(
        tracks.units(off, "mean"),
        settings.max_off_mask_share,
        "of its frames",
        "object tracks beside their mask",
        settings.tolerated_share,
    )


@probe(
    "object_movements",
    reads=("clip_id", "track_id", "start_frame", "end_frame", "state", "touch_share"),
    others={
        "object_poses": (
            *_TRACK,
            "object_frame",
            "camera_from_object_m",
            "world_from_object_m",
            "world_id",
        ),
        "scene_reconstruction": ("clip_id", "frame_index", "is_valid", "world_from_camera_xyzw"),
        "gravity": ("clip_id", "world_id", "gravity_world"),
    },
)
def untouched_objects_do_not_rise(evidence: Evidence, settings: ObjectProbeSettings) -> Finding:
    """What moves without a touch does not move up.

    Up is against gravity in the world of the clip, where it was measured. Else it is the mean of
    the camera's own up over the clip: heads are held upright."""
    moving = pl.DataFrame(
        evidence.rows.filter((pc.field("state") == "moving") & (pc.field("touch_share") == 0))
    )
    poses = evidence.tables["object_poses"].filter(
        pc.field("is_valid") & pc.is_valid(pc.field("world_from_object_m"))
    )
    rows = pl.DataFrame(poses.select([*_KEY, "object_frame", "world_id"])).with_row_index("number")
    ends = (
        moving.join(rows, on=["clip_id", "track_id"])
        .filter(pl.col("frame_index").is_between("start_frame", "end_frame", closed="left"))
        .sort("frame_index")
        .group_by("clip_id", "track_id", "start_frame", "object_frame", "world_id")
        .agg(first=pl.col("number").first(), last=pl.col("number").last())
        .sort("clip_id", "track_id", "start_frame")
    )
    ups = _up_of_clips(evidence.tables["scene_reconstruction"])
    ends = ends.filter(pl.col("clip_id").is_in(list(ups)))
    if not len(ends):
        return _rises(Units.of([], []), settings)
    measured = _up_of_worlds(evidence.tables.get("gravity"))
    where = zip(ends["clip_id"], ends["world_id"], strict=True)
    up = np.array([measured.get(pair, ups[pair[0]]) for pair in where])
    place, seen = (
        _vectors(poses[name]) for name in ("world_from_object_m", "camera_from_object_m")
    )
    first, last = ends["first"].to_numpy(), ends["last"].to_numpy()
    way = place[last] - place[first]
    rise = (way * up).sum(axis=1)
    is_upward = rise > _UPWARD * np.linalg.norm(way, axis=1)
    distance = np.maximum(np.linalg.norm(seen[first], axis=1), 1e-9)
    units = Units(
        [f"{c} {t}" for c, t in zip(ends["clip_id"], ends["track_id"], strict=True)],
        ends["start_frame"].to_list(),
        np.where(is_upward, rise / distance, 0.0),
    )
    return _rises(units, settings)


def _rises(units: Units, settings: ObjectProbeSettings) -> Finding:
    return judge(
        units,
        settings.max_untouched_rise,
        "of the distance",
        "untouched movements that go up",
        settings.tolerated_share,
    )


def _up_of_clips(cameras: pa.Table) -> dict[str, np.ndarray]:
    """(3,) up in the world of each clip: against the camera's y, on average."""
    valid = cameras.filter(pc.field("is_valid"))
    if not valid.num_rows:
        return {}
    up = -matrix_from_quaternion(_vectors(valid["world_from_camera_xyzw"]))[:, :, 1]
    clips = np.array(valid["clip_id"].to_pylist())
    means = {c: up[clips == c].mean(axis=0) for c in np.unique(clips)}
    return {c: m / max(float(np.linalg.norm(m)), 1e-9) for c, m in means.items()}


def _up_of_worlds(gravity: pa.Table | None) -> dict[tuple[str, str], np.ndarray]:
    """(3,) up by clip and world, where gravity was measured."""
    if gravity is None or not gravity.num_rows:
        return {}
    known = gravity.filter(pc.is_valid(gravity["gravity_world"]))
    pairs = zip(known["clip_id"].to_pylist(), known["world_id"].to_pylist(), strict=True)
    return dict(zip(pairs, -_vectors(known["gravity_world"]), strict=True))


def _vectors(column: pa.ChunkedArray) -> np.ndarray:
    return array_of(column).astype(np.float64)


def _project(points: np.ndarray, cameras: pa.Table) -> np.ndarray:
    """(N, 2) pixels of (N, 3) points, each through its own row of intrinsics."""
    pixels = np.full((len(points), 2), np.nan)
    lens = pl.col("distortion").cast(pl.List(pl.String)).list.join(" ")
    grouped = (
        pl.DataFrame(cameras)
        .with_row_index("number")
        .with_columns(lens=lens)
        .group_by("camera_model", "fx_px", "fy_px", "cx_px", "cy_px", "lens")
        .agg(pl.col("number"), pl.col("distortion").first())
    )
    for row in grouped.iter_rows(named=True):
        focal = (row["fx_px"], row["fy_px"], row["cx_px"], row["cy_px"])
        camera = Intrinsics(row["camera_model"], *focal, tuple(row["distortion"]))
        pixels[row["number"]] = project_points(camera, points[row["number"]])
    return pixels


PROBES = (*objects_do_not_jump, *objects_fall_on_their_mask, *untouched_objects_do_not_rise)
