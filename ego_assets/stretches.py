"""Videos, clips and episodes of a lake one by one, and what is known of their frames as arrays.

Here: values that `LakeReader.videos`, `clips`, `episodes` and `recordings` give. Not here: whole
tables (`reading`), windows of episodes as tensors (`training`).

Arrays have a row for each frame of the stretch: row n is of frame `start_frame + n`. What is not
known is NaN.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ego_assets.arrays import array_of
from ego_assets.operator import Frame
from ego_assets.rows import SIDES
from ego_assets.vision.geometry import matrix_from_quaternion
from ego_assets.vision.rle import decode_mask

if TYPE_CHECKING:
    from ego_assets.reading import LakeReader
    from ego_assets.vision.lenses.undistorted import UndistortedView

_CAMERA = (
    *("camera_model", "fx_px", "fy_px", "cx_px", "cy_px", "distortion", "intrinsics_source"),
    *("width_px", "height_px"),
)
_MASK = ("track_id", "label", "height_px", "width_px", "rle")


def groups_of(rows: pa.Table, column: str) -> dict[Any, pa.Table]:
    """Split rows by a column, their order within a group kept."""
    keys = rows[column].combine_chunks().dictionary_encode()
    numbers = keys.indices.to_numpy()
    order = np.argsort(numbers, kind="stable")
    cuts = np.searchsorted(numbers[order], np.arange(len(keys.dictionary) + 1))
    # Not slices: pyarrow 26 takes wrong rows of a slice whose column has lists of lists.
    return {
        name: rows.take(pa.array(order[a:b]))
        for name, a, b in zip(keys.dictionary.to_pylist(), cuts, cuts[1:], strict=False)
    }


@dataclass(frozen=True)
class _ShardRows:
    """Rows of a shard, read once for all its stretches that ask for them."""

    reader: LakeReader
    shard: str
    _tables: dict[tuple[str, str], dict[Any, pa.Table]] = field(default_factory=dict)

    def of(self, table: str, key: str, value: Any, columns: Sequence[str]) -> pa.Table:
        """Rows of a table whose column `key` has a value. Ask for the same columns each time."""
        if (table, key) not in self._tables:
            rows = self.reader.table(table, columns=columns, shards=[self.shard])
            self._tables[table, key] = groups_of(rows, key)
        found = self._tables[table, key].get(value)
        if found is None:
            return self.reader.table(table, columns=columns, shards=[])
        return found


@dataclass(frozen=True)
class DecodedMask:
    """A mask of a frame. mask: (H, W) bool, of the full-size, upright picture; side: of hands."""

    frame_index: int
    track_id: str
    label: str
    side: str | None
    mask: np.ndarray


@dataclass(frozen=True)
class VideoReader:
    """Frames [start_frame, end_frame) of a video. row: of its table, as a dict."""

    table: ClassVar[str] = "video_manifest"
    key: ClassVar[str] = "video_id"

    rows: _ShardRows = field(repr=False, compare=False)
    row: Mapping[str, Any] = field(repr=False)
    id: str
    start_frame: int
    end_frame: int

    def __len__(self) -> int:
        return self.end_frame - self.start_frame

    @property
    def video_id(self) -> str:
        return str(self.row["video_id"])

    @property
    def indices(self) -> np.ndarray:
        """(N,) int64 indices of the frames, which join `frame_index` of the tables."""
        return np.arange(self.start_frame, self.end_frame)

    def frames(
        self, *, max_side_px: int | None = None, stride: int = 1, undistorted: bool = False
    ) -> Iterator[Frame]:
        """Decode every `stride`-th frame: upright RGB pictures, in order.

        max_side_px: shrink pictures to this size; `frame.scale` says by how much. undistorted: as
        the camera of `undistorted_view` sees them. Frames that do not decode are left out. Raises
        what `LakeReader.frames` and `undistorted_view` do.
        """
        found = self._frames(max_side_px, stride)
        return self.undistorted_view.frames(found) if undistorted else found

    @cached_property
    def undistorted_view(self) -> UndistortedView:
        """The pinhole camera that stands in for the video's: its intrinsics (`camera`), and the way
        of points, boxes and masks of the tables into its pictures, and back.

        Raises BadInputError if the video has no intrinsics, ModuleNotFoundError without OpenCV.
        """
        try:
            from ego_assets.vision.lenses.undistorted import UndistortedView
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "undistorting needs OpenCV: pip install opencv-python-headless"
            ) from error
        names = ["video_id", "uri", *_CAMERA]
        videos = self.rows.of("video_manifest", "video_id", self.video_id, names)
        return UndistortedView.of_video(videos.to_pylist()[0])

    def _frames(self, max_side_px: int | None, stride: int) -> Iterator[Frame]:
        if stride < 1:
            raise ValueError(f"stride is {stride}: give 1 (every frame) or more")
        reader, shard = self.rows.reader, self.rows.shard
        if stride == 1:
            place = {"shard": shard, "video_id": self.video_id, "context_frames": 0}
            clip = place | {"start_frame": self.start_frame, "end_frame": self.end_frame}
            yield from reader.frames(clip, max_side_px=max_side_px)
            return
        fit = (max_side_px, max_side_px) if max_side_px else None
        with reader.cursor(shard, self.video_id, fit) as cursor:
            for index in range(self.start_frame, self.end_frame, stride):
                if (frame := cursor.frame(index)) is not None:
                    yield frame

    @classmethod
    def of_row(cls, rows: _ShardRows, row: Mapping[str, Any]) -> VideoReader | None:
        if not row["accepted"]:
            return None
        return cls(rows, row, row["video_id"], 0, row["frame_count"])


@dataclass(frozen=True)
class ClipReader(VideoReader):
    """A clip: its frames, and what the tables say of them."""

    table: ClassVar[str] = "clips"
    key: ClassVar[str] = "clip_id"

    @classmethod
    def of_row(cls, rows: _ShardRows, row: Mapping[str, Any]) -> ClipReader:
        return cls(rows, row, row["clip_id"], row["start_frame"], row["end_frame"])

    def without_context(self) -> ClipReader:
        """The same clip without its overlap with the clip before."""
        start = self.row["start_frame"] + self.row["context_frames"]
        return replace(self, start_frame=start)

    def masks(self, of: Literal["hands", "objects"] = "hands") -> Iterator[DecodedMask]:
        """Decode the masks one by one, by frame and track."""
        return self._masks(of, "clip_id", self.id)

    def joints(self, frame: Literal["camera", "world"] = "camera") -> dict[str, np.ndarray]:
        """The wearer's hands by side: (N, 21, 3) float32, metres, in MANO order.

        In the frame of the camera (x right, y down, z forward), or in the world where the camera is
        known in metres. Hands that are not valid are NaN.
        """
        columns = ["clip_id", "frame_index", "side", "is_valid", "is_wearer", "score"]
        rows = self.rows.of("hand_poses", "clip_id", self.id, [*columns, "joints_camera_m"])
        is_wearer = pc.coalesce(pc.field("is_wearer"), pc.scalar(True))
        rows = self._mine(rows.filter(pc.field("is_valid") & is_wearer)).sort_by("score")
        found = self._by_side(rows, "joints_camera_m")  # of two the better one, which comes last
        if frame == "camera":
            return found
        placed = self._cameras(in_metres=True)
        turn, move = placed[:, None, :3, :3], placed[:, None, :3, 3]
        return {
            side: ((turn @ joints[..., None])[..., 0] + move).astype(np.float32)
            for side, joints in found.items()
        }

    def cameras(self) -> np.ndarray:
        """(N, 4, 4) float64 world_from_camera, OpenCV axes, of the frames with a valid camera.

        In metres unless `scale_kind` of `scene_reconstruction` is arbitrary; the world is that of
        its `world_id`.
        """
        return self._cameras(in_metres=False)

    def _cameras(self, in_metres: bool) -> np.ndarray:
        columns = ["clip_id", "frame_index", "is_valid", "scale_kind"]
        columns += ["world_from_camera_m", "world_from_camera_xyzw"]
        rows = self.rows.of("scene_reconstruction", "clip_id", self.id, columns)
        wanted = pc.field("is_valid")
        if in_metres:
            wanted &= pc.field("scale_kind") != "arbitrary"
        return self._poses(self._mine(rows.filter(wanted)))

    def _masks(self, of: str, key: str, value: str) -> Iterator[DecodedMask]:
        table = {"hands": "hand_masks", "objects": "object_masks"}[of]
        side = ["side"] if of == "hands" else []
        columns = [key, "frame_index", "is_context", *_MASK, *side]
        rows = self._mine(self.rows.of(table, key, value, columns))
        if key != "clip_id":  # frames of several clips, each once
            rows = rows.filter(pc.invert(pc.field("is_context")))
        rows = rows.sort_by([("frame_index", "ascending"), ("track_id", "ascending")])
        for batch in rows.to_batches(max_chunksize=256):
            for row in batch.to_pylist():
                mask = decode_mask(row["rle"], row["height_px"], row["width_px"])
                names = row["frame_index"], row["track_id"], row["label"], row.get("side")
                yield DecodedMask(*names, mask)

    def _mine(self, rows: pa.Table) -> pa.Table:
        index = pc.field("frame_index")
        return rows.filter((index >= self.start_frame) & (index < self.end_frame))

    def _by_side(self, rows: pa.Table, column: str) -> dict[str, np.ndarray]:
        found = {}
        for side in SIDES:
            mine = rows.filter(pc.field("side") == side)
            found[side] = np.full((len(self), 21, 3), np.nan, np.float32)
            found[side][mine["frame_index"].to_numpy() - self.start_frame] = array_of(mine[column])
        return found

    def _poses(self, rows: pa.Table) -> np.ndarray:
        rows = rows.filter(pc.field("world_from_camera_m").is_valid())
        found = np.full((len(self), 4, 4), np.nan)
        at = rows["frame_index"].to_numpy() - self.start_frame
        found[at] = np.eye(4)
        found[at, :3, :3] = matrix_from_quaternion(array_of(rows["world_from_camera_xyzw"]))
        found[at, :3, 3] = array_of(rows["world_from_camera_m"])
        return found


@dataclass(frozen=True)
class EpisodeReader(ClipReader):
    """An episode: its frames, and what the tables say of them, hands and cameras cleaned."""

    table: ClassVar[str] = "episodes"
    key: ClassVar[str] = "episode_id"

    @classmethod
    def of_row(cls, rows: _ShardRows, row: Mapping[str, Any]) -> EpisodeReader:
        return cls(rows, row, row["episode_id"], row["start_frame"], row["end_frame"])

    def without_context(self) -> EpisodeReader:
        """Episodes do not overlap."""
        return self

    def masks(self, of: Literal["hands", "objects"] = "hands") -> Iterator[DecodedMask]:
        """Decode the masks of its clips one by one, by frame and track."""
        return self._masks(of, "video_id", self.video_id)

    def joints(self, frame: Literal["camera", "world"] = "camera") -> dict[str, np.ndarray]:
        """The wearer's hands by side, cleaned: (N, 21, 3) float32, metres, in MANO order.

        In the frame of the camera (x right, y down, z forward), or in the world where the camera is
        known in metres.
        """
        columns = ["episode_id", "frame_index", "side", "joints_camera_m", "joints_world_m"]
        rows = self.rows.of("episode_hands", "episode_id", self.id, columns)
        return self._by_side(rows, f"joints_{frame}_m")

    def cameras(self) -> np.ndarray:
        """(N, 4, 4) float64 world_from_camera, OpenCV axes, in metres; gaps are filled."""
        columns = ["episode_id", "frame_index", "world_from_camera_m", "world_from_camera_xyzw"]
        return self._poses(self.rows.of("episode_frames", "episode_id", self.id, columns))


_Reader = TypeVar("_Reader", bound=VideoReader)


@dataclass(frozen=True)
class RecordingReader:
    """What a camera recorded in one go: one file, or its chapters, in whatever shards they are.

    chapters: (shard, video_id) of each file, in order; those that are missing are left out. All
    that it gives is in order of time; `row["recording_start_s"]` of each is when it begins since
    the first picture of the recording (None while a chapter before it is missing).
    """

    reader: LakeReader = field(repr=False, compare=False)
    id: str
    chapters: tuple[tuple[str, str], ...]

    def __len__(self) -> int:
        return len(self.chapters)

    def videos(self) -> Iterator[VideoReader]:
        """Go through the files."""
        return self._of(VideoReader)

    def clips(self, *, context: bool = False) -> Iterator[ClipReader]:
        """Go through the clips of all files; without what they share with the one before, unless
        `context` says so."""
        found = self._of(ClipReader)
        return found if context else (clip.without_context() for clip in found)

    def episodes(self, *, split: str | None = None) -> Iterator[EpisodeReader]:
        """Go through the episodes of all files; of one split, or of all. They end with the file."""
        return (e for e in self._of(EpisodeReader) if split is None or e.row["split"] == split)

    def takes(self) -> list[list[ClipReader]]:
        """The clips, without what they share, by takes that run across the files: a take goes on
        where one file ends and the next one begins.

        Whether the scene changes just there is not looked at, and names of tracks and worlds are
        those of each file (docs/adr/0038).
        """
        ends = {v.video_id: v.end_frame for v in self.videos()}
        before = {after: first for (_, first), (_, after) in pairwise(self.chapters)}
        found: list[list[ClipReader]] = []
        for clip in self.clips():
            last = found[-1][-1] if found else None
            goes_on = last is not None and last.row["take_id"] == clip.row["take_id"]
            if last is not None and clip.row["split_reason"] == "chapter":
                goes_on = (
                    clip.row["recording_start_s"] is not None
                    and before.get(clip.video_id) == last.video_id
                    and last.end_frame == ends[last.video_id]
                )
            if goes_on:
                found[-1].append(clip)
            else:
                found.append([clip])
        return found

    def _of(self, kind: type[_Reader]) -> Iterator[_Reader]:
        for shard, files in groupby(self.chapters, key=lambda c: c[0]):
            names = [video_id for _, video_id in files]
            mine = [r for r in readers_of(kind, self.reader, (), [shard]) if r.video_id in names]
            yield from sorted(mine, key=lambda r: (names.index(r.video_id), r.start_frame))


def recordings_of(reader: LakeReader) -> dict[str, RecordingReader]:
    """{name: recording} of all accepted videos, by the order of names; a video that is no chapter
    is a recording of its own, under its `video_id`."""
    columns = ["accepted", "recording_id", "chapter_index", "video_id"]
    found: dict[str, list[tuple[int, str, str]]] = {}
    for shard in reader.shards("video_manifest"):
        for row in reader.table("video_manifest", columns=columns, shards=[shard]).to_pylist():
            if row["accepted"]:
                name = row["recording_id"] or row["video_id"]
                chapter = (row["chapter_index"] or 0, shard, row["video_id"])
                found.setdefault(name, []).append(chapter)
    return {
        name: RecordingReader(reader, name, tuple(c[1:] for c in sorted(chapters)))
        for name, chapters in sorted(found.items())
    }


def readers_of(
    kind: type[_Reader], reader: LakeReader, there: Iterable[str], shards: Iterable[str] | None
) -> Iterator[_Reader]:
    """Go through the rows of a kind's table, in the order of their names in each shard."""
    for shard in there if shards is None else shards:
        rows = _ShardRows(reader, shard)
        found = reader.table(kind.table, shards=[shard]).to_pylist()
        for row in sorted(found, key=lambda r: str(r[kind.key])):
            if (made := kind.of_row(rows, row)) is not None:
                assert isinstance(made, kind)
                yield made
