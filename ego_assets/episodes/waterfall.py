"""The yield waterfall: seconds of footage in, seconds lost to each rule, seconds kept.

Here: sums over rows of `footage`. Not here: showing them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import polars as pl
import pyarrow as pa

from ego_assets.episodes.tables import Bin, FootageStretch
from resources.lake import Lake

_TABLE = FootageStretch.table
COLUMNS = ["video_id", "bin", "start_pts_s", "end_pts_s", "episode_id"]
"""Of `footage`, that the sums are made from."""


@dataclass(frozen=True)
class Waterfall:
    """Seconds of footage by bin, in the order of the rules; `kept` comes last.

    videos: contents that there is footage of; episodes: how many were made.
    """

    seconds: dict[str, float]
    videos: int
    episodes: int

    @property
    def total_s(self) -> float:
        return sum(self.seconds.values())

    @property
    def kept_s(self) -> float:
        return self.seconds["kept"]

    @property
    def kept_share(self) -> float:
        return self.kept_s / self.total_s if self.total_s else 0.0

    def steps(self) -> list[tuple[str, float]]:
        """(name, seconds left) after each rule that drops something, from all of it to what is
        kept."""
        left = self.total_s
        found = [("footage", left)]
        for name, lost in self.seconds.items():
            if lost and name != "kept":
                left -= lost
                found.append((name, max(left, 0.0)))
        return [*found, ("kept", self.kept_s)]

    def as_json(self) -> dict[str, Any]:
        return {
            "footage_s": self.total_s,
            "kept_s": self.kept_s,
            "kept_share": self.kept_share,
            "videos": self.videos,
            "episodes": self.episodes,
            "lost_s": {n: s for n, s in self.seconds.items() if n != "kept" and s},
        }


def waterfall_of(lake: Lake, shards: Sequence[str] = ()) -> tuple[Waterfall, list[str]]:
    """The waterfall of a lake, or of some of its shards; and the shards that have been made."""
    wanted = sorted(set(shards or lake.shards()))
    read = {shard: lake.read(_TABLE, shard, columns=COLUMNS) for shard in wanted}
    made = {shard: rows for shard, rows in read.items() if rows.num_rows}
    return waterfall(made.values()), list(made)


def waterfall(footage: Iterable[pa.Table]) -> Waterfall:
    """Add up rows of `footage` (the columns COLUMNS), shard by shard."""
    names = [*(name for name in get_args(Bin) if name != "kept"), "kept"]
    seconds = dict.fromkeys(names, 0.0)
    videos: set[str] = set()
    episodes = 0
    for rows in footage:
        frame = pl.DataFrame(rows.select(COLUMNS))
        sums = frame.group_by("bin").agg((pl.col("end_pts_s") - pl.col("start_pts_s")).sum())
        for name, total in sums.iter_rows():
            seconds[name] += total
        videos |= set(frame["video_id"])
        episodes += frame["episode_id"].drop_nulls().n_unique()
    return Waterfall(seconds, len(videos), episodes)
