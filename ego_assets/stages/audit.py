"""The audit of a lake: every byte as it was written, every unit once, nothing that belongs nowhere.

Here: what is found (`verify`), and what is done about it (`repair`). Not here: making rows again,
which the next run does for what was requeued.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from ego_assets.schemas import TABLES
from ego_assets.schemas.base import SchemaError
from resources.lake import Lake, history
from resources.ledger import Entry, Ledger

DAMAGED = "_damaged"
"""Where `repair` puts what it takes away; a person may delete it."""


@dataclass(frozen=True)
class Problem:
    """One finding.

    kind: missing (the ledger says done, the lake has no rows), stale (rows of another
    fingerprint), damaged (bytes are not those that were written), unverified (readable, but its
    checksum is not there), breaks_contract, extra (belongs to nothing that is known).
    key: the file, relative to the lake; "" if there is none. units: whose rows are concerned.
    """

    kind: str
    table: str
    shard: str
    key: str
    units: tuple[str, ...]
    detail: str

    def __str__(self) -> str:
        where = self.key or f"{self.table} of shard {self.shard}"
        units = f" ({', '.join(self.units[:5])}{', …' if len(self.units) > 5 else ''})"
        return f"{self.kind}: {where}{units if self.units else ''}: {self.detail}"


def verify(lake: Lake, ledger: Ledger, shards: Iterable[str] | None = None) -> list[Problem]:
    """Read everything and compare. Takes as long as reading the whole lake does."""
    chosen = sorted(lake.shards() if shards is None else shards)
    found: list[Problem] = []
    for table in TABLES:
        for shard in chosen:
            found.extend(_Audit(lake, ledger, table, shard).problems())
        if shards is None:
            found.extend(_stray_files(lake, table, set(chosen)))
    return found


def repair(lake: Lake, ledger: Ledger, problems: Iterable[Problem]) -> dict[str, int]:
    """Put bad files aside, requeue the units whose rows they held. Nothing is deleted.

    Returns how many {"files", "units", "checksums"} it took away, requeued, wrote.
    """
    done = {"files": 0, "units": 0, "checksums": 0}
    for problem in problems:
        if problem.kind == "unverified":
            key = problem.key
            sha256, size = lake.storage.sha256(key), lake.storage.size(key)
            history.write_checksum(lake, problem.table, problem.shard, sha256, size)
            done["checksums"] += 1
            continue
        if problem.key and problem.kind != "missing" and lake.storage.exists(problem.key):
            lake.storage.move(problem.key, f"{DAMAGED}/{problem.key}")
            done["files"] += 1
        done["units"] += ledger.requeue(
            problem.table, problem.units, f"verify: {problem.kind}: {problem.detail}"
        )
    return done


class _Audit:
    """One table of one shard."""

    def __init__(self, lake: Lake, ledger: Ledger, table: str, shard: str) -> None:
        self.lake = lake
        self.table = table
        self.shard = shard
        self.key = f"{table}/{shard}.parquet"
        entries = ledger.entries(stage=table, shard=shard)
        self.entries: dict[str, Entry] = {e.unit_id: e for e in entries}
        self.bad: set[str] = set()
        self.readable = True

    def problem(self, kind: str, key: str, units: Iterable[str], detail: str) -> Problem:
        units = tuple(sorted(units))
        self.bad.update(units)
        return Problem(kind, self.table, self.shard, key, units, detail)

    def problems(self) -> Iterator[Problem]:
        tokens: dict[str, int] = {}
        if self.lake.storage.exists(self.key):
            broken = list(self._compacted())
            yield from broken
            if any(p.kind in {"damaged", "breaks_contract"} and p.key == self.key for p in broken):
                self.readable = False
            else:
                units = self.lake.compacted_units(self.table, self.shard)
                tokens = {u: e.get("token", 0) for u, e in units.items()}
                yield from self._extra_units(units)
        yield from self._fragments(tokens)
        yield from self._history()
        yield from self._ledger()

    def _compacted(self) -> Iterator[Problem]:
        digest, size = self.lake.storage.sha256(self.key), self.lake.storage.size(self.key)
        known = history.checksums(self.lake, self.table, self.shard, history.CURRENT)
        held = [u for u, e in self.entries.items() if e.has_result]
        if known and digest not in {k["sha256"] for k in known}:
            sizes = ", ".join(str(k["bytes"]) for k in known)
            detail = f"it has {size} bytes and another checksum than the {sizes} that were written"
            yield self.problem("damaged", self.key, held, detail)
            return
        try:
            with self.lake.storage.open(self.key) as file:
                batch = pq.read_table(file, page_checksum_verification=True)
        except (pa.ArrowInvalid, OSError) as error:
            yield self.problem("damaged", self.key, held, f"cannot be read: {error}")
            return
        broken = self._broken(batch)
        if broken:
            yield self.problem("breaks_contract", self.key, held, "; ".join(broken[:3]))
        elif not known:
            yield Problem("unverified", self.table, self.shard, self.key, (), "no checksum")
        yield from self._arrays(batch)

    def _broken(self, batch: pa.Table) -> list[str]:
        """How rows break the contract, those of older releases as this one reads them."""
        model = TABLES[self.table]
        try:
            return model.violations(model.upgrade(batch.replace_schema_metadata(None)))
        except SchemaError as error:
            return [str(error)]

    def _arrays(self, batch: pa.Table) -> Iterator[Problem]:
        if "points_uri" not in batch.column_names:
            return
        units = dict(
            zip(batch["points_uri"].to_pylist(), batch["clip_id"].to_pylist(), strict=True)
        )
        for key, unit in units.items():
            if key is None:
                continue
            try:
                self.lake.read_arrays(key)
            except FileNotFoundError:
                yield self.problem("missing", key, [unit], "rows point at arrays that are gone")
            except Exception as error:  # zipfile, zlib, numpy: each has its own
                yield self.problem("damaged", key, [unit], f"cannot be read: {error}")

    def _extra_units(self, units: Iterable[str]) -> Iterator[Problem]:
        unknown = set(units) - set(self.entries)
        if unknown:
            detail = "rows of units that the ledger does not know"
            yield Problem("extra", self.table, self.shard, "", tuple(sorted(unknown)), detail)

    def _history(self) -> Iterator[Problem]:
        """Earlier versions: nothing can be made again of them, they are only named."""
        for name in history.kept(self.lake, self.table, self.shard):
            key = history.key_of(self.table, self.shard, name)
            known = {
                k["sha256"] for k in history.checksums(self.lake, self.table, self.shard, name)
            }
            if known and self.lake.storage.sha256(key) not in known:
                detail = (
                    "an earlier version, no longer as it was written: it cannot be rolled back to"
                )
                yield Problem("damaged", self.table, self.shard, key, (), detail)

    def _fragments(self, tokens: dict[str, int]) -> Iterator[Problem]:
        newest = self.lake.newest_fragments(self.table, self.shard)
        for unit, (token, key) in newest.items():
            if token <= tokens.get(unit, -1):
                continue  # compacted; the next compaction sweeps it
            entry = self.entries.get(unit)
            if entry is None:
                yield self.problem("extra", key, [], "a unit that the ledger does not know")
                continue
            data = self.lake.storage.read(key)
            written = entry.digest if entry.token == token else None
            if written and hashlib.sha256(data).hexdigest() != written:
                detail = f"its {len(data)} bytes are not those that were written"
                yield self.problem("damaged", key, [unit], detail)
                continue
            try:
                batch = pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
            except (pa.ArrowInvalid, OSError) as error:
                yield self.problem("damaged", key, [unit], f"cannot be read: {error}")
                continue
            broken = self._broken(batch)
            if broken:
                yield self.problem("breaks_contract", key, [unit], "; ".join(broken[:3]))

    def _ledger(self) -> Iterator[Problem]:
        if not self.readable:
            return  # told already; its units are among the bad ones
        done = {
            unit: entry
            for unit, entry in self.entries.items()
            if entry.has_result and unit not in self.bad
        }
        held = self.lake.provenances(self.table, self.shard, set(done))
        missing = set(done) - set(held)
        if missing:
            yield self.problem("missing", "", missing, "done in the ledger, no rows in the lake")
        stale = {u for u in held if held[u].fingerprint != done[u].fingerprint}
        if stale:
            detail = "the rows have another fingerprint than the ledger"
            yield self.problem("stale", "", stale, detail)


def _stray_files(lake: Lake, table: str, shards: set[str]) -> Iterator[Problem]:
    for key in lake.storage.list(table):
        shard = PurePosixPath(key).stem
        if shard not in shards or not key.endswith(".parquet"):
            yield Problem("extra", table, shard, key, (), "no shard of that name is registered")
