"""What the tables know of a take, frame by frame.

Here: rows as arrays over the frames of a take. Not here: any rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from ego_assets.arrays import array_of
from ego_assets.consent import SAID
from ego_assets.rows import SIDES

UNDECODED = "the frame does not decode"
"""Reason of a frame without a camera that says that there is no picture."""

READS: dict[str, tuple[str, ...]] = {
    "video_manifest": (
        "video_id",
        "uri",
        "video_stream_index",
        "accepted",
        "reject_reason",
        "duration_s",
        "frame_count",
        "recording_id",
        "recording_start_s",
        *SAID,
    ),
    "clips": (
        "video_id",
        "clip_id",
        "take_id",
        "index_in_take",
        "start_frame",
        "end_frame",
        "context_frames",
        "start_pts_s",
        "end_pts_s",
        "damaged_frames",
    ),
    "scene_reconstruction": (
        "clip_id",
        "frame_index",
        "pts_s",
        "is_context",
        "world_id",
        "is_valid",
        "invalid_reason",
        "world_from_camera_m",
        "world_from_camera_xyzw",
        "scale_kind",
    ),
    "hand_poses": (
        "clip_id",
        "frame_index",
        "is_context",
        "track_id",
        "side",
        "is_valid",
        "is_wearer",
        "joints_origin",
        "joints_camera_m",
        "camera_from_hand_m",
        "camera_from_hand_xyzw",
        "score",
    ),
    "object_masks": ("clip_id", "track_id", "label"),
    "object_movements": (
        "clip_id",
        "track_id",
        "start_frame",
        "end_frame",
        "state",
        "touching_side",
        "displacement_px",
    ),
}
"""The columns that are read of each table."""


@dataclass(frozen=True)
class HandFrames:
    """The hand of one side.

    row: (N,) row of `hand_rows`, and track: (N,) number of its track, -1 where there is none;
    is_seen: (N,) it was measured there; is_valid: (N,); joints_m: (N, 21, 3) in the camera frame,
    hand_m: (N, 3), hand_xyzw: (N, 4), NaN where the pose is not valid.
    """

    row: np.ndarray
    track: np.ndarray
    is_seen: np.ndarray
    is_valid: np.ndarray
    joints_m: np.ndarray
    hand_m: np.ndarray
    hand_xyzw: np.ndarray


@dataclass(frozen=True)
class CameraFrames:
    """is_valid: (N,); is_metric: (N,) world units are metres; position: (N, 3) and xyzw: (N, 4)
    of world_from_camera, NaN where not valid; world: (N,) number of the world, -1 where no frame
    of the clip has a valid camera; world_ids: their names."""

    is_valid: np.ndarray
    is_metric: np.ndarray
    scale_kind: np.ndarray
    position: np.ndarray
    xyzw: np.ndarray
    world: np.ndarray
    world_ids: list[str]


@dataclass(frozen=True)
class TakeFrames:
    """A take of N frames, the first of which is `start`.

    pts_s: (N,) their times; end_s: (N,) their ends; clip: (N,) index into clip_ids; is_made: (N,)
    its clip has been worked on by the stages that episodes are made from; is_damaged: (N,) there
    is no true picture; is_active: (N,) an object moves by itself; hand_rows: rows of `hand_poses`.
    """

    take_id: str
    video_id: str
    start: int
    pts_s: np.ndarray
    end_s: np.ndarray
    clip: np.ndarray
    clip_ids: list[str]
    is_made: np.ndarray
    is_damaged: np.ndarray
    is_active: np.ndarray
    camera: CameraFrames
    hands: Mapping[str, HandFrames]
    hand_rows: pa.Table

    def span_of(self, clip: str) -> tuple[int, int]:
        """(first, one past the last) frame of a clip, without the overlap with the one before."""
        (at,) = np.nonzero(self.clip == self.clip_ids.index(clip))
        return (self.start + int(at[0]), self.start + int(at[-1]) + 1) if len(at) else (0, 0)

    @property
    def frames(self) -> np.ndarray:
        """(N,) their indices."""
        return self.start + np.arange(len(self.pts_s))

    @property
    def step_s(self) -> float:
        """Median time between two frames."""
        return float(np.median(self.end_s - self.pts_s))


def takes_of(
    tables: Mapping[str, pa.Table], made: frozenset[str], whose: Literal["wearer", "anyone"]
) -> Iterator[TakeFrames]:
    """The takes of a shard, in the order of their videos and frames.

    made: ids of the clips that all stages above have done; whose: hands are looked at.
    """
    clips = pl.DataFrame(tables["clips"]).sort("video_id", "start_frame")
    by_take = {t: c for (t,), c in clips.group_by("take_id", maintain_order=True)}
    scene = _by_take(tables["scene_reconstruction"], clips)
    hands = _by_take(tables["hand_poses"], clips)
    if whose == "wearer":
        hands = {take: _of_wearer(rows) for take, rows in hands.items()}
    movements = _by_take(tables["object_movements"], clips)
    for take_id, of_take in by_take.items():
        yield _take(
            str(take_id),
            of_take,
            scene.get(take_id, tables["scene_reconstruction"].slice(0, 0)),
            hands.get(take_id, tables["hand_poses"].slice(0, 0)),
            movements.get(take_id, tables["object_movements"].slice(0, 0)),
            made,
        )


def _by_take(rows: pa.Table, clips: pl.DataFrame) -> dict[object, pa.Table]:
    """Rows by take; those in the overlap of clips once."""
    if "is_context" in rows.column_names:
        rows = rows.filter(pc.invert(rows["is_context"]))
    of = pl.DataFrame({"clip_id": pl.from_arrow(rows["clip_id"])}).with_row_index("row")
    joined = of.join(clips.select("clip_id", "take_id"), on="clip_id", how="inner")
    return {
        take: rows.take(pa.array(part["row"].sort()))
        for (take,), part in joined.group_by("take_id")
    }


def _of_wearer(rows: pa.Table) -> pa.Table:
    """Rows of the wearer's hands. One that does not say whose hand it is counts as that."""
    return rows.filter(pc.fill_null(rows["is_wearer"], True))


def _take(
    take_id: str,
    clips: pl.DataFrame,
    scene: pa.Table,
    hand_rows: pa.Table,
    movements: pa.Table,
    made: frozenset[str],
) -> TakeFrames:
    start, end = int(clips["start_frame"][0]), int(clips["end_frame"].max())  # type: ignore[arg-type]
    count = end - start
    clip, pts, ends = _times(clips, scene, start, count)
    ids = clips["clip_id"].to_list()
    at = scene["frame_index"].to_numpy() - start
    is_damaged = np.zeros(count, bool)
    is_damaged[at] = [reason == UNDECODED for reason in scene["invalid_reason"].to_pylist()]
    for first, last in clips["damaged_frames"].explode().drop_nulls().to_list():
        is_damaged[max(first - start, 0) : max(last - start, 0)] = True
    is_active = np.zeros(count, bool)
    for row in movements.select(["start_frame", "end_frame", "state"]).to_pylist():
        if row["state"] == "moving":
            is_active[max(row["start_frame"] - start, 0) : row["end_frame"] - start] = True
    return TakeFrames(
        take_id=take_id,
        video_id=clips["video_id"][0],
        start=start,
        pts_s=pts,
        end_s=ends,
        clip=clip,
        clip_ids=ids,
        is_made=np.array([c in made for c in ids], bool)[clip],
        is_damaged=is_damaged,
        is_active=is_active,
        camera=_camera(scene, at, count),
        hands={side: _hand(hand_rows, side, start, count) for side in SIDES},
        hand_rows=hand_rows,
    )


def _times(
    clips: pl.DataFrame, scene: pa.Table, start: int, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(clip, time, end) of each frame. Times of frames without a row lie evenly between others."""
    clip = np.zeros(count, int)
    known = {start + count: float(clips["end_pts_s"].max())}  # type: ignore[arg-type]
    for index, row in enumerate(clips.iter_rows(named=True)):
        first = row["start_frame"] + row["context_frames"]
        clip[first - start : row["end_frame"] - start] = index
        if not row["context_frames"]:
            known[row["start_frame"]] = row["start_pts_s"]
    known |= dict(zip(scene["frame_index"].to_pylist(), scene["pts_s"].to_pylist(), strict=True))
    frames = np.array(sorted(known))
    edges = np.interp(np.arange(start, start + count + 1), frames, [known[f] for f in frames])
    return clip, edges[:-1], edges[1:]


def _camera(scene: pa.Table, at: np.ndarray, count: int) -> CameraFrames:
    is_valid, is_metric = np.zeros(count, bool), np.zeros(count, bool)
    position, xyzw = np.full((count, 3), np.nan), np.full((count, 4), np.nan)
    world, kind = np.full(count, -1), np.full(count, "arbitrary", dtype=object)
    valid = scene["is_valid"].to_numpy(zero_copy_only=False)
    ids: list[str] = []
    if len(at):
        names = np.array(scene["world_id"].to_pylist(), dtype=object)
        kinds = np.array(scene["scale_kind"].to_pylist(), dtype=object)
        ids = list(dict.fromkeys(names[valid]))
        numbers = {name: number for number, name in enumerate(ids)}
        world[at] = [numbers.get(name, -1) for name in names]
        is_valid[at], kind[at] = valid, kinds
        is_metric[at] = valid & (kinds != "arbitrary")
        rows = scene.filter(pa.array(valid))
        position[at[valid]] = array_of(rows["world_from_camera_m"])
        xyzw[at[valid]] = array_of(rows["world_from_camera_xyzw"])
    return CameraFrames(is_valid, is_metric, kind, position, xyzw, world, ids)


def _hand(rows: pa.Table, side: str, start: int, count: int) -> HandFrames:
    """Of several rows of a frame, that of the track with the most valid ones: people must not be
    mixed, frame by frame."""
    row = np.full(count, -1)
    seen, valid = np.zeros(count, bool), np.zeros(count, bool)
    joints, hand = np.full((count, 21, 3), np.nan), np.full((count, 3), np.nan)
    xyzw = np.full((count, 4), np.nan)
    columns = ["frame_index", "side", "track_id", "is_valid", "score"]
    found = (
        pl.DataFrame(rows.select(columns))
        .with_columns(seen=pl.Series([o != "filled" for o in rows["joints_origin"].to_pylist()]))
        .with_row_index("row")
        .filter(pl.col("side") == side)
        .with_columns(share=pl.col("is_valid").sum().over("track_id"))
        .sort("share", "track_id", "seen", "is_valid", "score")
    )
    at = found["frame_index"].to_numpy() - start
    row[at] = found["row"].to_numpy()  # the best of a frame comes last
    there = np.flatnonzero(row >= 0)
    picked = row[there]
    valid[there] = rows["is_valid"].to_numpy(zero_copy_only=False)[picked]
    seen[there] = [o != "filled" for o in rows["joints_origin"].take(pa.array(picked)).to_pylist()]
    good = there[valid[there]]
    taken = rows.take(pa.array(row[good]))
    joints[good] = array_of(taken["joints_camera_m"])
    hand[good] = array_of(taken["camera_from_hand_m"])
    xyzw[good] = array_of(taken["camera_from_hand_xyzw"])
    tracks = np.full(count, -1)
    numbers = rows["track_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    tracks[there] = numbers[picked]
    return HandFrames(row, tracks, seen, valid, joints, hand, xyzw)
