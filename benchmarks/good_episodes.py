"""Good tables of episodes, made from the other good tables of a shard by the operator itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.graph_run import SHARD
from ego_assets.catalog import TABLES
from ego_assets.episodes.cutter import EpisodeCutter
from ego_assets.episodes.settings import EpisodeSettings
from ego_assets.operator import TablesInput

Rows = list[dict[str, Any]]


def good_episodes(shard: Mapping[str, Rows]) -> dict[str, Rows]:
    """Rows of `footage`, `episodes`, `episode_frames` and `episode_hands`, by table."""
    cutter = EpisodeCutter(EpisodeSettings(min_length_s=0.5, max_idle_s=600))
    tables = {
        name: TABLES[name].from_rows(shard[name]).select(list(columns))
        for name, columns in cutter.reads.items()
    }
    clips = frozenset(clip["clip_id"] for clip in shard["clips"])
    made = {SHARD: dict.fromkeys(cutter.reads, clips)}
    return cutter.process(TablesInput(SHARD, {SHARD: tables}, made)).tables
