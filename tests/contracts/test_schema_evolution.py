"""Tables of older releases read under this one's schema, or say exactly why not.

`tests/golden/lake_schema_1` is a lake as the first release wrote it. After a change of the contract
it stays as it is, and a folder of the new version is added:

    python -m tests.contracts.test_schema_evolution
"""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import Field

from ego_assets.catalog import TABLES
from ego_assets.upkeep.audit import verify
from resources.lake import Lake, LakeError
from resources.lake.catalog import Catalog
from resources.lake.parquet import SCHEMA
from resources.lake.table import (
    SCHEMA_VERSION,
    Arrow,
    ContractError,
    Float64,
    Int64,
    SchemaError,
    Table,
    Text,
    fixed,
)
from resources.ledger import Ledger
from tests.engine.stage_bench import SHARD, provenance

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
LAKES = sorted(GOLDEN.glob("lake_schema_*"))


def golden_value(name: str, column: Any) -> Any:
    if name in {"video_id", "clip_id", "take_id", "shard"}:
        return {"video_id": "a" * 16, "clip_id": "a" * 16 + "-0000", "shard": SHARD}.get(name, "t")
    if listed := column.choices or column.one_of:
        return listed[0]

    def of(kind: pa.DataType) -> Any:
        if pa.types.is_fixed_size_list(kind):
            return [of(kind.value_type)] * kind.list_size
        if pa.types.is_list(kind):
            return [of(kind.value_type)]
        if pa.types.is_string(kind):
            return "text"
        if pa.types.is_binary(kind):
            return b"bytes"
        if pa.types.is_boolean(kind):
            return True
        return column.minimum or 0

    return of(column.type)


def golden_rows(table: str) -> list[dict[str, Any]]:
    """A row with every column filled, and one with every null that is allowed."""
    columns = {c.name: c for c in TABLES[table].columns()}
    full = {n: golden_value(n, c) for n, c in columns.items()}
    bare = full | {n: None for n, c in columns.items() if c.nullable}
    key = next(k for k in reversed(TABLES[table].key) if columns[k].choices is None)
    bare[key] = f"{full[key]}2" if isinstance(full[key], str) else full[key] + 1
    return [full, bare]


def write_golden(folder: Path) -> None:
    lake = Lake(folder)
    for table, model in TABLES.items():
        batch = model.from_rows(golden_rows(table))
        lake.publish(table, SHARD, "unit", batch, provenance("golden"))
        lake.compact(table, SHARD, ["unit"])


@pytest.mark.parametrize("folder", LAKES, ids=lambda p: p.name)
@pytest.mark.parametrize("table", TABLES)
def test_lakes_of_every_release_are_read(folder: Path, table: str) -> None:
    lake = Lake(folder)
    rows = lake.read(table, SHARD)
    assert rows.schema.equals(TABLES[table].arrow_schema())
    # A table that this release did not have yet is empty.
    count = 2 if (folder / table).exists() else 0
    assert rows.num_rows == count
    assert TABLES[table].violations(rows) == []
    assert lake.scan(table).collect().height == count
    with Catalog(lake) as catalog:
        assert catalog.query(f"SELECT count(*) AS n FROM {table}").to_pylist() == [{"n": count}]


def test_there_is_a_golden_lake_of_this_release() -> None:
    newest = GOLDEN / f"lake_schema_{SCHEMA_VERSION}"
    assert newest in LAKES
    lake = Lake(newest)
    for table, model in TABLES.items():
        with lake.storage.open(f"{table}/{SHARD}.parquet") as file:
            stored = pq.read_schema(file)
        assert stored.equals(model.arrow_schema()), (
            f"the contract of {table} has changed: raise SCHEMA_VERSION and run this module"
        )


TIERED = [name for name, model in TABLES.items() if "quality_tier" in model.model_fields]


def as_before(batch: pa.Table) -> pa.Table:
    """Its first row as of a large model, under the name that this had until schema 3."""
    place = batch.schema.get_field_index("quality_tier")
    values = ["model", *batch["quality_tier"].to_pylist()[1:]]
    return batch.set_column(place, batch.schema.field(place), pa.chunked_array([values]))


@pytest.mark.parametrize("table", TIERED)
def test_values_that_are_called_otherwise_now_are_read_as_such(table: str) -> None:
    """Rows of large models said `model` before there were learned ones."""
    model = TABLES[table]
    before = as_before(model.from_rows(golden_rows(table)))
    assert before.schema.equals(model.arrow_schema())
    after = model.upgrade(before, version="2")
    assert after["quality_tier"].to_pylist() == ["reference", "baseline"]
    assert model.violations(after) == []
    (some,) = model.upgrade(before.select(["quality_tier"]), ["quality_tier"], "2").columns
    assert some.to_pylist() == ["reference", "baseline"]


@pytest.mark.parametrize("folder", LAKES, ids=lambda p: p.name)
def test_whoever_reads_older_lakes_finds_the_names_of_now(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "lake")
    lake = Lake(tmp_path / "lake")
    for table in TIERED:
        if f"{table}/{SHARD}.parquet" not in lake.compacted_files(table):
            continue
        rewrite(lake, table, as_before)
        for rows in (
            lake.read(table, SHARD),
            lake.read(table, SHARD, columns=["clip_id", "quality_tier"]),
            lake.scan(table).collect().to_arrow(),
            lake.scan(table).select("quality_tier").collect().to_arrow(),
        ):
            assert rows["quality_tier"].to_pylist() == ["reference", "baseline"], table
        assert lake.scan(table).filter(quality_tier="reference").collect().height == 1
        with Catalog(lake) as catalog:
            for tier, count in (("reference", 1), ("model", 0), ("baseline", 1)):
                sql = f"SELECT clip_id FROM {table} WHERE quality_tier = '{tier}'"
                assert catalog.query(sql).num_rows == count, sql
            assert catalog.query(f"SELECT * FROM {table}").column_names == [
                *TABLES[table].arrow_schema().names
            ]
            assert catalog.query("SHOW TABLES").num_rows == len(TABLES)
    found = verify(lake, Ledger.beside(lake.root))
    assert not [p for p in found if p.kind == "breaks_contract"]


def test_a_shard_with_rows_of_two_releases_is_compacted(tmp_path: Path) -> None:
    lake, table = Lake(tmp_path), TABLES["detections"]
    first, second = ([row] for row in golden_rows("detections"))
    lake.publish("detections", SHARD, "old", table.from_rows(first), provenance("golden"))
    lake.compact("detections", SHARD, ["old"])
    rewrite(lake, "detections", as_before)
    lake.publish("detections", SHARD, "new", table.from_rows(second), provenance("golden"))
    assert lake.compact("detections", SHARD, ["old", "new"]) == 2
    tiers = lake.read("detections", SHARD)["quality_tier"].to_pylist()
    assert sorted(tiers) == ["baseline", "reference"]


def test_a_column_with_a_default_may_be_left_out_of_a_row() -> None:
    """So a backend of another package goes on when a column is added."""
    rows = [{"clip_id": "a", "count": 1, "length_s": 2.0, "note": None}]
    assert Thing.from_rows(rows).column("kind").to_pylist() == ["b"]
    with pytest.raises(ContractError, match="note"):
        Thing.from_rows([{"clip_id": "a", "count": 1, "length_s": 2.0}])


class Thing(Table):
    """What is read."""

    table: ClassVar[str] = "clips"
    key: ClassVar[tuple[str, ...]] = ("clip_id",)
    renamed: ClassVar[dict[str, str]] = {"length": "length_s"}

    clip_id: Text
    count: Int64
    length_s: Float64
    note: Text | None
    kind: Literal["a", "b"] = Field(default="b")


def old(**columns: Any) -> pa.Table:
    return pa.table({"clip_id": ["c"], "length": pa.array([1.5], pa.float32())} | columns)


def test_renamed_widened_new_and_dropped_columns() -> None:
    batch = old(count=pa.array([3], pa.int32()), gone=["x"])
    now = Thing.upgrade(batch)
    assert now.schema.equals(Thing.arrow_schema())
    assert now.to_pylist() == [
        {"clip_id": "c", "count": 3, "length_s": 1.5, "note": None, "kind": "b"}
    ]
    assert Thing.stored_names(batch.schema) == ["clip_id", "count", "length"]
    assert Thing.stored_names(batch.schema, ["length_s", "note"]) == ["length"]
    some = Thing.upgrade(batch.select(["length"]), ["length_s", "note"])
    assert some.to_pylist() == [{"length_s": 1.5, "note": None}]


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (old(), r"clips\.count is not in a file.*no default: materialize clips"),
        (old(count=["many"]), r"clips\.count was written as string and is int64 now"),
    ],
)
def test_what_cannot_be_read_says_why(batch: pa.Table, words: str) -> None:
    with pytest.raises(SchemaError, match=words):
        Thing.upgrade(batch)


class Later(Table):
    """`clips` with a list of another length."""

    table: ClassVar[str] = "clips"
    key: ClassVar[tuple[str, ...]] = ("clip_id",)
    clip_id: Text
    point: Annotated[list[float], Arrow(fixed(3))]


def test_a_vector_of_another_length_is_no_vector() -> None:
    kind = pa.list_(pa.float32(), 2)
    batch = pa.table({"clip_id": ["c"], "point": pa.array([[1.0, 2.0]], kind)})
    with pytest.raises(SchemaError, match=r"clips\.point was written as fixed_size_list"):
        Later.upgrade(batch)


def rewrite(lake: Lake, table: str, change: Any) -> str:
    """Change a compacted file as an older or newer release would have written it."""
    key = f"{table}/{SHARD}.parquet"
    with lake.storage.open(key) as file:
        batch = pq.read_table(file)
    sink = io.BytesIO()
    pq.write_table(change(batch), sink)
    lake.storage.write(key, sink.getvalue())
    return lake.storage.uri(key)


def test_a_lake_with_files_of_two_releases(tmp_path: Path) -> None:
    write_golden(tmp_path)
    lake = Lake(tmp_path)
    rewrite(lake, "clips", lambda b: b.drop_columns(["shard"]).append_column("x", pa.array([1, 2])))
    with pytest.raises(LakeError, match=r"clips/.*parquet: clips\.shard is not in a file"):
        lake.read("clips", SHARD)
    assert lake.read("clips", SHARD, columns=["clip_index"]).num_rows == 2
    rewrite(lake, "video_manifest", lambda b: b.drop_columns(["audio_codec"]))
    assert lake.read("video_manifest", SHARD)["audio_codec"].null_count == 2
    assert lake.scan("video_manifest").collect()["audio_codec"].null_count() == 2
    write_golden(tmp_path / "second")
    other = Path("video_manifest", f"{SHARD}.parquet")
    (tmp_path / "video_manifest" / "20270101-0000.parquet").write_bytes(
        (tmp_path / "second" / other).read_bytes()
    )
    assert lake.scan("video_manifest").collect().height == 4
    with Catalog(lake) as catalog:
        (row,) = catalog.query(
            "SELECT count(*) n, count(audio_codec) k FROM video_manifest"
        ).to_pylist()
    assert row == {"n": 4, "k": 1}


def test_a_file_of_a_newer_release_says_so(tmp_path: Path) -> None:
    write_golden(tmp_path)
    lake = Lake(tmp_path)

    def newer(batch: pa.Table) -> pa.Table:
        return batch.replace_schema_metadata({**batch.schema.metadata, SCHEMA: b"99"})

    uri = rewrite(lake, "clips", newer)
    with pytest.raises(LakeError, match=r"schema 99.*update ego-assets") as raised:
        lake.read("clips", SHARD)
    assert uri in str(raised.value)


if __name__ == "__main__":
    newest = GOLDEN / f"lake_schema_{SCHEMA_VERSION}"
    write_golden(newest)
    shutil.rmtree(newest / "_locks")  # of whoever wrote it
