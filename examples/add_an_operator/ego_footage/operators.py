"""The operators: tables in, rows out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ego_assets.operator import ClipOutput, TablesInput

if TYPE_CHECKING:
    from ego_footage import FootageSettings


class FootageCounter:
    """A shard to its row of shard_footage."""

    name = "baseline"
    version = "1"
    quality_tier = "baseline"
    weights_hash = ""

    def __init__(self, settings: FootageSettings) -> None:
        self.settings = settings

    def process(self, item: TablesInput) -> ClipOutput:
        tables = item.shards[item.shard]
        clips = tables["clips"].to_pylist()
        if self.settings.with_hands_only:
            seen = set(tables["hand_masks"]["clip_id"].to_pylist())
            clips = [clip for clip in clips if clip["clip_id"] in seen]
        shared = sum(
            clip["context_frames"]
            * (clip["end_pts_s"] - clip["start_pts_s"])
            / (clip["end_frame"] - clip["start_frame"])
            for clip in clips
        )
        length = sum(clip["end_pts_s"] - clip["start_pts_s"] for clip in clips)
        row = {"shard": item.shard, "clips": len(clips), "footage_s": length - shared}
        return ClipOutput({"shard_footage": [row]})


class FootageAdder:
    """The lake to its row of lake_footage."""

    name = "baseline"
    version = "1"
    quality_tier = "baseline"
    weights_hash = ""

    def __init__(self, settings: FootageSettings) -> None:
        self.settings = settings

    def process(self, item: TablesInput) -> ClipOutput:
        rows = [row for t in item.shards.values() for row in t["shard_footage"].to_pylist()]
        row = {
            "shard": item.shard,
            "clips": sum(r["clips"] for r in rows),
            "footage_s": sum(r["footage_s"] for r in rows),
        }
        return ClipOutput({"lake_footage": [row]})
