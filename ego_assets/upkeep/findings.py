"""What may be wrong with one table of one shard, and whether it is so while nobody can change it.

A look takes long and holds no lock: compactions, rollbacks and attempts go on beside it. So what it
comes to are suspicions; each is checked under the lock of the table and shard, where it is the same
file still, or is not told. Checking is short: a file of which it is known which one was read is not
read again. Not here: which shards are looked at, in what order (`audit`).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ego_assets.catalog import TABLES
from ego_assets.engine.errors import ErrorKind, classify
from ego_assets.engine.plan import ShardInputs
from ego_assets.upkeep.problems import Problem, Suspicion, put_aside
from ego_assets.upkeep.recovery.agreement import Comparison, compare, results, take_over
from resources.lake import Lake, LakeError, history
from resources.lake.storage import ChangedError
from resources.lake.table import SchemaError
from resources.ledger import Entry, Ledger
from resources.ledger.adoption import Adoption


class TableAudit:
    """Audits one table of one shard."""

    def __init__(self, lake: Lake, ledger: Ledger, table: str, shard: str) -> None:
        self.lake = lake
        self.ledger = ledger
        self.table = table
        self.shard = shard
        self.key = f"{table}/{shard}.parquet"

    def suspicions(self) -> Iterator[Suspicion]:
        """Raises FileNotFoundError, LakeError if files are replaced meanwhile."""
        identity = self.lake.storage.identity(self.key)
        tokens: dict[str, int] = {}
        is_readable = True
        if identity is not None:
            suspicion, batch = self._file(identity)
            if suspicion is not None:
                yield suspicion
            if batch is None:
                is_readable = False
            else:
                yield from self._arrays(batch, identity)
                items = self.lake.compacted_items(self.table, self.shard)
                tokens = {u: e.get("token", 0) for u, e in items.items()}
        bad = set()
        for item, suspicion in self._fragments(tokens):
            bad.add(item)
            yield suspicion
        yield from self._history()
        if is_readable:
            yield from self._differences(bad)

    # -- the compacted file --------------------------------------------------------------------

    def _file(self, identity: str) -> tuple[Suspicion | None, pa.Table | None]:
        """What may be wrong with it, and its rows; None if there are none to go by."""
        storage = self.lake.storage
        digest, size = storage.sha256(self.key), storage.size(self.key)
        known = self._checksums(history.CURRENT)
        if known and digest not in known:
            sizes = ", ".join(map(str, known.values()))
            detail = f"it has {size} bytes and another checksum than the {sizes} that were written"

            def is_other() -> bool:
                return digest not in self._checksums(history.CURRENT)

            return self._of_file(identity, "damaged", detail, is_other), None
        batch, why = self._read()
        if batch is None:
            # The bytes may be as they were written: then it is not they that were at fault.
            def cannot_be_read() -> bool:
                return self._read()[0] is None

            return self._of_file(identity, "damaged", why, cannot_be_read), None
        broken = self._broken(batch)
        if broken:
            return self._of_file(identity, "breaks_contract", "; ".join(broken[:3])), None
        try:
            self.lake.compacted_items(self.table, self.shard)
        except LakeError as error:
            return self._of_file(identity, "damaged", str(error)), None
        if known:
            return None, batch

        def is_unknown() -> Problem | None:
            self._is_same(self.key, identity)
            if self._checksums(history.CURRENT):
                return None
            return self._problem("unverified", self.key, (), "no checksum")

        def write(_: Problem) -> Counter[str]:
            history.write_checksum(self.lake, self.table, self.shard, digest, size)
            return Counter(checksums=1)

        return Suspicion(is_unknown, write), batch

    def _of_file(
        self, identity: str, kind: str, detail: str, is_so: Callable[[], bool] = lambda: True
    ) -> Suspicion:
        """That the compacted file is bad, which is so as long as it is this one."""
        held: dict[str, int] = {}

        def check() -> Problem | None:
            self._is_same(self.key, identity)
            if not is_so():
                return None
            held.clear()
            held.update(self._held())
            return self._problem(kind, self.key, held, detail)

        return Suspicion(check, lambda problem: self._take_away(problem, held))

    def _held(self) -> dict[str, int]:
        """{item: token} of those whose rows are in the compacted file, whatever is in there."""
        fragments = self.lake.newest_fragments(self.table, self.shard)
        return {
            item: entry.token
            for item, entry in self._entries().items()
            if entry.has_result and fragments.get(item, (-1, ""))[0] < entry.token
        }

    def _read(self) -> tuple[pa.Table | None, str]:
        """The rows, or why they cannot be read."""
        try:
            with self.lake.storage.open(self.key) as file:
                return pq.read_table(file, page_checksum_verification=True), ""
        except FileNotFoundError:
            raise
        except (pa.ArrowInvalid, OSError) as error:
            if classify(error) is ErrorKind.TRANSIENT:
                raise
            return None, f"cannot be read: {error}"

    def _broken(self, batch: pa.Table) -> list[str]:
        """How rows break the contract, those of older releases as this one reads them."""
        model = TABLES[self.table]
        try:
            return model.violations(model.upgrade(batch.replace_schema_metadata(None)))
        except SchemaError as error:
            return [str(error)]

    def _arrays(self, batch: pa.Table, identity: str) -> Iterator[Suspicion]:
        model = TABLES[self.table]
        column = model.arrays_column()
        if column is None or column not in batch.column_names:
            return
        keys, items = batch[column].to_pylist(), batch[model.item_column].to_pylist()
        for key, item in dict(zip(keys, items, strict=True)).items():
            if key is not None and self._fault_of_arrays(key) is not None:
                yield self._of_arrays(key, item, identity)

    def _of_arrays(self, key: str, item: str, identity: str) -> Suspicion:
        tokens: dict[str, int] = {}

        def check() -> Problem | None:
            self._is_same(self.key, identity)
            fault = self._fault_of_arrays(key)
            if fault is None:
                return None
            held = self._held()
            tokens.update({item: held[item]} if item in held else {})
            return self._problem(fault[0], key, tokens, fault[1])

        return Suspicion(check, lambda problem: self._take_away(problem, tokens))

    def _fault_of_arrays(self, key: str) -> tuple[str, str] | None:
        """(kind, detail); None if they can be read."""
        try:
            self.lake.read_arrays(key)
        except FileNotFoundError:
            return "missing", "rows point at arrays that are gone"
        except Exception as error:  # zipfile, zlib, numpy: each has its own
            if classify(error) is ErrorKind.TRANSIENT:
                raise
            return "damaged", f"cannot be read: {error}"
        return None

    # -- rows that are not compacted -------------------------------------------------------------

    def _fragments(self, tokens: Mapping[str, int]) -> Iterator[tuple[str, Suspicion]]:
        """With the item of each."""
        newest = self.lake.newest_fragments(self.table, self.shard)
        entries = self._entries() if newest else {}
        for item, (token, key) in newest.items():
            # Those that are compacted are swept by the next compaction.
            if token <= tokens.get(item, -1):
                continue
            with suppress(FileNotFoundError):  # compacted meanwhile
                if self._fault_of_fragment(key, token, entries.get(item)) is not None:
                    yield item, self._of_fragment(item, token, key)

    def _of_fragment(self, item: str, token: int, key: str) -> Suspicion:
        tokens: dict[str, int] = {}

        def check() -> Problem | None:
            newest = self.lake.newest_fragments(self.table, self.shard)
            if newest.get(item) != (token, key) or self._is_compacted(item, token):
                return None
            entry = self._entries().get(item)
            fault = self._fault_of_fragment(key, token, entry)
            if fault is None:
                return None
            if entry is not None:
                tokens[item] = entry.token
            return self._problem(fault[0], key, tokens, fault[1])

        return Suspicion(check, lambda problem: self._take_away(problem, tokens))

    def _is_compacted(self, item: str, token: int) -> bool:
        with suppress(LakeError):
            items = self.lake.compacted_items(self.table, self.shard)
            return item in items and items[item].get("token", 0) >= token
        return False

    def _fault_of_fragment(
        self, key: str, token: int, entry: Entry | None
    ) -> tuple[str, str] | None:
        """(kind, detail); None if nothing is wrong with it."""
        data = self.lake.storage.read(key)
        written = entry.digest if entry is not None and entry.token == token else None
        if written and hashlib.sha256(data).hexdigest() != written:
            return "damaged", f"its {len(data)} bytes are not those that were written"
        try:
            batch = pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
        except (pa.ArrowInvalid, OSError) as error:
            if entry is None:
                return "extra", f"an item that the ledger does not know; cannot be read: {error}"
            return "damaged", f"cannot be read: {error}"
        broken = self._broken(batch)
        return ("breaks_contract", "; ".join(broken[:3])) if broken else None

    # -- earlier versions ------------------------------------------------------------------------

    def _history(self) -> Iterator[Suspicion]:
        """Nothing can be made again of them: they are only named, and put aside."""
        for name in history.kept(self.lake, self.table, self.shard):
            key = history.key_of(self.table, self.shard, name)
            identity = self.lake.storage.identity(key)
            with suppress(FileNotFoundError):  # it made room for a newer one
                digest = self.lake.storage.sha256(key)
                known = self._checksums(name)
                if known and digest not in known:
                    yield self._of_version(name, key, identity, digest)

    def _of_version(self, name: str, key: str, identity: str | None, digest: str) -> Suspicion:
        def check() -> Problem | None:
            found = self.lake.storage.identity(key)
            if found is None:
                return None
            self._is_same(key, identity)
            known = self._checksums(name)
            if not known or digest in known:
                return None
            detail = "an earlier version, no longer as it was written: it cannot be rolled back to"
            return self._problem("damaged", key, (), detail)

        return Suspicion(check, lambda problem: self._take_away(problem, {}))

    # -- the ledger ------------------------------------------------------------------------------

    def _differences(self, bad: set[str]) -> Iterator[Suspicion]:
        """Between what the ledger says and what the lake holds, but for `bad` items."""
        found = compare(self.lake, self.ledger, self.table, self.shard, bad)
        for kind in ("newer", "missing", "stale"):
            if getattr(found, kind):
                yield self._of_difference(kind, bad)
        if not found.extra:
            return
        fragments = {u: key for u, (_, key) in self._uncompacted().items()}
        for item in found.extra:
            if item in fragments:
                yield self._of_extra(item, fragments[item], bad)
        if set(found.extra) - set(fragments):
            yield self._of_extra("", "", bad)

    def _of_difference(self, kind: str, bad: set[str]) -> Suspicion:
        tokens: dict[str, int] = {}
        details = {
            "newer": "rows of attempts that the ledger does not know",
            "missing": "done in the ledger, no rows in the lake",
            "stale": "the rows have another fingerprint than the ledger",
        }

        def check() -> Problem | None:
            found = self._compare(bad)
            items: Mapping[str, int] | tuple[str, ...] = getattr(found, kind)
            tokens.clear()
            if isinstance(items, Mapping):
                tokens.update(items)
            return self._problem(kind, "", items, details[kind]) if items else None

        def mend(problem: Problem) -> Counter[str]:
            if kind != "newer":
                return self._requeue(problem, tokens)
            inputs = ShardInputs(self.lake, self.ledger, self.shard)
            # What is damaged cannot be taken over: it was put aside before.
            taken = take_over(inputs, {self.table: results(inputs, self.table, problem.units)})
            return Counter(taken_over=sum(taken.values()))

        return Suspicion(check, mend)

    def _of_extra(self, item: str, key: str, bad: set[str]) -> Suspicion:
        """A fragment of an item that is none of the shard, or all such items that are compacted."""

        def check() -> Problem | None:
            if Adoption(self.ledger).at_work(self.table, self.shard):
                return None  # a stage that has planned other items sweeps them at its end
            fragments = self._uncompacted()
            extra = self._compare(bad).extra
            if not key:
                items = [u for u in extra if u not in fragments]
                detail = "rows of work items that the ledger does not know"
                return self._problem("extra", "", items, detail) if items else None
            if item not in extra or fragments.get(item, (0, ""))[1] != key:
                return None
            return self._problem("extra", key, (), "a work item that the ledger does not know")

        return Suspicion(check, lambda problem: self._take_away(problem, {}))

    def _compare(self, bad: set[str]) -> Comparison:
        return compare(self.lake, self.ledger, self.table, self.shard, bad)

    def _uncompacted(self) -> dict[str, tuple[int, str]]:
        newest = self.lake.newest_fragments(self.table, self.shard)
        return {u: f for u, f in newest.items() if not self._is_compacted(u, f[0])}

    # -- what all of them need ---------------------------------------------------------------------

    def _entries(self) -> dict[str, Entry]:
        return {e.item_id: e for e in self.ledger.entries(stage=self.table, shard=self.shard)}

    def _checksums(self, name: str) -> dict[str, int]:
        """{SHA-256: bytes} that a version of the file may have."""
        found: list[dict[str, Any]] = history.checksums(self.lake, self.table, self.shard, name)
        return {one["sha256"]: one["bytes"] for one in found}

    def _is_same(self, key: str, identity: str | None) -> None:
        """Raises ChangedError if another file is under the key by now."""
        if self.lake.storage.identity(key) != identity:
            raise ChangedError(f"{key} was replaced while it was looked at")

    def _problem(self, kind: str, key: str, items: Iterable[str], detail: str) -> Problem:
        return Problem(kind, self.table, self.shard, key, tuple(sorted(items)), detail)

    def _take_away(self, problem: Problem, tokens: Mapping[str, int]) -> Counter[str]:
        """Put a bad file aside, requeue {item: token} whose rows it held."""
        done: Counter[str] = Counter()
        if problem.key and problem.kind != "missing" and self.lake.storage.exists(problem.key):
            put_aside(self.lake, problem.key)
            done["files"] += 1
        return done + self._requeue(problem, tokens)

    def _requeue(self, problem: Problem, tokens: Mapping[str, int]) -> Counter[str]:
        why = f"verify: {problem.kind}: {problem.detail}"
        return Counter(units=self.ledger.requeue(self.table, tokens, why, tokens))
