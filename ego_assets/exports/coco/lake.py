"""Pictures of a lake's episodes with the masks of hands and objects, and the joints of hands."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ego_assets.consent import SAID
from ego_assets.exports.coco.settings import CocoContent
from ego_assets.exports.coco.writer import AnnotatedEpisode
from ego_assets.exports.grid import ExportError
from ego_assets.exports.lake_episodes import (
    CAMERA,
    LakeEpisodes,
    nobody_objects,
    said_in,
    shown_by,
)
from ego_assets.exports.settings import ContentSettings
from ego_assets.reading import LakeReader
from ego_assets.vision.rle import decode_mask, encode_mask, mask_box

if TYPE_CHECKING:
    from ego_assets.vision.lenses.undistorted import UndistortedView

_EPISODE = ("episode_id", "video_id", "shard", "take_id", "start_frame", "end_frame", "split")
_VIDEO = ("video_id", "accepted", "sha256", "uri", *CAMERA)
_PLACE = ("video_id", "clip_id", "frame_index", "track_id")
_MASK = (*_PLACE, "label", "score", "box", "area_px", "height_px", "width_px", "rle", "backend")
_HAND = (*_MASK, "side", "is_wearer", "keypoints_px")
_POSE = (*_PLACE, "is_valid", "joints_px")
Frame = tuple[str, int]
"""(video_id, frame_index)"""
Rows = Mapping[Frame, list[dict[str, Any]]]


@dataclass
class CocoEpisodes:
    """Episodes of a lake, read one shard at a time. skipped: {episode: why it is left out}."""

    reader: LakeReader
    content: CocoContent
    left_out: Callable[[str], str | None] = nobody_objects
    skipped: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        chosen = ContentSettings(
            split=self.content.split, faces=self.content.faces, **self.content.wanted
        )
        self._episodes = LakeEpisodes(self.reader, chosen, max_side_px=0)

    def __len__(self) -> int:
        return len(self._episodes)

    def __iter__(self) -> Iterator[AnnotatedEpisode]:
        self.skipped.clear()
        for shard in self.reader.shards("episodes"):
            episodes = self._episodes._episodes(shard, [*_EPISODE, *SAID])
            if not episodes:
                continue
            times = self._times(shard, episodes)
            read = _Reader(self.reader, shard, {k for of in times.values() for k in of})
            masks = [read.rows("hand_masks", _HAND)]
            if self.content.objects:
                masks.append(read.rows("object_masks", _MASK))
            poses = read.rows("hand_poses", _POSE)
            for row in sorted(episodes, key=lambda r: str(r["episode_id"])):
                try:
                    if why := self.left_out(row["episode_id"]):
                        raise ExportError(why)
                    yield self._episode(row, times[row["episode_id"]], masks, poses, read)
                except ExportError as error:
                    self.skipped[row["episode_id"]] = str(error)

    def _times(
        self, shard: str, episodes: Iterable[Mapping[str, Any]]
    ) -> dict[str, dict[Frame, float]]:
        """The frames of each episode that are taken, and their times."""
        columns = ["episode_id", "frame_index", "pts_s"]
        rows = self.reader.table("episode_frames", columns=columns, shards=[shard])
        of = {row["episode_id"]: row for row in episodes}
        found: dict[str, dict[Frame, float]] = {name: {} for name in of}
        for row in rows.sort_by("frame_index").to_pylist():
            episode = of.get(row["episode_id"])
            if episode is None:
                continue
            if (row["frame_index"] - episode["start_frame"]) % self.content.every == 0:
                place = episode["video_id"], row["frame_index"]
                found[row["episode_id"]][place] = row["pts_s"]
        return found

    def _episode(
        self,
        row: Mapping[str, Any],
        times: Mapping[Frame, float],
        masks: Iterable[Rows],
        poses: Rows,
        read: _Reader,
    ) -> AnnotatedEpisode:
        if not times:
            raise ExportError("episode_frames has no row of it: materialize the episodes again")
        video = read.videos[row["video_id"]]
        size = {"width": video["width_px"], "height": video["height_px"]}
        view, camera = shown_by(video, self.content.undistorted)
        images, annotations = [], []
        for place, pts_s in times.items():
            images.append({"frame_index": place[1], "pts_s": pts_s, **size})
            placed = {(p["clip_id"], p["track_id"]): p for p in poses.get(place, ())}
            for table in masks:
                for mask in table.get(place, ()):
                    if (mask["width_px"], mask["height_px"]) != (size["width"], size["height"]):
                        raise ExportError(
                            f"masks of frame {place[1]} are of {mask['width_px']}x"
                            f"{mask['height_px']}, the video of {size['width']}x{size['height']}"
                        )
                    pose = placed.get((mask["clip_id"], mask["track_id"]))
                    joints = pose["joints_px"] if pose and pose["is_valid"] else None
                    joints = joints or mask.get("keypoints_px")
                    if view is not None:
                        mask, joints = _seen(mask, view), _points(joints, view)
                    if mask["area_px"]:
                        annotations.append({"frame_index": place[1]} | _annotation(mask, joints))
        clip = {k: row[k] for k in ("shard", "video_id", "start_frame", "end_frame")}
        wanted = {frame for _, frame in times}
        blur = self._episodes.blur
        faces = {"faces": blur.said()} if blur else {}

        def pictures() -> Iterator[tuple[int, np.ndarray]]:
            frames = self.reader.frames(clip | {"context_frames": 0})
            for frame in blur.frames(frames, wanted) if blur else frames:
                if frame.index in wanted:
                    yield frame.index, view.picture(frame.image) if view else frame.image

        return AnnotatedEpisode(
            row["episode_id"],
            f"{video['sha256']} {read.decoded_by}"
            + (f" {json.dumps(camera)}" if view else "")
            + (f" {json.dumps(faces)}" if blur else ""),
            images,
            annotations,
            pictures,
            {k: row[k] for k in _EPISODE}
            | {"sha256": video["sha256"]}
            | camera
            | faces
            | said_in(row),
        )


class _Reader:
    """Rows of a shard's tables in some of its frames."""

    def __init__(self, reader: LakeReader, shard: str, frames: set[Frame]) -> None:
        self._reader, self._shard, self._frames = reader, shard, frames
        self._indices = pa.array({frame for _, frame in frames}, pa.int32())
        videos = reader.table("video_manifest", columns=_VIDEO, shards=[shard]).to_pylist()
        self.videos = {video["video_id"]: video for video in videos if video["accepted"]}
        self.decoded_by = " ".join(reader.versions("video_manifest", shard))

    def rows(self, table: str, columns: Iterable[str]) -> Rows:
        """Rows by frame, in the order of their tracks."""
        rows = self._reader.table(table, columns=list(columns), shards=[self._shard], context=False)
        rows = rows.filter(pc.is_in(rows["frame_index"], value_set=self._indices))
        found: dict[Frame, list[dict[str, Any]]] = defaultdict(list)
        for row in rows.to_pylist():
            place = row["video_id"], row["frame_index"]
            if place in self._frames:
                found[place].append(row)
        for of_frame in found.values():
            of_frame.sort(key=lambda row: str(row["track_id"]))
        return found


def _seen(mask: Mapping[str, Any], view: UndistortedView) -> dict[str, Any]:
    """A row of a mask table with its mask as a view shows it."""
    shown = view.mask(decode_mask(mask["rle"], mask["height_px"], mask["width_px"]))
    found = {"rle": encode_mask(shown), "box": mask_box(shown), "area_px": int(shown.sum())}
    return {**mask, **found}


def _points(joints: list[list[float]] | None, view: UndistortedView) -> list[list[float]] | None:
    """Joints as a view shows them; what it cannot show lies outside of every picture."""
    if joints is None:
        return None
    found: list[list[float]] = np.nan_to_num(view.points(np.array(joints)), nan=-1e4).tolist()
    return found


def _annotation(mask: Mapping[str, Any], joints: list[list[float]] | None) -> dict[str, Any]:
    """A row of a mask table as COCO has it."""
    size = [mask["height_px"], mask["width_px"]]
    left, top, right, bottom = mask["box"]
    made = {
        "category": mask["label"],
        "segmentation": {"size": size, "counts": mask["rle"].decode("ascii")},
        "area": mask["area_px"],
        "bbox": [left, top, right - left, bottom - top],
        "iscrowd": 0,
        "track_id": mask["track_id"],
        "score": mask["score"],
        "backend": mask["backend"],
    }
    if "side" not in mask:
        return made
    keypoints = _keypoints(joints, size)
    return made | {
        "category": f"{mask['side']} hand",
        "is_wearer": mask["is_wearer"],
        "keypoints": keypoints,
        "num_keypoints": sum(v > 0 for v in keypoints[2::3]),
    }


def _keypoints(joints: list[list[float]] | None, size: list[int]) -> list[float]:
    """x, y, v of 21 joints: v is 2 inside of the picture, and all are 0 where there is no joint."""
    found: list[float] = []
    for x, y in joints or [[-1.0, -1.0]] * 21:
        inside = 0 <= x < size[1] and 0 <= y < size[0]
        found += [x, y, 2] if inside else [0, 0, 0]
    return found
