"""The objects of an episode: rows of `object_poses` on the frames of a grid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ego_assets.arrays import array_of
from ego_assets.reading import LakeReader

_WHERE = ("clip_id", "track_id", "frame_index", "object_frame")
_POSES = tuple(f"{frame}_from_object_{n}" for frame in ("camera", "world") for n in ("m", "xyzw"))


@dataclass(frozen=True)
class EpisodeObject:
    """An object in the N frames of an episode. poses: (N, 7) position in metres and quaternion
    xyzw, NaN where it has no valid pose; object_frame: what the rotation is measured from;
    scale_kind: where the metres come from."""

    name: str
    track_id: str
    object_frame: str
    poses: np.ndarray
    scale_kind: str

    @property
    def seen(self) -> int:
        """Frames with a pose."""
        return int(np.isfinite(self.poses[:, 0]).sum())

    def said(self) -> dict[str, Any]:
        """What an export says of it."""
        return {
            "name": self.name,
            "track_id": self.track_id,
            "object_frame": self.object_frame,
            "scale_kind": self.scale_kind,
            "frames_with_pose": self.seen,
        }


@dataclass(frozen=True)
class ShardObjects:
    """The valid object poses of a shard in metres, by take."""

    by_take: Mapping[str, pa.Table]
    labels: Mapping[str, str]

    @classmethod
    def read(cls, reader: LakeReader, shard: str) -> ShardObjects:
        """Read the poses, and what the objects are called."""
        clips = reader.table("clips", columns=["clip_id", "take_id"], shards=[shard])
        columns = [*_WHERE, *_POSES, "is_valid", "is_context", "scale_kind"]
        rows = reader.table("object_poses", columns=columns, shards=[shard]).filter(
            pc.field("is_valid") & ~pc.field("is_context") & (pc.field("scale_kind") != "arbitrary")
        )
        takes = dict(zip(*(clips[c].to_pylist() for c in ("clip_id", "take_id")), strict=True))
        of_take = pa.array([takes.get(c) for c in rows["clip_id"].to_pylist()], pa.string())
        rows = rows.append_column("take_id", of_take)
        masks = reader.table("object_masks", columns=["track_id", "label"], shards=[shard])
        named = masks.group_by(["track_id", "label"]).aggregate([]).to_pylist()
        return cls(
            {t: rows.filter(pc.field("take_id") == t) for t in set(takes.values())},
            {row["track_id"]: row["label"] for row in named},
        )

    def of(self, take_id: str, frames: np.ndarray, frame: str) -> list[EpisodeObject]:
        """Objects of an episode with a pose in the frame `camera` or `world`, those that have it
        in most of the frames (N,) first."""
        found = []
        for (track, axes), rows in _tracks(self.by_take.get(take_id)):
            mine = rows["frame_index"].to_numpy()
            at = np.searchsorted(frames, mine).clip(0, len(frames) - 1)
            inside = frames[at] == mine
            poses = np.full((len(frames), 7), np.nan)
            parts = [array_of(rows[f"{frame}_from_object_{n}"]) for n in ("m", "xyzw")]
            poses[at[inside]] = np.concatenate(parts, axis=1)[inside]
            name = f"{self.labels.get(track, 'object')} {track.rpartition('-')[2]}"
            kinds = sorted(set(np.array(rows["scale_kind"].to_pylist())[inside].tolist()))
            found.append(EpisodeObject(name, track, axes, poses, ", ".join(kinds)))
        seen = [each for each in found if each.seen]
        return sorted(seen, key=lambda each: (-each.seen, each.track_id, each.object_frame))


def _tracks(rows: pa.Table | None) -> Iterator[tuple[tuple[str, str], pa.Table]]:
    """Rows by track and object frame: where the frame is another, so is what the rotation says."""
    if rows is None:
        return
    kinds = rows.group_by(["track_id", "object_frame"]).aggregate([]).to_pylist()
    for kind in sorted(kinds, key=lambda k: (k["track_id"], k["object_frame"])):
        track, axes = kind["track_id"], kind["object_frame"]
        is_mine = (pc.field("track_id") == track) & (pc.field("object_frame") == axes)
        yield (track, axes), rows.filter(is_mine)
