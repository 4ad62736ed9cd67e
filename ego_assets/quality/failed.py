"""Keeps which quality checks failed, shard by shard, for `ego status`.

Dagster keeps the last result of a check, whatever shard that was of. One small file a table:

    <lake>/_baselines/{table}.failed.json     {shard: [{"check", "severity", "reason"}]}
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from ego_assets.feature import LAKE
from resources.lake import Lake
from resources.words import ErasedWords

MOST_SHARDS = 1000
"""Of a table; the names of shards begin with their date, and the last ones are kept."""


def note_failed(lake: Lake, table: str, shard: str, failed: list[dict[str, str]]) -> None:
    """Note what failed in the last look at a shard; nothing, if all is well."""
    key = _key(table)
    with lake.storage.lock(key.replace("/", ".")):
        before = _read(lake, key)
        after = {name: checks for name, checks in before.items() if name != shard}
        if failed:
            after[shard] = failed
        after = dict(sorted(after.items())[-MOST_SHARDS:])
        if after != before:
            lake.storage.write(key, json.dumps(after).encode())


def reword_failed(lake: Lake, table: str, shard: str, words: ErasedWords) -> int:
    """Take words out of what is noted of a shard. Returns how many reasons had any."""
    key, count = _key(table), 0
    with lake.storage.lock(key.replace("/", ".")):
        noted = _read(lake, key)
        for check in noted.get(shard, []):
            if (reason := words.replaced(check["reason"])) != check["reason"]:
                check["reason"], count = reason, count + 1
        if count:
            lake.storage.write(key, json.dumps(noted).encode())
    return count


def failing_shards(lake: Lake, table: str) -> dict[str, dict[str, str]]:
    """{check: {shard: why it failed there}}, by the last look at each shard that still is one."""
    found: dict[str, dict[str, str]] = {}
    for check in failed_checks(lake, [table]):
        found.setdefault(check["check"], {})[check["shard"]] = check["reason"]
    return found


def failed_checks(lake: Lake, tables: Iterable[str]) -> list[dict[str, str]]:
    """List the checks that failed in the last look at each registered shard, errors first."""
    noted = {table: _read(lake, _key(table)) for table in tables}
    known = {*lake.shards(), LAKE} if any(noted.values()) else set()
    found = [
        {"asset": table, "shard": shard} | each
        for table, shards in noted.items()
        for shard, checks in shards.items()
        if shard in known
        for each in checks
    ]
    return sorted(found, key=lambda check: (check["severity"], check["shard"]))


def _key(table: str) -> str:
    return f"_baselines/{table}.failed.json"


def _read(lake: Lake, key: str) -> dict[str, list[dict[str, str]]]:
    try:
        failed: dict[str, list[dict[str, str]]] = json.loads(lake.storage.read(key))
        return failed
    except FileNotFoundError:
        return {}
