"""The yield waterfall: seconds of footage in, seconds lost to each rule, seconds kept.

Here: sums over rows of `footage`. Not here: showing them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import polars as pl
import pyarrow as pa

from ego_assets.consent import GROUPED
from ego_assets.episodes.tables import Bin, FootageStretch
from resources.lake import Lake

_TABLE = FootageStretch.table
COLUMNS = ["video_id", "bin", "start_pts_s", "end_pts_s", "episode_id"]
"""Of `footage`, that the sums are made from."""
NOT_SAID = "not said"
Sums = dict[str, dict[str, tuple[float, float]]]
"""{column: {value: (seconds of footage, seconds kept)}}"""


@dataclass(frozen=True)
class Waterfall:
    """Seconds of footage by bin, in the order of the rules; `kept` comes last.

    videos: contents that there is footage of; episodes: how many were made; said: by what files
    beside the videos say, where any does.
    """

    seconds: dict[str, float]
    videos: int
    episodes: int
    said: Sums = field(default_factory=dict)

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
            "by": {
                column: {
                    value: {"footage_s": footage, "kept_s": kept}
                    for value, (footage, kept) in sums.items()
                }
                for column, sums in self.said.items()
            },
        }


def waterfall_of(lake: Lake, shards: Sequence[str] = ()) -> tuple[Waterfall, list[str]]:
    """The waterfall of a lake, or of some of its shards; and the shards that have been made."""
    wanted = sorted(set(shards or lake.shards()))
    read = {shard: lake.read(_TABLE, shard, columns=COLUMNS) for shard in wanted}
    made = {shard: rows for shard, rows in read.items() if rows.num_rows}
    columns = ["video_id", "accepted", *GROUPED]
    videos = (lake.read("video_manifest", shard, columns=columns) for shard in made)
    return waterfall(made.values(), videos), list(made)


def waterfall(footage: Iterable[pa.Table], videos: Iterable[pa.Table] = ()) -> Waterfall:
    """Add up rows of `footage` (the columns COLUMNS), shard by shard. videos: rows of
    `video_manifest` of the same shards, for the sums by what is said of them."""
    tables, footage = list(videos), list(footage)
    names = [*(name for name in get_args(Bin) if name != "kept"), "kept"]
    seconds = dict.fromkeys(names, 0.0)
    contents: set[str] = set()
    episodes = 0
    for rows in footage:
        frame = pl.DataFrame(rows.select(COLUMNS))
        sums = frame.group_by("bin").agg((pl.col("end_pts_s") - pl.col("start_pts_s")).sum())
        for name, total in sums.iter_rows():
            seconds[name] += total
        contents |= set(frame["video_id"])
        episodes += frame["episode_id"].drop_nulls().n_unique()
    said = _said(footage, tables) if tables else {}
    return Waterfall(seconds, len(contents), episodes, said)


def _said(footage: Sequence[pa.Table], videos: Sequence[pa.Table]) -> Sums:
    """Of the columns in which a file beside any video says something, the most footage first."""
    length = pl.col("end_pts_s") - pl.col("start_pts_s")
    kept = length.filter(pl.col("bin") == "kept").sum()
    parts = []
    for rows, manifest in zip(footage, videos, strict=True):
        by_file = pl.DataFrame(manifest).sort("accepted", descending=True)
        of = by_file.unique("video_id", keep="first")  # of one content, the accepted file's
        parts.append(pl.DataFrame(rows.select(COLUMNS)).join(of, on="video_id", how="left"))
    joined = pl.concat(parts)
    found: Sums = {}
    for name in GROUPED:
        if joined[name].null_count() == len(joined):
            continue
        sums = joined.group_by(pl.col(name).fill_null(NOT_SAID).alias("value")).agg(
            length.sum().alias("footage"), kept.alias("kept")
        )
        ordered = sums.sort("footage", "value", descending=[True, False])
        found[name] = {value: (footage, kept) for value, footage, kept in ordered.iter_rows()}
    return found
