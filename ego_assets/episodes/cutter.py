"""Makes the episodes of a shard from its tables.

Here: the operator of the stage, tables in and rows out. Not here: the rules (`rules`), the
cleaning (`cleaning`), the words (`words`).
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from ego_assets.consent import SAID, split_key
from ego_assets.episodes.cleaning import (
    ABSENT,
    CleanPath,
    clean,
)
from ego_assets.episodes.rules import TakeStretch, refusal, stretches
from ego_assets.episodes.settings import EpisodeSettings
from ego_assets.episodes.takes import READS, TakeFrames, takes_of
from ego_assets.episodes.trajectories import EpisodeCameras, hand_rows, in_hand
from ego_assets.episodes.words import (
    EPISODE_PLACE,
    EpisodeFacts,
    find_captioner,
    instruction,
    version_of,
)
from ego_assets.operator import ClipOutput, Rows, TablesInput
from ego_assets.quality.blame import failed_clips, reads_of_probes, signature

MOVED_PX = 20.0
"""What a hand holds is moved, not only held, where it gets so far in the picture."""
_MADE_BY = ("scene_reconstruction", "hand_poses", "object_movements")
"""Tables without whose item a clip counts as not processed."""


class EpisodeCutter:
    """The backend `rules` of the operator `episode_cutter`."""

    name = "rules"
    version = "3"
    quality_tier = "baseline"
    weights_hash = ""

    def __init__(self, settings: EpisodeSettings) -> None:
        self.settings = settings
        if settings.captioner:
            find_captioner(settings.captioner)
        probed = reads_of_probes(settings.failed_checks, READS)
        self.reads = {
            table: tuple(dict.fromkeys((*columns, *probed.get(table, ()))))
            for table, columns in READS.items()
        }

    @staticmethod
    def identity(settings: EpisodeSettings, root: Path) -> str:
        """What results depend on beside the settings: the probes, and the captioner's package."""
        captioner = version_of(settings.captioner) if settings.captioner else ""
        return " ".join(filter(None, (signature(settings.failed_checks, READS), captioner)))

    def process(self, item: TablesInput) -> ClipOutput:
        """Rows of `footage`, `episodes`, `episode_frames` and `episode_hands` of a shard."""
        tables = item.shards[item.shard]
        made = item.made.get(item.shard, {})
        done = [made.get(table, frozenset[str]()) for table in _MADE_BY]
        failed = failed_clips(self.settings.failed_checks, tables)
        rows = _Rows(item.shard, self.settings, tables, item.wearers)
        videos = tables["video_manifest"].sort_by("video_id").to_pylist()
        accepted = {video["video_id"]: video for video in videos if video["accepted"]}
        refused = {v: why for v in accepted if (why := refusal(accepted[v], self.settings))}
        by_video: dict[str, list[tuple[TakeFrames, list[TakeStretch]]]] = defaultdict(list)
        for take in takes_of(tables, frozenset.intersection(*done), self.settings.whose_hands):
            if take.video_id not in refused:
                by_video[take.video_id].append((take, stretches(take, self.settings, failed)))
        for video_id, video in accepted.items():
            if video_id in refused:
                rows.add_refused(video, *refused[video_id])
            else:
                rows.add_video(video, by_video.get(video_id, []))
        rows.add_rejected(tables["video_manifest"])
        kept = sum(r["end_pts_s"] - r["start_pts_s"] for r in rows.episodes)
        return ClipOutput(
            tables={
                "footage": rows.footage,
                "episodes": rows.episodes,
                "episode_frames": rows.frames,
                "episode_hands": rows.hands,
            },
            notes={"episodes": len(rows.episodes), "seconds kept": round(kept, 1)},
        )


@dataclass(frozen=True)
class _Objects:
    """{(clip, track): label}, and the movements of each clip."""

    labels: Mapping[tuple[str, str], str]
    movements: Mapping[str, Sequence[Mapping[str, Any]]]


class _Rows:
    """The rows of a shard, episode by episode."""

    def __init__(
        self,
        shard: str,
        settings: EpisodeSettings,
        tables: Mapping[str, pa.Table],
        elsewhere: Mapping[str, str],
    ) -> None:
        self.shard = shard
        self.settings = settings
        self.footage: Rows = []
        self.episodes: Rows = []
        self.frames: Rows = []
        self.hands: Rows = []
        self._objects = _objects_of(tables)
        manifest = tables["video_manifest"].to_pylist()
        self._videos = {v["video_id"]: v for v in manifest if v["accepted"]}
        # Of chapters whose files name several, each keeps its own.
        named = [
            (v["recording_id"], v["person"])
            for v in manifest
            if v["accepted"] and v["person"] and v["recording_id"]
        ]
        self._wearers = dict(sorted([*named, *elsewhere.items()], key=lambda n: str(n[1])))

    def add_video(
        self, video: Mapping[str, Any], takes: Sequence[tuple[TakeFrames, list[TakeStretch]]]
    ) -> None:
        """The stretches of an accepted video: its takes, and what lies between them."""
        frame, second = 0, 0.0
        for take, found in takes:
            self._gap(video, frame, take.start, second, float(take.pts_s[0]), "between clips")
            for stretch in found:
                self._stretch(take, stretch)
            frame, second = take.start + len(take.pts_s), float(take.end_s[-1])
        why = "between clips" if takes else "not processed"
        self._gap(video, frame, video["frame_count"], second, video["duration_s"], why)

    def add_refused(self, video: Mapping[str, Any], why: str, detail: str) -> None:
        """The one stretch of an accepted video that may not be used."""
        self._gap(video, 0, video["frame_count"], 0.0, video["duration_s"], why, detail)

    def add_rejected(self, manifest: pa.Table) -> None:
        """A row for each content that was rejected, with the duration that is known of it."""
        rejected = pl.DataFrame(manifest).filter(~pl.col("accepted"))
        for (video_id,), part in sorted(rejected.group_by("video_id"), key=lambda g: str(g[0])):
            reasons = sorted({str(r) for r in part["reject_reason"].drop_nulls()})
            base = {"video_id": video_id, "shard": self.shard, "bin": "rejected"}
            self.footage.append(
                base
                | {"start_frame": 0, "end_frame": 0, "start_pts_s": 0.0}
                | {"end_pts_s": float(part["duration_s"].fill_null(0.0).sum())}
                | {"take_id": None, "episode_id": None, "detail": ", ".join(reasons) or None}
            )

    def _gap(
        self,
        video: Mapping[str, Any],
        first: int,
        last: int,
        start_s: float,
        end_s: float,
        why: str,
        detail: str | None = None,
    ) -> None:
        if last <= first and end_s - start_s < 1e-6:
            return
        self.footage.append(
            {
                "video_id": video["video_id"],
                "shard": self.shard,
                "bin": why,
                "start_frame": first,
                "end_frame": max(last, first),
                "start_pts_s": start_s,
                "end_pts_s": max(end_s, start_s),
                "take_id": None,
                "episode_id": None,
                "detail": detail,
            }
        )

    def _stretch(self, take: TakeFrames, stretch: TakeStretch) -> None:
        first, last = stretch.first, stretch.last
        kept = stretch.why == "kept"
        place = {
            "video_id": take.video_id,
            "shard": self.shard,
            "start_frame": take.start + first,
            "end_frame": take.start + last,
            "start_pts_s": float(take.pts_s[first]),
            "end_pts_s": float(take.end_s[last - 1]),
            "take_id": take.take_id,
        }
        episode_id = f"{take.take_id}-e{take.start + first:06d}" if kept else None
        more = {"bin": stretch.why, "episode_id": episode_id, "detail": stretch.detail}
        self.footage.append(place | more)
        if kept:
            self._episode(take, stretch, place | {"episode_id": episode_id})

    def _episode(self, take: TakeFrames, stretch: TakeStretch, place: dict[str, Any]) -> None:
        here = slice(stretch.first, stretch.last)
        camera = EpisodeCameras.of(take, here, self.settings.fill_gap_s)
        base = {k: place[k] for k in ("video_id", "shard", "episode_id")}
        self.frames += camera.rows(take, here, base)
        paths = {side: self._clean(take, side, here, camera) for side in take.hands}
        sides = [side for side, path in paths.items() if (path.origin != ABSENT).any()]
        rows = [r for side in sides for r in hand_rows(take, side, here, paths[side], camera)]
        self.hands += [base | row for row in rows]
        labels, is_moved = self._held(take, place["start_frame"], place["end_frame"])
        video = self._videos[take.video_id]
        wearer = video["person"] or self._wearers.get(video["recording_id"])
        facts = EpisodeFacts(
            uri=video["uri"],
            stream_index=video["video_stream_index"] or 0,
            objects=labels,
            is_moved=is_moved,
            sides=sides,
            task=video["task"],
            **{key: place[key] for key in EPISODE_PLACE},
        )
        settings = self.settings
        words = instruction(
            facts,
            settings.instruction,
            settings.instruction_without_objects,
            settings.captioner,
        )
        worlds = take.camera.world[here]
        world = worlds[worlds >= 0]
        before, after = ([getattr(p, n) for p in paths.values()] for n in ("before_mm", "after_mm"))
        self.episodes.append(
            place
            | {
                "recording_id": video["recording_id"],
                "recording_start_s": _plus(video["recording_start_s"], place["start_pts_s"]),
                "split": split_of(split_key(video | {"person": wearer}), settings),
                "instruction": words.text,
                "instruction_source": words.source,
                "objects": labels,
                "left_hand_share": float((paths["left"].origin != ABSENT).mean()),
                "right_hand_share": float((paths["right"].origin != ABSENT).mean()),
                "valid_hand_share": stretch.valid_hand_share,
                "valid_camera_share": float(take.camera.is_valid[here].mean()),
                "filled_hand_share": sum(r["origin"] == "filled" for r in rows) / max(len(rows), 1),
                "rejected_hand_rows": sum(p.rejected for p in paths.values()),
                "jitter_before_mm": _mean(before),
                "jitter_after_mm": _mean(after),
                "world_id": take.camera.world_ids[world[0]] if len(world) else None,
                "scale_kind": _scale_kind(take, here),
                **{name: video[name] for name in SAID},
            }
        )

    def _clean(self, take: TakeFrames, side: str, here: slice, camera: EpisodeCameras) -> CleanPath:
        """A hand's path, cleaned in the world where the camera is known in metres all along."""
        hand, settings = take.hands[side], self.settings
        position, xyzw, local = in_hand(
            hand.hand_m[here], hand.hand_xyzw[here], hand.joints_m[here]
        )
        if camera.is_whole:
            position, xyzw = camera.to_world(position, xyzw)
        return clean(
            take.pts_s[here],
            hand.track[here],
            position,
            xyzw,
            local,
            fill_gap_s=settings.fill_gap_s,
            outlier_m=settings.outlier_m,
            smoothing_s=settings.smoothing_s,
        )

    def _held(self, take: TakeFrames, start: int, end: int) -> tuple[list[str], bool]:
        """(labels of what is held or touched from start to end, the longest first; whether any of
        it is moved)."""
        frames: dict[str, int] = defaultdict(int)
        is_moved = False
        for clip in dict.fromkeys(take.clip_ids):
            first, last = take.span_of(clip)  # the clip before has the overlap, too
            first, last = max(first, start), min(last, end)
            for row in self._objects.movements.get(clip, ()):
                shared = min(row["end_frame"], last) - max(row["start_frame"], first)
                if shared <= 0 or not (row["state"] == "held" or row["touching_side"]):
                    continue
                label = self._objects.labels.get((clip, row["track_id"]), "object")
                frames[label] += shared
                is_moved |= row["displacement_px"] >= MOVED_PX
        return sorted(frames, key=lambda label: (-frames[label], label)), is_moved


def split_of(whose: str, settings: EpisodeSettings) -> str:
    """The split of all footage with one `split_key`: it depends on nothing but that and the seed,
    so it stays when others come or go."""
    digest = hashlib.sha256(f"{settings.split_seed}/{whose}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < settings.test_share:
        return "test"
    return "validation" if place < settings.test_share + settings.validation_share else "train"


def _objects_of(tables: Mapping[str, pa.Table]) -> _Objects:
    masks = pl.DataFrame(tables["object_masks"].select(["clip_id", "track_id", "label"])).unique()
    movements: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in tables["object_movements"].select(READS["object_movements"]).to_pylist():
        movements[row["clip_id"]].append(row)
    return _Objects({(c, t): label for c, t, label in masks.sort("label").iter_rows()}, movements)


def _scale_kind(take: TakeFrames, here: slice) -> str:
    kinds = take.camera.scale_kind[here][take.camera.is_metric[here]]
    return str(kinds[0]) if len(kinds) else "arbitrary"


def _plus(began_s: float | None, second: float) -> float | None:
    return None if began_s is None else began_s + second


def _mean(values: Sequence[float]) -> float | None:
    known = [v for v in values if np.isfinite(v)]
    return float(np.mean(known)) if known else None
