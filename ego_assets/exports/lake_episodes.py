"""Turns the episodes of a lake into what exporters take.

Here: which episodes, read shard by shard. Not here: the numbers of an episode (`states`), any file
format.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ego_assets.consent import GROUPED, NO_CONSENTS, SAID
from ego_assets.exports.episode import ExportEpisode, Numbers, Words
from ego_assets.exports.faces.blur import blur_of
from ego_assets.exports.grid import ExportError, Grid, make_grid
from ego_assets.exports.lake_joints import JointsOfRobot, ShardJoints
from ego_assets.exports.motion.objects import ShardObjects
from ego_assets.exports.motion.scene import scene_cameras
from ego_assets.exports.settings import ContentSettings
from ego_assets.exports.states import (
    UNPLACED,
    HandArrays,
    camera_columns,
    object_columns,
    state_and_action,
)
from ego_assets.operator import LENS, BadInputError
from ego_assets.reading import LakeReader
from ego_assets.rows import SIDES
from ego_assets.stretches import groups_of
from resources.lake.s3.client import s3_errors
from resources.raw.uris import is_remote

if TYPE_CHECKING:
    from ego_assets.vision.faces.blurring import FaceBlur
    from ego_assets.vision.lenses.undistorted import UndistortedView

_EPISODE = (
    "episode_id",
    "video_id",
    "shard",
    "take_id",
    "start_frame",
    "end_frame",
    "start_pts_s",
    "end_pts_s",
    "split",
    "instruction",
    "instruction_source",
    "objects",
    "world_id",
    "scale_kind",
    *SAID,
)
_HAND = ("episode_id", "frame_index", "side", "origin", "clip_id", "track_id")
_CAMERA = (
    "episode_id",
    "frame_index",
    "pts_s",
    "world_from_camera_m",
    "world_from_camera_xyzw",
)
CAMERA = (*LENS, "width_px", "height_px")
"""Columns of `video_manifest` that provenance repeats."""
_ASKED = 16
"""Places at a time that are asked for what is said beside a video."""
_CONSENT = ("video_id", "accepted", "uri", "consent")
_VIDEO = ("video_id", "accepted", "sha256", "uri", *CAMERA)


def said_in(row: Mapping[str, Any]) -> dict[str, str]:
    """What a row says of its footage. What is not said is left out: older exports keep their
    digests."""
    return {name: row[name] for name in SAID if row.get(name) is not None}


def why_withheld(video: Mapping[str, Any]) -> str | None:
    """Why nothing of a row of `video_manifest` may be exported: by what was said of it since its
    episodes were made, also in files beside it that no run has read yet."""
    from ego_assets.videos.footage.sidecar import FootageSidecarError, footage_columns
    from resources.raw.sidecars import read_footage_sidecars

    consents = [video["consent"]]
    try:
        # A place that is away says nothing new.
        with suppress(OSError, *(s3_errors() if is_remote(video["uri"]) else ())):
            consents.append(footage_columns(read_footage_sidecars(video["uri"]))["consent"])
    except FootageSidecarError as error:
        return str(error)
    found = [consent for consent in consents if consent in NO_CONSENTS]
    return f"consent is {found[0]}" if found else None


def nobody_objects(episode_id: str) -> str | None:
    """Why people leave an episode out, where nobody was asked."""
    return None


def shown_by(
    video: Mapping[str, Any], undistorted: bool
) -> tuple[UndistortedView | None, dict[str, Any]]:
    """What pictures of a row of `video_manifest` go through, and their camera for provenance.

    Raises ExportError if they cannot be undistorted.
    """
    camera = {name: video[name] for name in CAMERA}
    if not undistorted:
        return None, {"camera": camera}
    from ego_assets.vision.lenses.undistorted import UndistortedView

    try:
        view = UndistortedView.of_video(video)
    except BadInputError as error:
        raise ExportError(f"it cannot be undistorted: {error}") from error
    return view, {"camera": view.columns(), "undistorted_from": camera}


def view_of(provenance: Mapping[str, Any]) -> UndistortedView | None:
    """What the pictures of an episode went through, by its provenance; None: as recorded.

    Raises ExportError if the lens cannot be undone.
    """
    lens = provenance.get("undistorted_from")
    of_video = {"video_id": provenance.get("video_id")}
    return None if lens is None else shown_by(of_video | lens, True)[0]


@dataclass
class LakeEpisodes:
    """The episodes of a lake in the order of their names; iterating reads them one shard at a time.

    max_side_px: of the pictures; left_out: says why people leave an episode out, None if they do
    not; skipped: {episode: why it is left out}, filled by iterating; blur: what blurs faces, if
    that is asked for. Raises ExportError without its weights.
    """

    reader: LakeReader
    settings: ContentSettings
    max_side_px: int
    left_out: Callable[[str], str | None] = nobody_objects
    skipped: dict[str, str] = field(default_factory=dict)
    blur: FaceBlur | None = field(init=False)
    _robots: dict[tuple[str, str], JointsOfRobot] = field(default_factory=dict)
    _withheld: dict[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.blur = blur_of(self.settings.faces)

    def __iter__(self) -> Iterator[ExportEpisode]:
        self.skipped.clear()
        self._withheld.clear()
        settings = self.resolved()
        for shard in self.reader.shards("episodes"):
            yield from self.in_shard(shard, settings)

    def resolved(self) -> ContentSettings:
        """The settings with what they leave to the lake: its robot and method, its usual rate."""
        robot = self._robot(self.settings)
        said = {"robot": robot.robot, "method": robot.method} if robot else {}
        fps = self.settings.fps or self._usual_rate()
        return self.settings.model_copy(update=said | {"fps": fps})

    def in_shard(
        self, shard: str, settings: ContentSettings, wanted: Container[str] | None = None
    ) -> Iterator[ExportEpisode]:
        """Episodes of a shard in the order of their names. settings: resolved; wanted: names."""
        rows = self._episodes(shard, list(_EPISODE))
        rows = [r for r in rows if wanted is None or r["episode_id"] in wanted]
        if not rows:
            return
        tables = _ShardTables.read(
            self.reader, shard, self._robot(settings), with_objects=settings.objects > 0
        )
        for row in sorted(rows, key=lambda r: str(r["episode_id"])):
            try:
                if why := self.left_out(row["episode_id"]):
                    raise ExportError(why)
                episode = self._episode(row, tables, settings)
                episode.check()
                yield episode
            except ExportError as error:
                self.skipped[row["episode_id"]] = str(error)

    def lengths(self, shard: str, settings: ContentSettings) -> dict[str, int]:
        """Ticks of the episodes that `in_shard` gives, from times alone where that is enough."""
        if settings.hand != "human":
            return {e.episode_id: len(e) for e in self.in_shard(shard, settings)}
        names = sorted(r["episode_id"] for r in self._episodes(shard, ["episode_id", "split"]))
        if not names:
            return {}
        columns = ["episode_id", "frame_index", "pts_s", "world_from_camera_m"]
        frames = self.reader.table("episode_frames", columns=columns, shards=[shard])
        frames_of = groups_of(frames, "episode_id")
        unplaced: set[str] = set()
        if settings.frame == "world":
            columns = ["episode_id", "world_from_hand_m"]
            hands = self.reader.table("episode_hands", columns=columns, shards=[shard])
            nowhere = hands.filter(pc.field("world_from_hand_m").is_null())
            unplaced = set(nowhere["episode_id"].unique().to_pylist())
        found = {}
        for name in names:
            try:
                if why := self.left_out(name):
                    raise ExportError(why)
                grid = self.grid_of(frames_of.get(name), settings)[1]
                if name in unplaced:
                    raise ExportError(UNPLACED)
                found[name] = len(grid)
            except ExportError as error:
                self.skipped[name] = str(error)
        return found

    def __len__(self) -> int:
        return sum(len(self._episodes(s, ["split"])) for s in self.reader.shards("episodes"))

    def _episodes(self, shard: str, columns: list[str]) -> list[dict[str, Any]]:
        columns = list(dict.fromkeys((*columns, *GROUPED, "episode_id", "video_id")))
        rows = self.reader.table("episodes", columns=columns, shards=[shard])
        if self.settings.split != "all":
            rows = rows.filter(pc.field("split") == self.settings.split)
        chosen = [row for row in rows.to_pylist() if self.settings.takes(row)]
        videos = self.reader.table("video_manifest", columns=_CONSENT, shards=[shard]).to_pylist()
        of = {v["video_id"]: v for v in videos if v["accepted"]}
        ids = {row["video_id"] for row in chosen}
        # Of a video without a row, nothing is known any more.
        why: dict[str, str | None] = dict.fromkeys(ids - of.keys(), "its video is not accepted")
        if unasked := sorted(ids & of.keys() - self._withheld.keys()):
            with ThreadPoolExecutor(_ASKED) as pool:  # on S3 each is a request or two
                asked = pool.map(lambda i: why_withheld(of[i]), unasked)
                self._withheld |= dict(zip(unasked, asked, strict=True))
        why |= {i: self._withheld[i] for i in ids & of.keys()}
        self.skipped |= {r["episode_id"]: w for r in chosen if (w := why[r["video_id"]])}
        return [row for row in chosen if not why[row["video_id"]]]

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
                f"{self.reader.location} has no episodes of the split {self.settings.split}"
                f"{self.settings.words}: "
                "`ego yield` tells what became of the footage"
            )
        return max(seconds, key=lambda rate: (seconds[rate], rate))

    def _robot(self, settings: ContentSettings) -> JointsOfRobot | None:
        """Which joints are exported, if any are; found once."""
        key = settings.robot, settings.method
        if settings.hand != "human" and key not in self._robots:
            found = JointsOfRobot.find(self.reader, *key)
            self._robots |= {key: found, (found.robot, found.method): found}
        return self._robots.get(key) if settings.hand != "human" else None

    def _episode(
        self, row: Mapping[str, Any], tables: _ShardTables, settings: ContentSettings
    ) -> ExportEpisode:
        cameras, grid = self.grid_of(tables.cameras.get(row["episode_id"]), settings)
        frames = cameras["frame_index"].to_numpy()
        hands = HandArrays.of(tables.hands.get(row["episode_id"]), frames, settings.frame)
        joints = tables.joints.of(hands.keys) if tables.joints else None
        video, take = tables.videos[row["video_id"]], row["take_id"]
        objects = (
            tables.objects.of(row["take_id"], frames, settings.frame) if tables.objects else []
        )
        chosen = objects[: settings.objects]
        view, cameras_said = shown_by(video, settings.undistorted)
        faces = {"faces": self.blur.said()} if self.blur else {}
        return ExportEpisode(
            episode_id=row["episode_id"],
            fingerprint=f"{video['sha256']} {row['start_frame']} {row['end_frame']} "
            f"{self.max_side_px} {tables.decoded_by}"
            + (f" {json.dumps(cameras_said)}" if view else "")
            + (f" {json.dumps(faces)}" if faces else ""),
            task=row["instruction"],
            grid=grid,
            columns={
                **state_and_action(hands, joints, grid, with_tips=settings.hand != "robot"),
                "hand_origin": Numbers(grid.take(hands.origin), SIDES),
                **camera_columns(cameras, grid),
                **object_columns([o.poses for o in chosen], settings.objects, grid),
                **({"joints_known": Numbers(grid.take(joints.known), SIDES)} if joints else {}),
            },
            pictures={"observation.images.ego": self._pictures(row, grid, view)},
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
                **cameras_said,
                **faces,
                **({"scene_camera": tables.lenses[take]} if take in tables.lenses else {}),
                **said_in(row),
                **({"environment_state": [o.said() for o in chosen]} if tables.objects else {}),
            },
        )

    def grid_of(self, cameras: pa.Table | None, settings: ContentSettings) -> tuple[pa.Table, Grid]:
        """Rows of `episode_frames` in order, and the grid that is laid over them."""
        if cameras is None:
            raise ExportError("episode_frames has no row of it: materialize the episodes again")
        cameras = cameras.sort_by("frame_index")
        if settings.frame == "world" and cameras["world_from_camera_m"].null_count:
            raise ExportError(UNPLACED)
        return cameras, self.lay_grid(cameras, settings)

    def lay_grid(self, cameras: pa.Table, settings: ContentSettings) -> Grid:
        """The grid over rows of `episode_frames`, in order."""
        frames, pts_s = cameras["frame_index"].to_numpy(), cameras["pts_s"].to_numpy()
        return make_grid(frames, pts_s, fps=settings.fps)

    def _pictures(
        self, row: Mapping[str, Any], grid: Grid, view: UndistortedView | None
    ) -> Callable[[], Iterable[np.ndarray]]:
        clip = {k: row[k] for k in ("shard", "video_id", "start_frame", "end_frame")}

        def read() -> Iterable[np.ndarray]:
            side = self.max_side_px
            if self.blur is not None and side:  # faces are found best in the recorded size
                side = max(side, self.blur.finder.max_side_px)
            frames = self.reader.frames(clip | {"context_frames": 0}, max_side_px=side)
            if self.blur is not None:
                frames = self.blur.frames(frames, grid.needed_frames)
            return grid.show(view.frames(frames) if view else frames)

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
    objects: ShardObjects | None
    lenses: Mapping[str, Mapping[str, Any]]

    @classmethod
    def read(
        cls, reader: LakeReader, shard: str, robot: JointsOfRobot | None, *, with_objects: bool
    ) -> _ShardTables:
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
            groups_of(table("episode_frames", _CAMERA), "episode_id"),
            groups_of(hands, "episode_id"),
            {v["video_id"]: v for v in videos if v["accepted"]},
            robot.read(reader, shard) if robot else None,
            " ".join(reader.versions("video_manifest", shard)),
            ShardObjects.read(reader, shard) if with_objects else None,
            scene_cameras(reader, shard),
        )
