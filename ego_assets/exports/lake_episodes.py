"""Turns the episodes of a lake into what exporters take.

Here: which episodes, and which numbers of them. Not here: any file format. A hand's state is its
wrist, the wrist's rotation as the first two columns of its matrix (Zhou et al., *On the Continuity
of Rotation Representations in Neural Networks*, 2019), and either the five fingertips or the joints
of a robot hand. The action of a tick is the state of the next one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from ego_assets.exports.episode import ExportEpisode, Numbers, Words
from ego_assets.exports.grid import ExportError, Grid, make_grid
from ego_assets.exports.lake_joints import EpisodeJoints, JointsOfRobot, ShardJoints
from ego_assets.reading import LakeReader
from ego_assets.settings import Settings

SIDES = ("left", "right")
ORIGINS = {"measured": 1, "smoothed": 2, "filled": 3}
"""Values of `hand_origin`; 0: no hand, and the state is that of the last tick with one, or 0
without a turn before the first."""
_TIPS = (4, 8, 12, 16, 20)
_FINGERS = ("thumb", "index", "middle", "ring", "little")
_AXES = ("x", "y", "z")
_NO_TURN = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
"""Columns of the rotation of what is not known yet."""
_ROTATION = tuple(f"r{row}{column}" for column in (1, 2) for row in (1, 2, 3))
_EPISODE = (
    "episode_id",
    "video_id",
    "shard",
    "take_id",
    "start_frame",
    "end_frame",
    "split",
    "instruction",
    "instruction_source",
    "objects",
    "world_id",
    "scale_kind",
)
_HAND = ("episode_id", "frame_index", "side", "origin", "clip_id", "track_id")
_CAMERA = (
    "episode_id",
    "frame_index",
    "pts_s",
    "world_from_camera_m",
    "world_from_camera_xyzw",
)
_VIDEO = (
    "video_id",
    "accepted",
    "sha256",
    "camera_model",
    "fx_px",
    "fy_px",
    "cx_px",
    "cy_px",
    "distortion",
    "width_px",
    "height_px",
)


class ContentSettings(Settings):
    """Which episodes are exported, and which numbers of them."""

    split: Literal["train", "validation", "test", "all"] = Field(
        default="train", description="episodes of this split"
    )
    hand: Literal["human", "robot", "both"] = Field(
        default="human",
        description="state and action: wrists and fingertips; wrists and the joints of a robot "
        "hand; or wrists, fingertips and joints",
    )
    robot: str = Field(
        default="", description="which robot's joints; may be left out if the lake has one only"
    )
    method: str = Field(
        default="",
        description="joints of which retargeting method (vector, position, dexpilot); may be left "
        "out if the robot has been mapped by one only",
    )
    frame: Literal["camera", "world"] = Field(
        default="camera",
        description="frame of the positions; world: only episodes whose cameras are known in "
        "metres in every frame",
    )
    fps: int | None = Field(
        default=None,
        ge=1,
        le=240,
        description="frames a second; empty: the whole number that most seconds of footage have",
    )


@dataclass
class LakeEpisodes:
    """The episodes of a lake in the order of their names; iterating reads them one shard at a time.

    max_side_px: of the pictures; skipped: {episode: why it is left out}, filled by iterating.
    """

    reader: LakeReader
    settings: ContentSettings
    max_side_px: int
    skipped: dict[str, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[ExportEpisode]:
        self.skipped.clear()
        robot: JointsOfRobot | None = None
        if self.settings.hand != "human":
            robot = JointsOfRobot.find(self.reader, self.settings.robot, self.settings.method)
        fps = self.settings.fps or self._usual_rate()
        for shard in self.reader.shards("episodes"):
            rows = self._episodes(shard, list(_EPISODE))
            if not rows:
                continue
            tables = _ShardTables.read(self.reader, shard, robot)
            for row in sorted(rows, key=lambda r: str(r["episode_id"])):
                try:
                    episode = self._episode(row, tables, fps)
                    episode.check()
                    yield episode
                except ExportError as error:
                    self.skipped[row["episode_id"]] = str(error)

    def __len__(self) -> int:
        return sum(len(self._episodes(s, ["split"])) for s in self.reader.shards("episodes"))

    def _episodes(self, shard: str, columns: list[str]) -> list[dict[str, Any]]:
        rows = self.reader.table("episodes", columns=columns, shards=[shard])
        if self.settings.split != "all":
            rows = rows.filter(pc.field("split") == self.settings.split)
        found: list[dict[str, Any]] = rows.to_pylist()
        return found

    def _usual_rate(self) -> int:
        """The rate that most seconds of the chosen episodes have, as a whole number."""
        seconds: Counter[int] = Counter()
        for shard in self.reader.shards("episodes"):
            columns = ["split", "start_frame", "end_frame", "start_pts_s", "end_pts_s"]
            for row in self._episodes(shard, columns):
                length = row["end_pts_s"] - row["start_pts_s"]
                rate = (row["end_frame"] - row["start_frame"]) / length
                seconds[max(1, round(rate))] += round(1000 * length)
        if not seconds:
            raise ExportError(
                f"{self.reader.location} has no episodes of the split {self.settings.split}: "
                "`ego yield` tells what became of the footage"
            )
        return max(seconds, key=lambda rate: (seconds[rate], rate))

    def _episode(self, row: Mapping[str, Any], tables: _ShardTables, fps: int) -> ExportEpisode:
        cameras = tables.cameras.get(row["episode_id"])
        if cameras is None:
            raise ExportError("episode_frames has no row of it: materialize the episodes again")
        cameras = cameras.sort_by("frame_index")
        if self.settings.frame == "world" and cameras["world_from_camera_m"].null_count:
            raise ExportError("its cameras are not known in metres in every frame")
        frames, pts_s = cameras["frame_index"].to_numpy(), cameras["pts_s"].to_numpy()
        grid = make_grid(frames, pts_s, fps=fps)
        hands = _Hands.of(tables.hands.get(row["episode_id"]), frames, self.settings.frame)
        joints = tables.joints.of(hands.keys) if tables.joints else None
        state, names = _state(hands, joints, grid, self.settings)
        video = tables.videos[row["video_id"]]
        return ExportEpisode(
            episode_id=row["episode_id"],
            fingerprint=f"{video['sha256']} {row['start_frame']} {row['end_frame']} "
            f"{self.max_side_px} {tables.decoded_by}",
            task=row["instruction"],
            grid=grid,
            columns={
                "observation.state": Numbers(state, names),
                "action": Numbers(np.concatenate([state[1:], state[-1:]]), names),
                "hand_origin": Numbers(grid.take(hands.origin), SIDES),
                **_camera_columns(cameras, grid),
                **({"joints_known": Numbers(grid.take(joints.known), SIDES)} if joints else {}),
            },
            pictures={"observation.images.ego": self._pictures(row, grid)},
            persistent=[Words(row["instruction"], 0)],
            provenance={
                "video_id": row["video_id"],
                "take_id": row["take_id"],
                "sha256": video["sha256"],
                "frames": [row["start_frame"], row["end_frame"]],
                "instruction_source": row["instruction_source"],
                "objects": row["objects"],
                "world_id": row["world_id"],
                "scale_kind": row["scale_kind"],
                "camera": {k: video[k] for k in _VIDEO[3:]},
            },
        )

    def _pictures(self, row: Mapping[str, Any], grid: Grid) -> Callable[[], Iterable[np.ndarray]]:
        clip = {k: row[k] for k in ("shard", "video_id", "start_frame", "end_frame")}

        def read() -> Iterable[np.ndarray]:
            frames = self.reader.frames(clip | {"context_frames": 0}, max_side_px=self.max_side_px)
            return grid.show(frames)

        return read


@dataclass(frozen=True)
class _ShardTables:
    """What the episodes of a shard are made from; tables by episode. decoded_by: version of what
    looked at the raw files."""

    cameras: Mapping[str, pa.Table]
    hands: Mapping[str, pa.Table]
    videos: Mapping[str, Mapping[str, Any]]
    joints: ShardJoints | None
    decoded_by: str

    @classmethod
    def read(cls, reader: LakeReader, shard: str, robot: JointsOfRobot | None) -> _ShardTables:
        def table(name: str, columns: Sequence[str]) -> pa.Table:
            return reader.table(name, columns=columns, shards=[shard])

        places = [
            f"{frame}_{what}"
            for frame in ("camera_from_hand", "world_from_hand")
            for what in ("m", "xyzw")
        ]
        hands = table("episode_hands", [*_HAND, *places, "joints_camera_m", "joints_world_m"])
        videos = table("video_manifest", _VIDEO).to_pylist()
        return cls(
            _by_episode(table("episode_frames", _CAMERA)),
            _by_episode(hands),
            {v["video_id"]: v for v in videos if v["accepted"]},
            robot.read(reader, shard) if robot else None,
            " ".join(reader.versions("video_manifest", shard)),
        )


def _by_episode(rows: pa.Table) -> dict[str, pa.Table]:
    ids = rows["episode_id"].combine_chunks().dictionary_encode()
    numbers = ids.indices.to_numpy()
    order = np.argsort(numbers, kind="stable")
    cuts = np.searchsorted(numbers[order], np.arange(len(ids.dictionary) + 1))
    sorted_rows = rows.take(pa.array(order))
    return {
        name: sorted_rows.slice(int(a), int(b - a))
        for name, a, b in zip(ids.dictionary.to_pylist(), cuts, cuts[1:], strict=False)
    }


@dataclass(frozen=True)
class _Hands:
    """Hands of an episode of N frames. position, xyzw, tips: by side, (N, 3), (N, 4), (N, 5, 3),
    NaN where there is none; origin: (N, 2); keys: by side, (clip, track, frame) of the pose."""

    position: Mapping[str, np.ndarray]
    xyzw: Mapping[str, np.ndarray]
    tips: Mapping[str, np.ndarray]
    origin: np.ndarray
    keys: Mapping[str, list[tuple[str, str, int] | None]]

    @classmethod
    def of(cls, rows: pa.Table | None, frames: np.ndarray, frame: str) -> _Hands:
        count = len(frames)
        position = {s: np.full((count, 3), np.nan) for s in SIDES}
        xyzw = {s: np.full((count, 4), np.nan) for s in SIDES}
        tips = {s: np.full((count, 5, 3), np.nan) for s in SIDES}
        keys: dict[str, list[tuple[str, str, int] | None]] = {s: [None] * count for s in SIDES}
        origin = np.zeros((count, 2), np.int64)
        at = {int(index): n for n, index in enumerate(frames)}
        for row in rows.to_pylist() if rows is not None else ():
            n, side = at[row["frame_index"]], row["side"]
            position[side][n] = row[f"{frame}_from_hand_m"]
            xyzw[side][n] = row[f"{frame}_from_hand_xyzw"]
            tips[side][n] = np.array(row[f"joints_{frame}_m"])[list(_TIPS)]
            origin[n, SIDES.index(side)] = ORIGINS[row["origin"]]
            if row["track_id"] is not None:
                keys[side][n] = (row["clip_id"], row["track_id"], row["frame_index"])
        return cls(position, xyzw, tips, origin, keys)


def _state(
    hands: _Hands, joints: EpisodeJoints | None, grid: Grid, settings: ContentSettings
) -> tuple[np.ndarray, tuple[str, ...]]:
    """(T, n) state on the grid, and the names of the n."""
    parts: list[np.ndarray] = []
    names: list[str] = []
    for side in SIDES:
        columns = [held(hands.position[side]), held(rotation_6d(hands.xyzw[side]), _NO_TURN)]
        said = [f"wrist_{a}" for a in _AXES] + [f"wrist_{r}" for r in _ROTATION]
        if settings.hand != "robot":
            columns.append(held(hands.tips[side].reshape(len(hands.origin), 15)))
            said += [f"{finger}_tip_{a}" for finger in _FINGERS for a in _AXES]
        if joints is not None:
            columns.append(held(joints.values[side]))
            said += list(joints.names[side])
        parts += columns
        names += [f"{side}_{name}" for name in said]
    return grid.take(np.concatenate(parts, axis=1)).astype(np.float32), tuple(names)


def _camera_columns(cameras: pa.Table, grid: Grid) -> dict[str, Numbers]:
    """The camera in the world, and whether it is known."""
    known = pc.is_valid(cameras["world_from_camera_m"]).to_numpy(zero_copy_only=False)
    pose = np.full((len(known), 7), np.nan)
    rows = cameras.filter(pa.array(known))
    if rows.num_rows:
        pose[known, :3] = rows["world_from_camera_m"].to_pylist()
        pose[known, 3:] = rows["world_from_camera_xyzw"].to_pylist()
    state = np.hstack([held(pose[:, :3]), held(rotation_6d(pose[:, 3:]), _NO_TURN)])
    return {
        "camera": Numbers(grid.take(state).astype(np.float32), (*_AXES, *_ROTATION)),
        "camera_known": Numbers(grid.take(known[:, None]), ("known",)),
    }


def rotation_6d(xyzw: np.ndarray) -> np.ndarray:
    """(N, 6) first and second column of the matrices of quaternions (N, 4); NaN stays."""
    x, y, z, w = (xyzw / np.linalg.norm(xyzw, axis=1, keepdims=True)).T
    first = (1 - 2 * (y * y + z * z), 2 * (x * y + z * w), 2 * (x * z - y * w))
    second = (2 * (x * y - z * w), 1 - 2 * (x * x + z * z), 2 * (y * z + x * w))
    return np.stack([*first, *second], axis=1)


def held(values: np.ndarray, before: Sequence[float] | float = 0.0) -> np.ndarray:
    """Values (N, n) where a row of NaN has what the last one before has that is known. Rows before
    the first one are `before`: what comes later must not be seen before its time."""
    known = np.isfinite(values).all(axis=1)
    last = np.maximum.accumulate(np.where(known, np.arange(len(values)), -1))
    found: np.ndarray = np.where(last[:, None] < 0, before, values[last])
    return found
