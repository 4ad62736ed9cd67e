"""What good shards looked like: small histograms in the lake, one file a table.

    <lake>/_baselines/{table}.json            histograms of the last good shards
    <lake>/_baselines/{table}.streak.json     videos without a row, by shard
    <lake>/_baselines/{table}.warnings.json   probes that warned, by shard

Here: reading and writing them. Not here: what is compared (`ego_assets.quality.drift`). `accept`
is how a person says that a shift was meant: the baseline begins anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from ego_assets.quality.drift import Histograms, Run
from resources.lake import Lake

FOLDER = "_baselines"
STREAK_SHARDS = 4096


def good_shards(lake: Lake, table: str, *, but: str) -> list[Histograms]:
    """Histograms of the good shards, oldest first, without the shard `but`."""
    return [h for shard, h in _read(lake, _key(table)).items() if shard != but]


def remember_good(lake: Lake, table: str, shard: str, found: Histograms, window: int) -> None:
    """Add a good shard; only the last `window` are kept. Doing it twice changes nothing."""
    _put(lake, _key(table), shard, found, window)


def forget(lake: Lake, table: str, shard: str) -> None:
    """Take a shard out of the baseline: it is not good any more."""
    if shard in _read(lake, _key(table)):
        _put(lake, _key(table), shard, None, None)


def streak(lake: Lake, table: str, shard: str, run: Run) -> tuple[list[Run], int]:
    """Note what a shard has; the runs of all known shards in their order, and its place there."""
    key = f"{FOLDER}/{table}.streak.json"
    runs = _put(lake, key, shard, asdict(run), STREAK_SHARDS)
    runs[shard] = asdict(run)  # one that is too old to be kept is judged all the same
    names = sorted(runs)
    return [Run(**runs[name]) for name in names], names.index(shard)


def warnings(
    lake: Lake, table: str, shard: str, names: Iterable[str], window: int
) -> list[set[str]]:
    """Note which probes warn of a shard; the same of the last `window` shards, good or not."""
    found = _put(lake, f"{FOLDER}/{table}.warnings.json", shard, sorted(names), window)
    return [set(v) for v in found.values()]


def accept(lake: Lake, tables: Iterable[str]) -> list[str]:
    """Begin the baselines of these tables anew. Returns those that had one; what it was is kept
    beside it, as `{table}.before.json`."""
    begun = []
    for table in tables:
        key = _key(table)
        with lake.storage.lock(key.replace("/", ".")):
            before = _read(lake, key)
            if before:
                lake.storage.write(f"{FOLDER}/{table}.before.json", json.dumps(before).encode())
                lake.storage.delete(key)
                begun.append(table)
    return begun


def _key(table: str) -> str:
    return f"{FOLDER}/{table}.json"


def _read(lake: Lake, key: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(lake.storage.read(key))
        return found
    except FileNotFoundError:
        return {}


def _put(lake: Lake, key: str, shard: str, value: Any | None, window: int | None) -> dict[str, Any]:
    """Set (or, with None, drop) the entry of a shard; the last `window` by name stay."""
    with lake.storage.lock(key.replace("/", ".")):
        before = _read(lake, key)
        after = {name: v for name, v in before.items() if name != shard}
        if value is not None:
            after[shard] = value
        # Names of shards begin with their date: sorting is by age, whatever order they ran in.
        after = dict(sorted(after.items())[-window if window else 0 :])
        if after != before:
            lake.storage.write(key, json.dumps(after).encode())
    return after
