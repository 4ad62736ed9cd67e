"""Tables of the lake: fragments published clip by clip, compacted to one file a shard.

Layout, relative to the lake:

    shards/{shard}.json                               the raw files of a shard, immutable
    {table}/{shard}.parquet                           all rows of a shard after its stage
    {table}/_checksums/{shard}.{digest}.json          of those bytes
    {table}/_history/{shard}/…                        what it was before (see `history`)
    {table}/_fragments/{shard}/{unit}.{token}.parquet rows of one unit, until compacted
    {table}/_arrays/{shard}/{unit}.{token}.npz        large arrays that rows point to
    _carried/{stage}/{shard}/{unit}.{token}.npz       what a take's next clip needs

Each attempt writes under its own token (see `resources.ledger`): of a unit, the rows with the
highest token count, in fragments and compacted alike. So a late attempt can finish but never
replace a newer one, and readers see every row exactly once before, during and after a
compaction. Not here: bytes on disk (`storage`), the search for damage (`audit`).
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from resources.lake import history
from resources.lake.holdings import unit_and_token
from resources.lake.provenance import Provenance
from resources.lake.s3 import S3Storage
from resources.lake.storage import ChangedError, LocalStorage, file_sha256
from resources.lake.table import SCHEMA_VERSION, TABLES, SchemaError

if TYPE_CHECKING:
    import polars as pl

DEFAULT_LAKE = ".ego/lake"
PROVENANCE = b"ego.provenance"
UNITS = b"ego.units"
SCHEMA = b"ego.schema_version"
MANIFEST = "video_manifest"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_READ_TRIES = 5
SWEEP_AGE_S = 86_400.0


Wanted = Iterable[str] | Callable[[], Iterable[str]] | None
"""Units that a compaction keeps."""


class LakeError(RuntimeError):
    """The lake holds something that it should not; the message names the file."""


class LakeAwayError(OSError):
    """The folder of a lake is away, like a disk that is not mounted: waiting may help."""


@dataclass(frozen=True)
class ParquetFile:
    """An open Parquet file of the lake. `footer` is read when it is opened, and only then."""

    file: pa.NativeFile
    footer: pq.ParquetFile

    @property
    def metadata(self) -> dict[bytes, bytes]:
        return self.footer.metadata.metadata or {}

    @property
    def units(self) -> dict[str, dict[str, Any]]:
        """What a compacted file says of its units. Raises ValueError for a file that does not."""
        if UNITS not in self.metadata:
            raise ValueError("it does not say what units it holds")
        return json.loads(self.metadata[UNITS])

    @property
    def provenances(self) -> dict[str, Provenance]:
        """Where the rows of every unit in a compacted file came from."""
        units, shared = self.units, json.loads(self.metadata[PROVENANCE])
        return {
            unit: Provenance(**shared[e["provenance"]], **{k: e[k] for k in _OWN if k in e})
            for unit, e in units.items()
        }


@dataclass(frozen=True)
class Published:
    """A fragment: where it lies, and the SHA-256 of its bytes, hex."""

    key: str
    sha256: str


class Lake:
    """The tables under one root. Safe to use from many processes at once."""

    def __init__(self, root: str | Path) -> None:
        text = str(root)
        self.storage: LocalStorage | S3Storage
        if text.startswith("s3://"):
            try:
                self.storage = S3Storage(text)
            except ValueError as error:
                raise LakeError(str(error)) from error
        elif _SCHEME.match(text):
            raise LakeError(f"{text}: a lake is a local folder or s3://bucket/prefix")
        else:
            self.storage = LocalStorage(Path(text).expanduser().resolve())
        self.location = self.storage.location
        if not _is_text(self.location):
            raise LakeError(f"{self.location!a}: the path of a lake must be valid UTF-8")
        self._tokens: dict[tuple[str, str], tuple[str | None, dict[str, int]]] = {}

    @property
    def root(self) -> Path:
        """Folder of a local lake. Raises LakeError for one on S3."""
        if isinstance(self.storage, LocalStorage):
            return self.storage.root
        raise LakeError(f"the lake at {self.location} has no local folder")

    def must_be_there(self) -> None:
        """Raise LakeAwayError if the folder of a lake with shards has lost them: it is not mounted.

        Its tables would look empty, and rows would go into the mount point.
        """
        if isinstance(self.storage, LocalStorage) and not (self.root / "shards").is_dir():
            why = "the lake is not there: a disk that is not mounted?"
            raise LakeAwayError(errno.ESTALE, why, self.location)

    # -- shards ------------------------------------------------------------------------------

    def write_shard(self, shard: str, content: Mapping[str, Any]) -> bool:
        """Register a shard. The first writer wins: a shard never changes. Tells if it was new."""
        data = json.dumps(content, ensure_ascii=False, indent=1).encode()
        return self.storage.write(f"shards/{shard}.json", data, replace=False)

    def read_shard(self, shard: str) -> dict[str, Any]:
        try:
            manifest: dict[str, Any] = json.loads(self.storage.read(f"shards/{shard}.json"))
            return manifest
        except FileNotFoundError as error:
            raise LakeError(
                f"shard {shard} is not registered in {self.location}: run `ego run` on its videos, "
                "or the job register_videos"
            ) from error

    def shards(self) -> list[str]:
        return [Path(key).stem for key in self.storage.list("shards") if key.endswith(".json")]

    # -- fragments ---------------------------------------------------------------------------

    def publish(
        self, table: str, shard: str, unit: str, batch: pa.Table, provenance: Provenance
    ) -> Published:
        """Validate and publish the rows of one unit. Raises ContractError."""
        TABLES[table].validate_batch(batch)
        metadata = {PROVENANCE: provenance.to_json(), SCHEMA: SCHEMA_VERSION}
        sink = pa.BufferOutputStream()
        batch = batch.replace_schema_metadata(metadata)
        pq.write_table(batch, sink, compression="zstd", write_page_checksum=True)
        data = memoryview(sink.getvalue())
        key = f"{table}/_fragments/{shard}/{_attempt_name(unit, provenance.token)}.parquet"
        self.storage.write(key, data)
        return Published(key, hashlib.sha256(data).hexdigest())

    def is_outdone(self, table: str, shard: str, unit: str, token: int) -> bool:
        """Whether readers will never see the rows of this attempt: newer ones of the unit are
        there, or the attempt is void."""
        for key, other in self._attempts(f"{table}/_fragments/{shard}", unit).items():
            if other > token or (other == token and key.endswith(history.FLOOR)):
                return True
        return self._compacted_tokens(table, shard).get(unit, -1) > token

    def _compacted_tokens(self, table: str, shard: str) -> dict[str, int]:
        """{unit: token} of the compacted file, which is read again only when it was replaced."""
        identity = self.storage.identity(f"{table}/{shard}.parquet")
        known = self._tokens.get((table, shard))
        if known is None or known[0] != identity:
            units = self.compacted_units(table, shard) if identity else {}
            known = identity, {unit: _token(units, unit) for unit in units}
            self._tokens[table, shard] = known
        return known[1]

    def publish_arrays(
        self, table: str, shard: str, unit: str, arrays: Mapping[str, np.ndarray], token: int = 0
    ) -> str:
        """Publish large arrays of one unit as an npz without pickles. Returns the key."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **dict(arrays))
        key = f"{table}/_arrays/{shard}/{_attempt_name(unit, token)}.npz"
        self.storage.write(key, buffer.getbuffer())
        return key

    def read_arrays(self, key: str) -> dict[str, np.ndarray]:
        with np.load(io.BytesIO(self.storage.read(key)), allow_pickle=False) as loaded:
            return {name: loaded[name] for name in loaded.files}

    # -- what a take carries from clip to clip --------------------------------------------------

    def write_carried(
        self,
        stage: str,
        shard: str,
        unit: str,
        carried: Mapping[str, Any],
        token: int = 0,
        fingerprint: str = "",
    ) -> bool:
        """Store a flat dict of JSON values and arrays; what older attempts stored goes.

        fingerprint: that the unit was done under. Returns False if a newer attempt has stored its
        own, so that nobody will read this.
        """
        arrays = {k: v for k, v in carried.items() if isinstance(v, np.ndarray)}
        plain = {k: v for k, v in carried.items() if not isinstance(v, np.ndarray)}
        plain[_DONE_UNDER] = fingerprint
        buffer = io.BytesIO()
        text = np.frombuffer(json.dumps(plain).encode(), np.uint8)
        np.savez_compressed(
            buffer, allow_pickle=False, **{f"a_{k}": v for k, v in arrays.items()}, json=text
        )
        folder = f"_carried/{stage}/{shard}"
        self.storage.write(f"{folder}/{_attempt_name(unit, token)}.npz", buffer.getbuffer())
        attempts = self._attempts(folder, unit)
        for key, other in attempts.items():
            if other < token:
                self.storage.delete(key)
        return max(attempts.values(), default=token) <= token

    def read_carried(
        self, stage: str, shard: str, unit: str, fingerprint: str | None = None
    ) -> dict[str, Any] | None:
        """Of the unit's newest attempt; None if there is none, or it was done under another
        fingerprint (an earlier version of its rows was brought back)."""
        for last in (False,) * (_READ_TRIES - 1) + (True,):
            newest = self._newest(f"_carried/{stage}/{shard}").get(unit)
            if newest is None:
                return None
            try:
                loaded = self.read_arrays(newest[1])
                break
            except FileNotFoundError:  # a newer attempt took its place
                if last:
                    raise
        carried: dict[str, Any] = json.loads(loaded.pop("json").tobytes())
        done_under = carried.pop(_DONE_UNDER, fingerprint)
        if fingerprint is not None and done_under != fingerprint:
            return None
        return carried | {k.removeprefix("a_"): v for k, v in loaded.items()}

    def carried_units(self, stage: str, shard: str) -> set[str]:
        """The units that left something for the next one."""
        return set(self._newest(f"_carried/{stage}/{shard}"))

    # -- reading -----------------------------------------------------------------------------

    def read(
        self,
        table: str,
        shard: str,
        *,
        units: Iterable[str] | None = None,
        columns: list[str] | None = None,
    ) -> pa.Table:
        """Rows of one shard, each exactly once; `units` picks clips (or videos)."""
        wanted = None if units is None else set(units)
        for last in (False,) * (_READ_TRIES - 1) + (True,):
            try:
                return self._read_once(table, shard, wanted, columns)
            except FileNotFoundError:
                # A compaction moved the fragments between our listing and our reading.
                if last:
                    raise
        raise AssertionError("unreachable")

    def _read_once(
        self,
        table: str,
        shard: str,
        wanted: set[str] | None,
        columns: list[str] | None,
        fragments: dict[str, tuple[int, str]] | None = None,
    ) -> pa.Table:
        schema = TABLES[table].arrow_schema()
        unit_column = TABLES[table].item_column
        uri = self.storage.uri(f"{table}/{shard}.parquet")
        parts: list[pa.Table] = []
        # Fragments first: what a compaction takes away after this listing fails to open, below.
        if fragments is None:
            fragments = self._newest(f"{table}/_fragments/{shard}")
        with self._open_compacted(table, shard) as compacted:
            units = compacted.units if compacted else {}
            fresh = {u: k for u, (token, k) in fragments.items() if token > _token(units, u)}
            for unit, key in fresh.items():
                if wanted is None or unit in wanted:
                    parts.append(self.read_file(table, key, columns))
            keep = {u for u in units if u not in fresh and (wanted is None or u in wanted)}
            if compacted is not None and keep:
                # The manifest's units are named by a hash of the uri; the uri is kept with them.
                values = [units[u].get("value", u) for u in sorted(keep)]
                chosen = None if keep == set(units) else pc.field(unit_column).isin(values)
                parts.append(_load(compacted, uri, table, columns, chosen))
        chosen_schema = schema if columns is None else pa.schema([schema.field(c) for c in columns])
        return pa.concat_tables(parts) if parts else chosen_schema.empty_table()

    @contextmanager
    def _open_compacted(self, table: str, shard: str) -> Iterator[ParquetFile | None]:
        """The compacted file, one version of it however often it is read; None if there is none."""
        with ExitStack() as stack:
            try:
                opened = stack.enter_context(self.open_parquet(f"{table}/{shard}.parquet"))
            except FileNotFoundError:
                opened = None
            yield opened

    @contextmanager
    def open_parquet(self, key: str) -> Iterator[ParquetFile]:
        """A Parquet file of the lake. Raises FileNotFoundError; LakeError for one that is damaged,
        also from the block that reads in it."""
        with self.storage.open(key) as file:
            try:
                yield ParquetFile(file, pq.ParquetFile(file))
            except (FileNotFoundError, LakeError):
                raise
            except (OSError, ValueError, KeyError, TypeError) as error:  # pyarrow's are ValueErrors
                raise _damaged(self.storage.uri(key), error) from error

    def read_file(self, table: str, key: str, columns: list[str] | None) -> pa.Table:
        """Rows of one Parquet file of the lake. Raises LakeError, FileNotFoundError."""
        with self.open_parquet(key) as opened:
            return _load(opened, self.storage.uri(key), table, columns)

    def scan(self, table: str) -> pl.LazyFrame:
        """All shards of a table, lazily, as far as they are compacted.

        What a file of an older release lacks is null here.
        """
        import polars as pl

        empty = pl.DataFrame(TABLES[table].arrow_schema().empty_table())
        files = self.compacted_files(table)
        if not files:
            return empty.lazy()
        return pl.scan_parquet(
            [self.storage.uri(key) for key in files],
            glob=False,  # a lake's name may hold `[`, `*` or `?`
            schema=empty.schema,
            missing_columns="insert",
            extra_columns="ignore",
            cast_options=pl.ScanCastOptions(integer_cast="upcast", float_cast="upcast"),
        )

    def compacted_files(self, table: str) -> list[str]:
        """Keys of a table's compacted files, one for each shard."""
        return self._keys(table, ".parquet")

    def compacted_units(self, table: str, shard: str) -> dict[str, dict[str, Any]]:
        """Units in the compacted file: {unit: {"fingerprint", "provenance", …}}; {} if no file."""
        with self._open_compacted(table, shard) as compacted:
            return compacted.units if compacted else {}

    def count(self, table: str, shard: str) -> tuple[set[str], int] | None:
        """The units and the number of rows of a compacted file, as its footer says; None if there
        is none, or rows lie beside it that count."""
        fragments = self._newest(f"{table}/_fragments/{shard}")
        with self._open_compacted(table, shard) as compacted:
            if compacted is None:
                return None
            units = compacted.units
            if any(token > _token(units, u) for u, (token, _) in fragments.items()):
                return None
            return set(units), compacted.footer.metadata.num_rows

    def provenance(self, table: str, shard: str, unit: str) -> Provenance | None:
        """Where the current rows of a unit came from."""
        return self.provenances(table, shard, units={unit}).get(unit)

    def provenances(
        self, table: str, shard: str, units: set[str] | None = None
    ) -> dict[str, Provenance]:
        """Where the current rows of every unit came from (also of units without rows)."""
        for last in (False,) * (_READ_TRIES - 1) + (True,):
            try:
                return self._provenances_once(table, shard, units)
            except FileNotFoundError:
                if last:
                    raise
        raise AssertionError("unreachable")

    def _provenances_once(
        self,
        table: str,
        shard: str,
        wanted: set[str] | None,
        fragments: dict[str, tuple[int, str]] | None = None,
    ) -> dict[str, Provenance]:
        if fragments is None:
            fragments = self._newest(f"{table}/_fragments/{shard}")
        with self._open_compacted(table, shard) as compacted:
            made = compacted.provenances if compacted else {}
        found = {u: p for u, p in made.items() if wanted is None or u in wanted}
        for unit, (token, key) in fragments.items():
            compacted_token = made[unit].token if unit in made else -1
            if token > compacted_token and (wanted is None or unit in wanted):
                with self.open_parquet(key) as fragment:
                    found[unit] = Provenance.from_json(fragment.metadata[PROVENANCE])
        return found

    def rows_of_files(self, shard: str) -> dict[str, dict[str, Any]]:
        """{unit: row} of `video_manifest`. A unit keeps its name when its file is moved."""
        for last in (False,) * (_READ_TRIES - 1) + (True,):
            try:
                return self._rows_of_files_once(
                    shard, self._newest(f"{MANIFEST}/_fragments/{shard}")
                )
            except FileNotFoundError:
                if last:
                    raise
        raise AssertionError("unreachable")

    def _rows_of_files_once(
        self, shard: str, fragments: dict[str, tuple[int, str]]
    ) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        with self._open_compacted(MANIFEST, shard) as compacted:
            units = compacted.units if compacted else {}
            if compacted is not None:
                uri = self.storage.uri(f"{MANIFEST}/{shard}.parquet")
                rows = {r["uri"]: r for r in _load(compacted, uri, MANIFEST, None).to_pylist()}
                named = {file_unit_id(value): value for value in rows}
                values = {u: entry.get("value", named.get(u)) for u, entry in units.items()}
                found = {unit: rows[value] for unit, value in values.items() if value in rows}
        for unit, (token, key) in fragments.items():
            if token > _token(units, unit):
                for row in self.read_file(MANIFEST, key, None).to_pylist():
                    found[unit] = row
        return found

    def fingerprint(self, table: str, shard: str, unit: str) -> str | None:
        """Fingerprint of the rows that are in the lake for a unit, or None."""
        found = self.provenance(table, shard, unit)
        return found.fingerprint if found else None

    def fingerprints(self, table: str, shard: str) -> dict[str, str]:
        """Fingerprint of every unit that has rows, or is known to have none, in the lake."""
        return {u: p.fingerprint for u, p in self.provenances(table, shard).items()}

    # -- compaction --------------------------------------------------------------------------

    def compact(self, table: str, shard: str, units: Wanted) -> int:
        """Merge what `units` have into one file and drop the rest. Returns the rows.

        units: a function is asked when it is known what there is to drop, so that it can name units
        that somebody entered meanwhile; None keeps all. Safe to kill at any point: the new file
        appears at once, and fragments that outlive it have tokens that it has, too. One compaction
        of a shard's table at a time.
        """
        if units is not None and not callable(units):
            units = set(units)
        while True:
            with self.storage.lock(f"{table}.{shard}"), suppress(ChangedError):
                return self.compact_locked(table, shard, units)

    def compact_locked(self, table: str, shard: str, units: Wanted, spare: str = "") -> int:
        """As `compact`, for a caller who has the lock `{table}.{shard}`.

        spare: an earlier version that is kept, however many there are.
        """
        version = self.storage.version(f"{table}/{shard}.parquet")
        old = self.compacted_units(table, shard)
        listed = self._keys(f"{table}/_fragments/{shard}", ".parquet")
        newest = self.newest_fragments(table, shard)
        if callable(units):
            units = units()
        wanted = {*old, *newest} if units is None else set(units)
        key = f"{table}/{shard}.parquet"
        news = {u for u, (token, _) in newest.items() if u in wanted and token > _token(old, u)}
        if news or set(old) != wanted & (set(old) | set(newest)) or not self.storage.exists(key):
            if news & set(old) or set(old) - wanted:  # rows are replaced, or go
                history.archive(self, table, shard, old, spare)
            rows = self._write_compacted(table, shard, wanted, newest, version)
        else:
            with self.open_parquet(key) as opened:
                rows = opened.footer.metadata.num_rows
        for fragment in listed:
            self.storage.delete(fragment)
        self._drop_floors(table, shard, wanted)
        self.storage.drop_empty(f"{table}/_fragments/{shard}")
        self.storage.sweep_aside(SWEEP_AGE_S)
        return rows

    def _write_compacted(
        self,
        table: str,
        shard: str,
        wanted: set[str],
        newest: dict[str, tuple[int, str]],
        version: str | None,
    ) -> int:
        # Rows and what is said of them are of one listing: attempts publish all the while.
        batch = self._read_once(table, shard, wanted, None, newest)
        batch = batch.sort_by([(c, "ascending") for c in TABLES[table].key])
        entries: dict[str, dict[str, Any]] = {}
        shared: list[dict[str, Any]] = []
        files = self._rows_of_files_once(shard, newest) if table == MANIFEST else {}
        provenances = self._provenances_once(table, shard, wanted, newest)
        for unit, found in sorted(provenances.items()):
            values = dict(vars(found))
            own = {k: values.pop(k) for k in _OWN}
            if values not in shared:
                shared.append(values)
            entries[unit] = own | {"provenance": shared.index(values)}
            if unit in files:
                entries[unit]["value"] = files[unit]["uri"]
        metadata = {
            UNITS: json.dumps(entries),
            PROVENANCE: json.dumps(shared),
            SCHEMA: SCHEMA_VERSION,
        }
        TABLES[table].validate_batch(batch)
        key = f"{table}/{shard}.parquet"
        with self.storage.open_aside(key, version=version) as aside:
            pq.write_table(
                batch.replace_schema_metadata(metadata),
                aside.path,
                compression="zstd",
                row_group_size=65_536,
                write_page_checksum=True,
            )
            digest, size = file_sha256(aside.path), aside.path.stat().st_size
            # Before the file it speaks of is there: a file without its checksum is never seen.
            history.write_checksum(self, table, shard, digest, size)
        history.drop_checksums(self, table, shard, but=[digest])
        if (arrays := TABLES[table].arrays_column()) is not None:
            used = set(batch[arrays].unique().to_pylist())
            used |= history.arrays_in_use(self, table, shard)
            self._drop_arrays(table, shard, used, {u: e["token"] for u, e in entries.items()})
        return len(batch)

    def _drop_floors(self, table: str, shard: str, wanted: set[str]) -> None:
        """Delete the floors that compacted rows have passed."""
        floors = self._keys(f"{table}/_fragments/{shard}", history.FLOOR)
        if floors:
            units = self.compacted_units(table, shard)
            for key in floors:
                unit, token = unit_and_token(key)
                if unit not in wanted or _token(units, unit) > token:
                    self.storage.delete(key)

    def _drop_arrays(self, table: str, shard: str, used: set[str], tokens: dict[str, int]) -> None:
        """Delete the arrays of attempts that newer ones have replaced."""
        for key in self._keys(f"{table}/_arrays/{shard}", ".npz"):
            unit, token = unit_and_token(key)
            if key not in used and token <= tokens.get(unit, -1):
                self.storage.delete(key)

    def _attempts(self, folder: str, unit: str) -> dict[str, int]:
        """{key: token} of the files that attempts at a unit left in a folder."""
        found = {k: unit_and_token(k) for k in self.storage.list(folder, begin=f"{unit}.")}
        return {k: token for k, (other, token) in found.items() if other == unit}

    def newest_fragments(self, table: str, shard: str) -> dict[str, tuple[int, str]]:
        """{unit: (token, key)} of each unit's newest fragment."""
        return self._newest(f"{table}/_fragments/{shard}")

    # -- inside ------------------------------------------------------------------------------

    def _keys(self, folder: str, suffix: str) -> list[str]:
        return [k for k in self.storage.list(folder) if k.endswith(suffix)]

    def _newest(self, folder: str) -> dict[str, tuple[int, str]]:
        """{unit: (token, key)} of each unit's newest attempt in a folder that is not void."""
        found: dict[str, tuple[int, str]] = {}
        for key in self.storage.list(folder):
            unit, token = unit_and_token(key)
            # A floor voids what has its token, and what is older.
            is_newer = unit not in found or token > found[unit][0]
            if is_newer or (token == found[unit][0] and key.endswith(history.FLOOR)):
                found[unit] = (token, key)
        return {u: f for u, f in found.items() if not f[1].endswith(history.FLOOR)}


def _is_text(path: str) -> bool:
    """Whether a path is UTF-8, which Arrow and polars ask for."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def file_unit_id(uri: str) -> str:
    """Name of a raw file as a unit of `video_manifest`, which has a row a file."""
    return hashlib.sha256(uri.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _attempt_name(unit: str, token: int) -> str:
    return f"{unit}.{token:016d}"


def _token(units: Mapping[str, dict[str, Any]], unit: str) -> int:
    """The token of a unit's compacted rows; -1 if it has none."""
    return units[unit].get("token", 0) if unit in units else -1


def _load(
    opened: ParquetFile,
    uri: str,
    table: str,
    columns: list[str] | None,
    chosen: pc.Expression | None = None,
) -> pa.Table:
    """Rows of a file, whatever release wrote it. Raises LakeError, pyarrow's errors."""
    model, stored = TABLES[table], opened.footer.schema_arrow
    names = model.stored_names(stored, columns)
    if chosen is None:
        batch = opened.footer.read(names)
    else:
        batch = pq.read_table(opened.file, columns=names, filters=chosen)
    try:
        version = (stored.metadata or {}).get(SCHEMA, SCHEMA_VERSION.encode()).decode()
        return model.upgrade(batch.replace_schema_metadata(None), columns, version)
    except SchemaError as error:
        raise LakeError(f"{uri}: {error}") from error


def _damaged(path: str, error: object) -> LakeError:
    return LakeError(
        f"{path} is not a readable Parquet file ({error}): `ego verify --repair` takes it away "
        "and has its clips made again"
    )


_DONE_UNDER = "_done_under"
_OWN = ("fingerprint", "input_hash", "attempt", "created_at", "token")
