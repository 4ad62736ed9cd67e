"""Earlier versions of a shard's table: kept when a compaction replaces rows, and brought back.

Layout: `{table}/_history/{shard}/{name}.parquet`, the file as it was, and beside it
`{name}.json`, its checksums. A version is never written again: keeping and bringing back are links
in a folder and copies inside the server on S3. Not here: the ledger (`ego_assets.stages.rollback`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from resources.lake.lake import Lake

CURRENT = "current"
FLOOR = ".floor"
"""`{unit}.{token}.floor` among fragments: the unit's attempts up to this token are void."""


@dataclass(frozen=True)
class Version:
    """A shard's table as it was once. made_at: of its newest rows; runs: {run id: units}."""

    name: str
    token: int
    made_at: str
    runs: Mapping[str, int]
    fingerprints: Mapping[str, str]
    tokens: Mapping[str, int]
    run_of: Mapping[str, str]


def keep_count() -> int:
    """EGO_KEEP_VERSIONS: how many earlier versions of a shard's table are kept; 3 unless set."""
    return int(os.environ.get("EGO_KEEP_VERSIONS") or 3)


def versions(lake: Lake, table: str, shard: str) -> list[Version]:
    """The current one and those that are kept, the newest rows first."""
    names = [CURRENT] if lake.storage.exists(key_of(table, shard, CURRENT)) else []
    names += kept(lake, table, shard)
    found = [_version(lake, table, shard, name) for name in names]
    return sorted(found, key=lambda v: (-v.token, v.name != CURRENT))


def kept(lake: Lake, table: str, shard: str) -> list[str]:
    """Names of the earlier versions, the newest rows first."""
    keys = lake.storage.list(f"{table}/_history/{shard}")
    names = [k.rpartition("/")[2].removesuffix(".parquet") for k in keys if k.endswith(".parquet")]
    return sorted(names, reverse=True)


def key_of(table: str, shard: str, name: str) -> str:
    return (
        f"{table}/{shard}.parquet"
        if name == CURRENT
        else f"{table}/_history/{shard}/{name}.parquet"
    )


def left_by(found: list[Version], run_id: str) -> Version | None:
    """The version that holds most of what a run made; of equals, the newest. None: it has none."""
    mine = [v for v in found if run_id in v.runs]
    return max(mine, key=lambda v: (v.runs[run_id], v.token, v.name == CURRENT), default=None)


def archive(lake: Lake, table: str, shard: str, units: Mapping[str, dict[str, Any]]) -> None:
    """Keep the compacted file, which holds `units`; the caller has the compaction's lock."""
    if not keep_count():
        return
    name = _name(units)
    target = key_of(table, shard, name)
    if lake.storage.exists(target):
        return
    sums = [json.loads(lake.storage.read(k)) for k in checksum_keys(lake, table, shard)]
    lake.storage.write(target.removesuffix("parquet") + "json", json.dumps(sums).encode())
    lake.storage.copy(key_of(table, shard, CURRENT), target)
    for old in kept(lake, table, shard)[keep_count() :]:
        lake.storage.delete(key_of(table, shard, old))
        lake.storage.delete(key_of(table, shard, old).removesuffix("parquet") + "json")


def checksums(lake: Lake, table: str, shard: str, name: str) -> list[dict[str, Any]]:
    """[{"sha256", "bytes"}] that a version's file may have."""
    if name == CURRENT:
        return [json.loads(lake.storage.read(k)) for k in checksum_keys(lake, table, shard)]
    try:
        text = lake.storage.read(key_of(table, shard, name).removesuffix("parquet") + "json")
    except FileNotFoundError:
        return []
    return json.loads(text)


def checksum_keys(lake: Lake, table: str, shard: str) -> list[str]:
    keys = lake.storage.list(f"{table}/_checksums")
    return [k for k in keys if k.rpartition("/")[2].startswith(f"{shard}.")]


def arrays_in_use(lake: Lake, table: str, shard: str) -> set[str]:
    """Keys of arrays that rows of earlier versions point to."""
    found: set[str] = set()
    for name in kept(lake, table, shard):
        with lake.storage.open(key_of(table, shard, name)) as file:
            column = pq.read_table(file, columns=["points_uri"])["points_uri"]
        found.update(column.unique().to_pylist())
    return found - {None}


def read_version(lake: Lake, table: str, shard: str, name: str) -> pa.Table:
    """Rows of a version. Raises LakeError."""
    return lake.read_file(table, key_of(table, shard, name), None)


def bring_back(
    lake: Lake, table: str, shard: str, version: Version, tokens: Mapping[str, int]
) -> None:
    """Make a version current again; no attempt up to `tokens` ({unit: token}) can replace it.

    The caller has the compaction's lock, and everything is compacted. Killed at any point, either
    the old or the new is current, whole.
    """
    storage = lake.storage
    archive(lake, table, shard, lake.compacted_units(table, shard))
    for unit, token in tokens.items():
        storage.write(f"{table}/_fragments/{shard}/{unit}.{token:016d}{FLOOR}", b"")
    for known in checksums(lake, table, shard, version.name):
        content = json.dumps(known).encode()
        storage.write(f"{table}/_checksums/{shard}.{known['sha256'][:16]}.json", content)
    storage.copy(key_of(table, shard, version.name), key_of(table, shard, CURRENT))
    wanted = {k["sha256"][:16] for k in checksums(lake, table, shard, version.name)}
    for key in checksum_keys(lake, table, shard):
        if wanted and key.removesuffix(".json").rpartition(".")[2] not in wanted:
            storage.delete(key)


def _version(lake: Lake, table: str, shard: str, name: str) -> Version:
    with lake.storage.open(key_of(table, shard, name)) as file:
        made = lake.provenances_of(file)
    return Version(
        name=name,
        token=max((p.token for p in made.values()), default=0),
        made_at=max((p.created_at for p in made.values()), default=""),
        runs=Counter(p.run_id for p in made.values()),
        fingerprints={u: p.fingerprint for u, p in made.items()},
        tokens={u: p.token for u, p in made.items()},
        run_of={u: p.run_id for u, p in made.items()},
    )


def _name(units: Mapping[str, dict[str, Any]]) -> str:
    """Of the version that holds these units: sorts by the age of its rows."""
    newest = max((entry.get("token", 0) for entry in units.values()), default=0)
    content = json.dumps({u: e.get("token", 0) for u, e in units.items()}, sort_keys=True)
    return f"{newest:016d}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"
