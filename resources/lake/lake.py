"""Tables of the lake: fragments published clip by clip, compacted to one file a shard.

Layout, relative to the lake:

    shards/{shard}.json                       the raw files of a shard, immutable
    {table}/{shard}.parquet                   all rows of a shard after its stage
    {table}/_fragments/{shard}/{unit}.parquet rows of one unit, until they are compacted
    {table}/_arrays/{shard}/{unit}.npz        large arrays that rows point to
    _carried/{stage}/{shard}/{unit}.npz       what a take's next clip needs

A fragment beats the rows of its unit in the compacted file, so readers see every row exactly
once before, during and after a compaction. Not here: bytes on disk (`storage`).
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ego_assets.schemas import TABLES
from ego_assets.schemas.base import SCHEMA_VERSION
from resources.lake.provenance import Provenance
from resources.lake.storage import LocalStorage

PROVENANCE = b"ego.provenance"
UNITS = b"ego.units"
SCHEMA = b"ego.schema_version"
UNIT_COLUMN = {"video_manifest": "uri", "clips": "video_id"}
_READ_TRIES = 5


class LakeError(RuntimeError):
    """The lake holds something that it should not; the message names the file."""


class Lake:
    """The tables under one root. Safe to use from many processes at once."""

    def __init__(self, root: str | Path) -> None:
        text = str(root)
        if "://" in text:
            raise LakeError(f"{text}: only local folders are supported as a lake in this version")
        self.root = Path(text).expanduser().resolve()
        self.storage = LocalStorage(self.root)

    # -- shards ------------------------------------------------------------------------------

    def write_shard(self, shard: str, content: Mapping[str, Any]) -> bool:
        """Register a shard. The first writer wins: a shard never changes. Tells if it was new."""
        data = json.dumps(content, ensure_ascii=False, indent=1).encode()
        return self.storage.write(f"shards/{shard}.json", data, replace=False)

    def read_shard(self, shard: str) -> dict[str, Any]:
        try:
            return json.loads(self.storage.read(f"shards/{shard}.json"))
        except FileNotFoundError as error:
            raise LakeError(
                f"shard {shard} is not registered in {self.root}: run `ego run` on its videos, "
                "or the job register_videos"
            ) from error

    def shards(self) -> list[str]:
        return [Path(key).stem for key in self.storage.list("shards") if key.endswith(".json")]

    # -- fragments ---------------------------------------------------------------------------

    def publish(
        self, table: str, shard: str, unit: str, batch: pa.Table, provenance: Provenance
    ) -> str:
        """Validate and publish the rows of one unit. Returns the key. Raises ContractError."""
        TABLES[table].validate_batch(batch)
        metadata = {PROVENANCE: provenance.to_json(), SCHEMA: SCHEMA_VERSION}
        sink = pa.BufferOutputStream()
        pq.write_table(batch.replace_schema_metadata(metadata), sink, compression="zstd")
        key = f"{table}/_fragments/{shard}/{unit}.parquet"
        self.storage.write(key, memoryview(sink.getvalue()))
        return key

    def publish_arrays(
        self, table: str, shard: str, unit: str, arrays: Mapping[str, np.ndarray]
    ) -> str:
        """Publish large arrays of one unit as an npz without pickles. Returns the key."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **dict(arrays))
        key = f"{table}/_arrays/{shard}/{unit}.npz"
        self.storage.write(key, buffer.getbuffer())
        return key

    def read_arrays(self, key: str) -> dict[str, np.ndarray]:
        with np.load(io.BytesIO(self.storage.read(key)), allow_pickle=False) as loaded:
            return {name: loaded[name] for name in loaded.files}

    # -- what a take carries from clip to clip --------------------------------------------------

    def write_carried(self, stage: str, shard: str, unit: str, carried: Mapping[str, Any]) -> None:
        """Store a flat dict of JSON values and arrays."""
        arrays = {k: v for k, v in carried.items() if isinstance(v, np.ndarray)}
        plain = {k: v for k, v in carried.items() if not isinstance(v, np.ndarray)}
        buffer = io.BytesIO()
        text = np.frombuffer(json.dumps(plain).encode(), np.uint8)
        np.savez_compressed(
            buffer, allow_pickle=False, **{f"a_{k}": v for k, v in arrays.items()}, json=text
        )
        self.storage.write(f"_carried/{stage}/{shard}/{unit}.npz", buffer.getbuffer())

    def read_carried(self, stage: str, shard: str, unit: str) -> dict[str, Any] | None:
        """None if there is none."""
        try:
            loaded = self.read_arrays(f"_carried/{stage}/{shard}/{unit}.npz")
        except FileNotFoundError:
            return None
        carried = json.loads(loaded.pop("json").tobytes())
        return carried | {k.removeprefix("a_"): v for k, v in loaded.items()}

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
        self, table: str, shard: str, wanted: set[str] | None, columns: list[str] | None
    ) -> pa.Table:
        schema = TABLES[table].arrow_schema()
        unit_column = UNIT_COLUMN.get(table, "clip_id")
        parts: list[pa.Table] = []
        fresh = self._fragments(table, shard)
        for unit, key in fresh.items():
            if wanted is None or unit in wanted:
                parts.append(pq.read_table(self.storage.path(key), columns=columns))
        units = self.compacted_units(table, shard)
        keep = {u for u in units if u not in fresh and (wanted is None or u in wanted)}
        if keep:
            path = self.storage.path(f"{table}/{shard}.parquet")
            if keep == set(units):
                compacted = pq.read_table(path, columns=columns)
            else:
                # Fragments of the manifest are named by a hash of the uri, kept in the units.
                values = [units[u].get("value", u) for u in sorted(keep)]
                chosen = pc.field(unit_column).isin(values)
                compacted = pq.read_table(path, columns=columns, filters=chosen)
            parts.append(compacted)
        chosen_schema = schema if columns is None else pa.schema([schema.field(c) for c in columns])
        parts = [p.replace_schema_metadata(None).cast(chosen_schema) for p in parts]
        return pa.concat_tables(parts) if parts else chosen_schema.empty_table()

    def scan(self, table: str) -> pl.LazyFrame:
        """All shards of a table, lazily, as far as they are compacted."""
        if not any(k.endswith(".parquet") for k in self.storage.list(table)):
            return pl.from_arrow(TABLES[table].arrow_schema().empty_table()).lazy()  # type: ignore[union-attr]
        return pl.scan_parquet(str(self.root / table / "*.parquet"), glob=True)

    def compacted_units(self, table: str, shard: str) -> dict[str, dict[str, Any]]:
        """Units in the compacted file: {unit: {"fingerprint", "provenance", …}}; {} if no file."""
        metadata = self._metadata(f"{table}/{shard}.parquet")
        return json.loads(metadata[UNITS]) if metadata else {}

    def provenance(self, table: str, shard: str, unit: str) -> Provenance | None:
        """Where the current rows of a unit came from."""
        fragment = self._metadata(f"{table}/_fragments/{shard}/{unit}.parquet")
        if fragment:
            return Provenance.from_json(fragment[PROVENANCE])
        metadata = self._metadata(f"{table}/{shard}.parquet")
        entry = json.loads(metadata[UNITS]).get(unit) if metadata else None
        if metadata is None or entry is None:
            return None
        shared = json.loads(metadata[PROVENANCE])[entry["provenance"]]
        own = {k: entry[k] for k in _OWN}
        return Provenance(**shared, **own)

    def fingerprint(self, table: str, shard: str, unit: str) -> str | None:
        """Fingerprint of the rows that are in the lake for a unit, or None."""
        found = self.provenance(table, shard, unit)
        return found.fingerprint if found else None

    def fingerprints(self, table: str, shard: str) -> dict[str, str]:
        """Fingerprint of every unit that has rows, or is known to have none, in the lake."""
        found = {u: e["fingerprint"] for u, e in self.compacted_units(table, shard).items()}
        for unit, key in self._fragments(table, shard).items():
            metadata = self._metadata(key)
            if metadata:
                found[unit] = Provenance.from_json(metadata[PROVENANCE]).fingerprint
        return found

    # -- compaction --------------------------------------------------------------------------

    def compact(self, table: str, shard: str, units: Iterable[str]) -> int:
        """Merge what `units` have into one file and drop the rest. Returns the rows.

        Safe to kill at any point: the new file appears at once, and fragments that outlive it
        hold the same rows as it does.
        """
        wanted = set(units)
        fragments = self._fragments(table, shard)
        old = self.compacted_units(table, shard)
        key = f"{table}/{shard}.parquet"
        if not fragments and set(old) == wanted and self.storage.exists(key):
            return pq.read_metadata(self.storage.path(key)).num_rows
        batch = self.read(table, shard, units=wanted)
        batch = batch.sort_by([(c, "ascending") for c in TABLES[table].key])
        entries: dict[str, dict[str, Any]] = {}
        shared: list[dict[str, Any]] = []
        for unit in sorted(wanted):
            found = self.provenance(table, shard, unit)
            if found is None:
                continue
            values = dict(vars(found))
            own = {k: values.pop(k) for k in _OWN}
            if values not in shared:
                shared.append(values)
            entries[unit] = own | {"provenance": shared.index(values)}
            if table == "video_manifest":
                rows = self.read(table, shard, units=[unit], columns=["uri"])
                entries[unit]["value"] = rows["uri"][0].as_py()
        metadata = {
            UNITS: json.dumps(entries),
            PROVENANCE: json.dumps(shared),
            SCHEMA: SCHEMA_VERSION,
        }
        TABLES[table].validate_batch(batch)
        with self.storage.open_aside(key) as aside:
            pq.write_table(
                batch.replace_schema_metadata(metadata),
                pa.PythonFile(aside.raw, mode="w"),
                compression="zstd",
                row_group_size=65_536,
            )
        for fragment in fragments.values():
            self.storage.delete(fragment)
        return batch.num_rows

    # -- inside ------------------------------------------------------------------------------

    def _fragments(self, table: str, shard: str) -> dict[str, str]:
        keys = self.storage.list(f"{table}/_fragments/{shard}")
        return {Path(k).stem: k for k in keys if k.endswith(".parquet")}

    def _metadata(self, key: str) -> dict[bytes, bytes] | None:
        try:
            return pq.read_schema(self.storage.path(key)).metadata
        except FileNotFoundError:
            return None
        except (pa.ArrowInvalid, OSError) as error:
            raise LakeError(
                f"{self.storage.path(key)} is not a readable Parquet file ({error}): "
                "remove it and run its shard again with --force"
            ) from error


_OWN = ("fingerprint", "input_hash", "attempt", "created_at")
