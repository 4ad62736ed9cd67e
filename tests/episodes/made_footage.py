"""Tables of a made video, as the stages above episodes write them: hands move where a test says."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from ego_assets.catalog import TABLES
from ego_assets.episodes.cutter import EpisodeCutter
from ego_assets.episodes.settings import EpisodeSettings
from ego_assets.hands.skeleton import placed_columns
from ego_assets.operator import TablesInput

SHARD = "20261130-0000"
FPS = 30.0


def open_hand(side: str) -> np.ndarray:
    """(21, 3) joints of a flat hand in metres, the palm toward the camera, fingers up."""
    sign = 1.0 if side == "right" else -1.0
    joints = np.zeros((21, 3))
    for finger in range(5):
        for joint in range(4):
            out = 0.05 + 0.025 * joint if finger else 0.02 + 0.02 * joint
            joints[1 + 4 * finger + joint] = [sign * (0.02 * finger - 0.05), -out, 0.004 * joint]
    return joints


@dataclass
class MadeVideo:
    """A video of one take by default: both hands of the wearer circle, the camera is static.

    cuts: where a take ends, and gap_frames later another begins; with an overlap, where a clip
    ends, and the next one of the take begins so many frames before. pts_s: (N + 1,) times, and the
    end.

    wrist_m: (N, 3) of the right hand in the camera, the left one 30 cm beside it; scale: (N,) of
    its place and size, which a picture does not show; is_there and
    is_valid: (N,) of both hands; camera_m, camera_xyzw: (N, 3), (N, 4); camera_valid: (N,). said:
    by a file beside the video.
    """

    count: int = 300
    video_id: str = "00000000000000a1"
    cuts: tuple[int, ...] = ()
    gap_frames: int = 0
    overlap: int = 0
    pts_s: np.ndarray = field(default_factory=lambda: np.empty(0))
    sides: tuple[str, ...] = ("left", "right")
    is_wearer: bool | None = True
    wrist_m: np.ndarray = field(default_factory=lambda: np.empty(0))
    scale: np.ndarray = field(default_factory=lambda: np.empty(0))
    is_there: np.ndarray = field(default_factory=lambda: np.empty(0))
    is_valid: np.ndarray = field(default_factory=lambda: np.empty(0))
    camera_m: np.ndarray = field(default_factory=lambda: np.empty(0))
    camera_xyzw: np.ndarray = field(default_factory=lambda: np.empty(0))
    camera_valid: np.ndarray = field(default_factory=lambda: np.empty(0))
    damaged: tuple[int, ...] = ()
    concealed: tuple[tuple[int, int], ...] = ()
    scale_kind: str = "metric_hands"
    objects: tuple[dict[str, Any], ...] = ()
    unmade: tuple[int, ...] = ()
    said: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = self.count
        angle = 2 * np.pi * np.arange(n) / FPS / 2
        circle = np.stack([0.1 * np.cos(angle), 0.1 * np.sin(angle), np.full(n, 0.5)], axis=1)
        still = np.tile([0.0, 0.0, 0.0, 1.0], (n, 1))
        if not len(self.pts_s):
            self.pts_s = np.arange(n + 1) / FPS
        for name, default in {
            "wrist_m": circle,
            "scale": np.ones(n),
            "is_there": np.ones(n, bool),
            "is_valid": np.ones(n, bool),
            "camera_m": np.zeros((n, 3)),
            "camera_xyzw": still,
            "camera_valid": np.ones(n, bool),
        }.items():
            if not len(getattr(self, name)):
                setattr(self, name, default)

    @property
    def clips(self) -> list[dict[str, Any]]:
        edges = [0, *self.cuts, self.count]
        found = []
        for index, (start, end) in enumerate(pairwise(edges)):
            start += (-self.overlap or self.gap_frames) if index else 0
            take = 0 if self.overlap else index
            found.append(
                {
                    "video_id": self.video_id,
                    "shard": SHARD,
                    "clip_id": f"{self.video_id}-{index:04d}",
                    "clip_index": index,
                    "take_id": f"{self.video_id}-t{take:03d}",
                    "index_in_take": index if self.overlap else 0,
                    "start_frame": start,
                    "end_frame": end,
                    "start_pts_s": self.pts_s[start],
                    "end_pts_s": self.pts_s[end],
                    "context_frames": self.overlap if index else 0,
                    "split_reason": ("length" if self.overlap else "cut") if index else "start",
                    "damaged_frames": [list(d) for d in self.concealed] or None,
                    "estimated_cost": 1.0,
                }
            )
        return found

    def manifest(self) -> dict[str, Any]:
        row = dict.fromkeys(TABLES["video_manifest"].arrow_schema().names)
        return row | {
            "video_id": self.video_id,
            "shard": SHARD,
            "uri": f"/raw/{self.video_id}.mp4",
            "byte_size": 1,
            "sha256": self.video_id * 4,
            "accepted": True,
            "frame_count": self.count,
            "duration_s": float(self.pts_s[-1]),
            **self.said,
        }

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """Rows by table, with the columns that episodes are made from."""
        scene: list[dict[str, Any]] = []
        hands: list[dict[str, Any]] = []
        for index, clip in enumerate(self.clips):
            if index in self.unmade:
                continue
            for frame in range(clip["start_frame"], clip["end_frame"]):
                if any(first <= frame < last for first, last in self.concealed):
                    continue  # no table has rows of such frames
                base = {
                    "clip_id": clip["clip_id"],
                    "frame_index": frame,
                    "pts_s": float(self.pts_s[frame]),
                    "is_context": frame < clip["start_frame"] + clip["context_frames"],
                }
                scene.append(base | self._camera(clip, frame))
                if self.is_there[frame] and frame not in self.damaged:
                    hands += [base | self._hand(clip, side, frame) for side in self.sides]
        return {
            "video_manifest": [self.manifest()],
            "clips": self.clips,
            "scene_reconstruction": scene,
            "hand_poses": hands,
            "object_masks": [
                {"clip_id": clip["clip_id"], "track_id": o["track_id"], "label": o["label"]}
                for o in self.objects
                for clip in self.clips
            ],
            "object_movements": [
                {"clip_id": clip["clip_id"]}
                | {k: v for k, v in o.items() if k != "label"}
                | {
                    "start_frame": max(o["start_frame"], clip["start_frame"]),
                    "end_frame": min(o["end_frame"], clip["end_frame"]),
                }
                for o in self.objects
                for clip in (self.clips if self.overlap else self.clips[:1])
                if o["start_frame"] < clip["end_frame"] and o["end_frame"] > clip["start_frame"]
            ],
        }

    def _camera(self, clip: dict[str, Any], frame: int) -> dict[str, Any]:
        decodes = frame not in self.damaged
        valid = bool(self.camera_valid[frame]) and decodes
        reason = None if valid else "no parallax" if decodes else "the frame does not decode"
        return {
            "world_id": self.clips[0]["clip_id"] if self.overlap else clip["clip_id"],
            "is_valid": valid,
            "invalid_reason": reason,
            "world_from_camera_m": self.camera_m[frame].tolist() if valid else None,
            "world_from_camera_xyzw": self.camera_xyzw[frame].tolist() if valid else None,
            "scale_kind": self.scale_kind,
            "motion_kind": "moving",
        }

    def _hand(self, clip: dict[str, Any], side: str, frame: int) -> dict[str, Any]:
        joints = open_hand(side) + self.wrist_m[frame] - [0.3 if side == "left" else 0.0, 0, 0]
        joints = joints * self.scale[frame]
        return {
            "track_id": f"{clip['take_id']}-h{side}",
            "side": side,
            "is_valid": bool(self.is_valid[frame]),
            "is_wearer": self.is_wearer,
            "joints_origin": "measured",
            "joints_camera_m": joints.tolist(),
            **placed_columns(joints, side),
            "score": 0.9,
        }


def tables_of(*videos: MadeVideo, more: list[dict[str, Any]] | None = None) -> TablesInput:
    """What the operator gets of a shard with these videos. more: rows of rejected files."""
    cutter = EpisodeCutter(EpisodeSettings())
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in cutter.reads}
    for video in videos:
        for name, mine in video.rows().items():
            rows[name] += mine
    rows["video_manifest"] += more or []
    tables = {}
    for name, columns in cutter.reads.items():
        schema = TABLES[name].arrow_schema()
        chosen = pa.schema([schema.field(c) for c in columns])
        filled = [{c: row.get(c) for c in columns} for row in rows[name]]
        tables[name] = pa.Table.from_pylist(filled, schema=chosen)
    done = frozenset(
        c["clip_id"] for v in videos for i, c in enumerate(v.clips) if i not in v.unmade
    )
    made = {SHARD: dict.fromkeys(cutter.reads, done)}
    return TablesInput(SHARD, {SHARD: tables}, made)


def cut(*videos: MadeVideo, more: list[dict[str, Any]] | None = None, **settings: Any) -> Any:
    """The tables that the operator makes, checked against the contract: {table: rows}."""
    made = EpisodeCutter(EpisodeSettings(**settings)).process(tables_of(*videos, more=more))
    for name, rows in made.tables.items():
        table = pa.Table.from_pylist(rows, schema=TABLES[name].arrow_schema())
        assert TABLES[name].violations(table) == [], name
    return made.tables


def bins(footage: list[dict[str, Any]]) -> list[tuple[str, int, int]]:
    """(bin, first frame, one past the last) of each stretch, in order."""
    return [(r["bin"], r["start_frame"], r["end_frame"]) for r in footage]


def without(video: MadeVideo, name: str, start: int, end: int) -> MadeVideo:
    """The same video, where a mask is False from start to end."""
    mask = getattr(video, name).copy()
    mask[start:end] = False
    return replace(video, **{name: mask})
