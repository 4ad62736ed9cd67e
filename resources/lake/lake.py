"""Tables of the lake: fragments published clip by clip, compacted to one file a shard.

Layout, relative to the lake:

    shards/{shard}.json                               the raw files of a shard, immutable
    {table}/{shard}.parquet                           all rows of a shard after its stage
    {table}/_checksums/{shard}.{digest}.json          of those bytes
    {table}/_history/{shard}/…                        what it was before (see `history`)
    {table}/_fragments/{shard}/{item}.{token}.parquet rows of one item, until compacted
    {table}/_arrays/{shard}/{item}.{token}.npz        large arrays that rows point to
    _carried/{stage}/{shard}/{item}.{token}.npz       what a take's next clip needs

Each attempt writes under its own token (see `resources.ledger`): of an item, the rows with the
highest token count, in fragments and compacted alike. So a late attempt can finish but never
replace a newer one, and readers see every row exactly once before, during and after a
compaction. Not here: bytes on disk (`storage`), one file (`parquet`), compaction (`compaction`),
the search for damage (`ego_assets.upkeep.audit`).
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from resources.lake import compaction, history
from resources.lake.arrays import ArrayFiles
from resources.lake.compaction import MANIFEST, Wanted
from resources.lake.holdings import (
    again_if_moved,
    attempt_name,
    attempts,
    file_item_id,
    keys_of,
    newest,
)
from resources.lake.parquet import (
    PROVENANCE,
    SCHEMA,
    LakeError,
    ParquetFile,
    load,
    open_parquet,
    token_of,
)
from resources.lake.provenance import Provenance
from resources.lake.s3.storage import S3Storage
from resources.lake.storage import ChangedError, LocalStorage
from resources.lake.table import SCHEMA_VERSION, TABLES

if TYPE_CHECKING:
    import polars as pl

DEFAULT_LAKE = ".ego/lake"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


class LakeAwayError(OSError):
    """The folder of a lake is away, like a disk that is not mounted: waiting may help."""


@dataclass(frozen=True)
class Published:
    """A fragment: where it lies, and the SHA-256 of its bytes, hex."""

    key: str
    sha256: str


class Lake(ArrayFiles):
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
        self, table: str, shard: str, item: str, batch: pa.Table, provenance: Provenance
    ) -> Published:
        """Validate and publish the rows of one item. Raises ContractError."""
        TABLES[table].validate_batch(batch)
        metadata = {PROVENANCE: provenance.to_json(), SCHEMA: SCHEMA_VERSION}
        sink = pa.BufferOutputStream()
        batch = batch.replace_schema_metadata(metadata)
        pq.write_table(batch, sink, compression="zstd", write_page_checksum=True)
        data = memoryview(sink.getvalue())
        key = f"{table}/_fragments/{shard}/{attempt_name(item, provenance.token)}.parquet"
        self.storage.write(key, data)
        return Published(key, hashlib.sha256(data).hexdigest())

    def is_outdone(self, table: str, shard: str, item: str, token: int) -> bool:
        """Whether readers will never see the rows of this attempt: newer ones of the item are
        there, or the attempt is void."""
        for key, other in attempts(self.storage, f"{table}/_fragments/{shard}", item).items():
            if other > token or (other == token and key.endswith(history.FLOOR)):
                return True
        return self._compacted_tokens(table, shard).get(item, -1) > token

    def _compacted_tokens(self, table: str, shard: str) -> dict[str, int]:
        """{item: token} of the compacted file, which is read again only when it was replaced."""
        identity = self.storage.identity(f"{table}/{shard}.parquet")
        known = self._tokens.get((table, shard))
        if known is None or known[0] != identity:
            items = self.compacted_items(table, shard) if identity else {}
            known = identity, {item: token_of(items, item) for item in items}
            self._tokens[table, shard] = known
        return known[1]

    # -- reading -----------------------------------------------------------------------------

    def read(
        self,
        table: str,
        shard: str,
        *,
        items: Iterable[str] | None = None,
        columns: list[str] | None = None,
    ) -> pa.Table:
        """Rows of one shard, each exactly once; `items` picks clips (or videos)."""
        wanted = None if items is None else set(items)
        return again_if_moved(lambda: self.read_once(table, shard, wanted, columns))

    def read_once(
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
            fragments = self.newest_fragments(table, shard)
        with self._open_compacted(table, shard) as compacted:
            items = compacted.items if compacted else {}
            fresh = {u: k for u, (token, k) in fragments.items() if token > token_of(items, u)}
            for item, key in fresh.items():
                if wanted is None or item in wanted:
                    parts.append(self.read_file(table, key, columns))
            keep = {u for u in items if u not in fresh and (wanted is None or u in wanted)}
            if compacted is not None and keep:
                # The manifest's items are named by a hash of the uri; the uri is kept with them.
                values = [items[u].get("value", u) for u in sorted(keep)]
                chosen = None if keep == set(items) else pc.field(unit_column).isin(values)
                parts.append(load(compacted, uri, table, columns, chosen))
        chosen_schema = schema if columns is None else pa.schema([schema.field(c) for c in columns])
        return pa.concat_tables(parts) if parts else chosen_schema.empty_table()

    @contextmanager
    def _open_compacted(self, table: str, shard: str) -> Iterator[ParquetFile | None]:
        """The compacted file, one version of it however often it is read; None if there is none."""
        with ExitStack() as stack:
            try:
                opened = stack.enter_context(open_parquet(self.storage, f"{table}/{shard}.parquet"))
            except FileNotFoundError:
                opened = None
            yield opened

    def read_file(self, table: str, key: str, columns: list[str] | None) -> pa.Table:
        """Rows of one Parquet file of the lake. Raises LakeError, FileNotFoundError."""
        with open_parquet(self.storage, key) as opened:
            return load(opened, self.storage.uri(key), table, columns)

    def scan(self, table: str) -> pl.LazyFrame:
        """All shards of a table, lazily, as far as they are compacted.

        What a file of an older release lacks is null here; values that it calls otherwise have
        their names of now.
        """
        import polars as pl

        model = TABLES[table]
        empty = pl.DataFrame(model.arrow_schema().empty_table())
        files = self.compacted_files(table)
        if not files:
            return empty.lazy()
        rows = pl.scan_parquet(
            [self.storage.uri(key) for key in files],
            glob=False,  # a lake's name may hold `[`, `*` or `?`
            schema=empty.schema,
            missing_columns="insert",
            extra_columns="ignore",
            cast_options=pl.ScanCastOptions(integer_cast="upcast", float_cast="upcast"),
        )
        return rows.with_columns(
            pl.col(name).replace(dict(names)) for name, names in model.formerly().items()
        )

    def compacted_files(self, table: str) -> list[str]:
        """Keys of a table's compacted files, one for each shard."""
        return keys_of(self.storage, table, ".parquet")

    def compacted_items(self, table: str, shard: str) -> dict[str, dict[str, Any]]:
        """Items in the compacted file: {item: {"fingerprint", "provenance", …}}; {} if no file."""
        with self._open_compacted(table, shard) as compacted:
            return compacted.items if compacted else {}

    def count(self, table: str, shard: str) -> tuple[set[str], int] | None:
        """The items and the number of rows of a compacted file, as its footer says; None if there
        is none, or rows lie beside it that count."""
        fragments = self.newest_fragments(table, shard)
        with self._open_compacted(table, shard) as compacted:
            if compacted is None:
                return None
            items = compacted.items
            if any(token > token_of(items, u) for u, (token, _) in fragments.items()):
                return None
            return set(items), compacted.footer.metadata.num_rows

    def provenance(self, table: str, shard: str, item: str) -> Provenance | None:
        """Where the current rows of an item came from."""
        return self.provenances(table, shard, items={item}).get(item)

    def provenances(
        self, table: str, shard: str, items: set[str] | None = None
    ) -> dict[str, Provenance]:
        """Where the current rows of every item came from (also of items without rows)."""
        return again_if_moved(lambda: self.provenances_once(table, shard, items))

    def provenances_once(
        self,
        table: str,
        shard: str,
        wanted: set[str] | None,
        fragments: dict[str, tuple[int, str]] | None = None,
    ) -> dict[str, Provenance]:
        if fragments is None:
            fragments = self.newest_fragments(table, shard)
        with self._open_compacted(table, shard) as compacted:
            made = compacted.provenances if compacted else {}
        found = {u: p for u, p in made.items() if wanted is None or u in wanted}
        for item, (token, key) in fragments.items():
            compacted_token = made[item].token if item in made else -1
            if token > compacted_token and (wanted is None or item in wanted):
                with open_parquet(self.storage, key) as fragment:
                    found[item] = Provenance.from_json(fragment.metadata[PROVENANCE])
        return found

    def rows_of_files(self, shard: str) -> dict[str, dict[str, Any]]:
        """{item: row} of `video_manifest`. An item keeps its name when its file is moved."""
        return again_if_moved(
            lambda: self.rows_of_files_once(shard, self.newest_fragments(MANIFEST, shard))
        )

    def rows_of_files_once(
        self, shard: str, fragments: dict[str, tuple[int, str]]
    ) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        with self._open_compacted(MANIFEST, shard) as compacted:
            items = compacted.items if compacted else {}
            if compacted is not None:
                uri = self.storage.uri(f"{MANIFEST}/{shard}.parquet")
                rows = {r["uri"]: r for r in load(compacted, uri, MANIFEST, None).to_pylist()}
                named = {file_item_id(value): value for value in rows}
                values = {u: entry.get("value", named.get(u)) for u, entry in items.items()}
                found = {item: rows[value] for item, value in values.items() if value in rows}
        for item, (token, key) in fragments.items():
            if token > token_of(items, item):
                for row in self.read_file(MANIFEST, key, None).to_pylist():
                    found[item] = row
        return found

    def fingerprint(self, table: str, shard: str, item: str) -> str | None:
        """Fingerprint of the rows that are in the lake for an item, or None."""
        found = self.provenance(table, shard, item)
        return found.fingerprint if found else None

    def fingerprints(self, table: str, shard: str) -> dict[str, str]:
        """Fingerprint of every item that has rows, or is known to have none, in the lake."""
        return {u: p.fingerprint for u, p in self.provenances(table, shard).items()}

    # -- compaction --------------------------------------------------------------------------

    def compact(self, table: str, shard: str, items: Wanted) -> int:
        """Merge what `items` have into one file and drop the rest. Returns the rows.

        items: a function is asked when it is known what there is to drop, so that it can name items
        that somebody entered meanwhile; None keeps all. Safe to kill at any point: the new file
        appears at once, and fragments that outlive it have tokens that it has, too. One compaction
        of a shard's table at a time.
        """
        if items is not None and not callable(items):
            items = set(items)
        while True:
            with self.storage.lock(f"{table}.{shard}"), suppress(ChangedError):
                return compaction.compact(self, table, shard, items)

    def newest_fragments(self, table: str, shard: str) -> dict[str, tuple[int, str]]:
        """{item: (token, key)} of each item's newest fragment."""
        return newest(self.storage, f"{table}/_fragments/{shard}")


def _is_text(path: str) -> bool:
    """Whether a path is UTF-8, which Arrow and polars ask for."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
