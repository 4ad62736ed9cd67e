"""Tells where the lake and the ledger still hold, or hold again, what was forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ego_assets.upkeep.erasure.traces import find_traces
from ego_assets.upkeep.problems import FORGOTTEN, Problem
from resources.lake import Lake
from resources.ledger import Ledger
from resources.ledger.contents import Contents
from resources.raw import tombstones


def find_violations(
    lake: Lake, ledger: Ledger, shards: Iterable[str] | None = None
) -> Iterator[Problem]:
    """Search for all videos that have a tombstone, in the lake or in the ledger; of tables only
    these shards, if they are given. Nothing is changed."""
    contents = Contents(ledger)
    buried, in_lake = set(contents.tombstones()), tombstones.in_lake(lake)
    videos = buried | in_lake
    if not videos:
        return
    begun = tombstones.unfinished(lake, sorted(in_lake))
    for video in sorted(begun):
        yield _problem(video, f"{tombstones.FOLDER}/{video}.json", "its erasure was interrupted")
    for video in sorted(buried ^ in_lake):
        where = "the ledger" if video in in_lake else "the lake"
        yield _problem(video, "", f"it was forgotten, and {where} has no tombstone of it")
    chosen = None if shards is None else set(shards)
    for trace in find_traces(lake, videos, chosen):
        detail = f"it was forgotten, and is in {trace.where}"
        yield Problem(FORGOTTEN, trace.table, trace.shard, trace.key, (trace.video_id,), detail)
    for video in sorted(videos):
        for shard in sorted(contents.shards_of(video)):
            if chosen is None or shard in chosen:
                yield _problem(video, "", f"it was forgotten, and is in the ledger, shard {shard}")


def _problem(video: str, key: str, detail: str) -> Problem:
    return Problem(FORGOTTEN, "", "", key, (video,), detail)
