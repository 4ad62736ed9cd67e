"""SQL over the lake answers, and lets nobody write, load, attach or look outside."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ego_assets.catalog import TABLES
from resources.lake import Lake
from resources.lake import catalog as catalog_module
from resources.lake.catalog import Catalog, QueryError, open_catalog
from tests.resources.s3_server import new_bucket, s3_client, s3_server
from tests.resources.test_lake import publish
from tests.upkeep.test_audit import SHARD, Bench

SECRET = "planted-secret-4711"  # pragma: allowlist secret
ENDLESS = "SELECT * FROM range(1000000000000) a, range(1000000) b WHERE a.range + b.range < 0"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a lake, and files in it and beside it that are nobody's business."""
    folder = tmp_path_factory.mktemp("place")
    lake = Bench(folder).lake
    (folder / "outside.csv").write_text(f"a\n{SECRET}\n")
    (folder / "outside.parquet").write_bytes(b"PAR1")
    (lake.root / ".dagster").mkdir()
    (lake.root / ".dagster" / "dagster.yaml").write_text(f"a: {SECRET}\n")
    (lake.root / "notes.csv").write_text(f"a\n{SECRET}\n")
    return folder


@pytest.fixture(scope="module")
def catalog(place: Path) -> Iterator[Catalog]:
    """Only to be read."""
    with open_catalog(place / "lake") as opened:
        yield opened


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_tables_are_there_by_name_also_empty_ones(catalog: Catalog) -> None:
    found = catalog.query("SELECT video_id, count(*) AS n FROM clips GROUP BY ALL ORDER BY ALL")
    assert found.to_pylist() == [{"video_id": f"{n:016x}", "n": 3} for n in range(4)]
    for table, model in TABLES.items():
        rows = catalog.query(f"SELECT * FROM {table} LIMIT 1")
        assert rows.column_names == model.arrow_schema().names
    assert catalog.query("DESCRIBE hand_poses").num_rows == len(TABLES["hand_poses"].model_fields)
    assert catalog.query("EXPLAIN SELECT 1").num_rows > 0


def test_a_lake_of_any_name_is_quoted(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "it's; DROP VIEW clips --")
    with open_catalog(bench.lake.root) as catalog:
        assert catalog.query("SELECT count(*) AS n FROM clips").to_pylist() == [{"n": 12}]


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("SELECT count(*) FROM main.clips", 1),
        ('FROM "Clips" SELECT clip_id', 12),
        ("WITH c AS (SELECT * FROM clips), d AS (FROM c) SELECT * FROM d WHERE clip_index = 1", 4),
        ("WITH clips AS (SELECT 1) SELECT * FROM clips", 1),
        ("WITH clips AS (SELECT * FROM clips WHERE clip_index = 1) SELECT * FROM clips", 4),
        ("WITH RECURSIVE clips AS (SELECT * FROM main.clips) SELECT * FROM clips", 12),
        ("SELECT * FROM (WITH a AS (SELECT 1) FROM a), (WITH b AS (SELECT 2) FROM b)", 1),
        ("WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 5) FROM t", 5),
        ("SELECT a.clip_id FROM clips a JOIN clips b USING (clip_id) WHERE b.clip_index IN (0)", 4),
        ("SELECT * FROM (VALUES (1), (2)) v UNION ALL (SELECT 3)", 3),
        ("SELECT unnest([1, 2, 3]), * FROM range(2)", 6),
        ("SELECT list_transform([1], lambda x: x + 1), CASE WHEN true THEN 1 END, '1'::INT", 1),
        ("SELECT row_number() OVER w, clip_id FROM clips WINDOW w AS (ORDER BY clip_id)", 12),
        ("SELECT * FROM clips PIVOT (count(*) FOR clip_index IN (0, 1))", 12),
        ("SELECT * EXCLUDE (shard) FROM clips USING SAMPLE 3 ROWS", 3),
        ("SELECT (SELECT max(clip_index) FROM clips) WHERE EXISTS (SELECT 1 FROM clips)", 1),
        ("SELECT DISTINCT ON (video_id) video_id FROM clips ORDER BY 1 LIMIT 3 OFFSET 1", 3),
        ("SUMMARIZE clips", len(TABLES["clips"].model_fields)),
        ("DESCRIBE SELECT 1 AS a, 2 AS b", 2),
        ("SHOW TABLES", len(TABLES)),
        ("explain\nSELECT * FROM clips", 1),
        ("SELECT 1; -- and that is all", 1),
    ],
)
def test_all_that_only_reads_tables_is_allowed(catalog: Catalog, sql: str, rows: int) -> None:
    assert catalog.query(sql).num_rows == rows


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('{outside}/outside.csv')",
        "SELECT * FROM '{outside}/outside.csv'",
        "SELECT * FROM read_text('{outside}/outside.csv')",
        "SELECT * FROM read_text('{lake}/../outside.csv')",
        "SELECT * FROM read_blob('/etc/passwd')",
        "SELECT * FROM glob('{outside}/*')",
        "SELECT * FROM read_parquet('s3://bucket/key')",
        "SELECT * FROM read_csv('http://127.0.0.1:9/x')",
        "SELECT * FROM sniff_csv('{outside}/outside.csv')",
        # What lies in the lake and is no table.
        "SELECT * FROM read_text('{lake}/.dagster/dagster.yaml')",
        "SELECT * FROM read_blob('{lake}/_ledger/ledger.sqlite')",
        "SELECT * FROM '{lake}/notes.csv'",
        'SELECT * FROM "{lake}/notes.csv"',
        "SELECT * FROM glob('{lake}/*')",
        "SELECT * FROM read_parquet('{lake}/clips/*.parquet')",
        "SELECT * FROM parquet_metadata('{lake}/clips/{shard}.parquet')",
        "SELECT * FROM parquet_kv_metadata('{lake}/clips/{shard}.parquet')",
        "SELECT * FROM query('SELECT * FROM read_text(''{lake}/notes.csv'')')",
        "SELECT * FROM query_table(['clips'])",
        "SELECT (SELECT content FROM read_text('{lake}/notes.csv'))",
        "WITH c AS (FROM read_text('{lake}/notes.csv')) SELECT * FROM c",
        "SELECT * FROM clips WHERE clip_id IN (SELECT content FROM read_text('{lake}/notes.csv'))",
        "SELECT 1 UNION ALL SELECT content FROM read_text('{lake}/notes.csv')",
        "SELECT * FROM clips, LATERAL (SELECT * FROM read_text('{lake}/notes.csv'))",
        "SELECT * FROM clips ORDER BY (SELECT content FROM read_text('{lake}/notes.csv'))",
        "SELECT list_transform([1], lambda x: (SELECT content FROM read_text('{lake}/notes.csv')))",
        "DESCRIBE '{lake}/notes.csv'",
        "SUMMARIZE '{lake}/notes.csv'",
        "DESCRIBE SELECT * FROM read_csv('{lake}/notes.csv')",
        "EXPLAIN SELECT * FROM read_csv('{lake}/notes.csv')",
        "FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))",
        "SELECT json_serialize_plan('SELECT * FROM read_csv(''{lake}/notes.csv'')')",
        # Writing, by whatever begins it.
        "COPY clips TO '{outside}/copy.csv'",
        "COPY clips TO '{lake}/clips/copy.parquet'",
        "COPY (SELECT 1) TO '{lake}/clips/{shard}.parquet'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{lake}/clips/{shard}.parquet'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{lake}/_ledger/ledger.sqlite' (FORMAT csv)",
        "EXPLAIN ANALYZE COPY (SELECT 'x') TO '{lake}/.dagster/dagster.yaml' (FORMAT csv)",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{lake}/clips/{shard}.parquet' (USE_TMP_FILE false)",
        "EXPLAIN (ANALYZE) COPY (SELECT 1) TO '{lake}/x.csv'",
        "EXPLAIN COPY (SELECT 1) TO '{lake}/x.csv'",
        "EXPLAIN/**/ANALYZE COPY (SELECT 1) TO '{lake}/x.csv'",
        "EXPLAIN ANALYZE SELECT 1",
        "EXPLAIN EXPLAIN ANALYZE COPY (SELECT 1) TO '{lake}/x.csv'",
        "EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1",
        "EXPLAIN ANALYZE ATTACH '{lake}/x.db'",
        "EXPLAIN ANALYZE SET threads = 1",
        "WITH gone AS (DELETE FROM clips RETURNING *) SELECT * FROM gone",
        "WITH new AS (INSERT INTO clips SELECT * FROM clips RETURNING *) SELECT * FROM new",
        "WITH c AS (SELECT 1) INSERT INTO clips SELECT * FROM c",
        "MERGE INTO clips USING clips c USING (clip_id) WHEN MATCHED THEN DELETE",
        "EXPORT DATABASE '{lake}/x'",
        "IMPORT DATABASE '{lake}/x'",
        "ATTACH '{lake}/x.db'",
        "ATTACH '{outside}/x.db'",
        "CREATE TABLE t AS SELECT 1",
        "CREATE VIEW v AS SELECT 1",
        "CREATE MACRO m(x) AS x",
        "CREATE SECRET s (TYPE s3)",
        "CREATE PERSISTENT SECRET s (TYPE s3)",
        "DELETE FROM clips",
        "DROP VIEW clips",
        "ALTER TABLE clips RENAME TO c",
        "VACUUM",
        "CHECKPOINT",
        "BEGIN",
        "USE memory",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET VARIABLE x = 1",
        "RESET lock_configuration",
        "PRAGMA enable_profiling",
        "PRAGMA database_list",
        "CALL pragma_version()",
        "PREPARE p AS SELECT 1",
        "EXECUTE p",
        # What DuckDB knows of itself.
        "SELECT current_setting('threads')",
        "SELECT getenv('HOME')",
        "SELECT * FROM duckdb_settings()",
        "SELECT * FROM duckdb_settings",
        "SELECT * FROM sqlite_master",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM pg_catalog.pg_class",
        "WITH a AS (WITH sqlite_master AS (SELECT 1) FROM sqlite_master) FROM sqlite_master",
        "WITH sqlite_master AS (FROM sqlite_master) FROM sqlite_master",
        "WITH \"{lake}/notes.csv\" AS (FROM '{lake}/notes.csv') FROM clips",
        "WITH a AS (FROM b), b AS (SELECT 1) FROM a",
        "SHOW DATABASES",
        "SHOW ALL TABLES",
        "SELECT 1; SELECT 2",
        "SELECT 1; DROP VIEW clips",
        "EXPLAIN SELECT 1; DROP VIEW clips",
        "PIVOT clips ON clip_index USING count(*)",
        "SELECT ?",
        "SELECT $name",
        "SELECT * FROM nothing_like_it",
        "SELECT * FROM elsewhere.clips",
        "SELECT " + "(" * 5000 + "1" + ")" * 5000,
        "SELEC 1",
        "",
    ],
)
def test_refused(catalog: Catalog, place: Path, sql: str) -> None:
    before = everything(place)
    with pytest.raises(QueryError) as refusal:
        catalog.query(sql.format(outside=place, lake=place / "lake", shard=SHARD))
    assert SECRET not in str(refusal.value)
    assert everything(place) == before
    assert catalog.query("SELECT count(*) AS n FROM clips").to_pylist() == [{"n": 12}]


def test_duckdb_itself_has_no_files(catalog: Catalog, place: Path) -> None:
    """Were a statement let through by mistake, it could do no harm."""
    before, lake = everything(place), place / "lake"
    for sql in (
        f"COPY (SELECT 1) TO '{lake}/clips/{SHARD}.parquet' (USE_TMP_FILE false)",
        f"SELECT * FROM read_text('{lake}/notes.csv')",
        f"SELECT * FROM read_parquet('{lake}/clips/{SHARD}.parquet')",
        f"ATTACH '{lake}/x.db'",
        "SET enable_external_access = true",
    ):
        with pytest.raises(Exception, match=r"(?i)disabled|locked|cannot"):
            catalog._database.cursor().execute(sql).fetchall()
    assert everything(place) == before


def test_python_variables_are_not_tables(catalog: Catalog) -> None:
    secret = TABLES["clips"].arrow_schema().empty_table()
    assert secret.num_rows == 0
    with pytest.raises(QueryError):
        catalog.query("SELECT * FROM secret")


def test_a_wrong_name_is_told_from_our_own_tables(catalog: Catalog) -> None:
    with pytest.raises(QueryError, match="did you mean hand_poses"):
        catalog.query("SELECT * FROM handposes")
    with pytest.raises(QueryError, match="clip_index"):
        catalog.query("SELECT clip_indx FROM clips")


def test_a_shard_that_is_added_is_seen_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    lake, count = Bench(tmp_path).lake, "SELECT count(*) AS n FROM clips"
    catalog = Catalog(lake)
    data = lake.storage.read(f"clips/{SHARD}.parquet")
    lake.storage.write("clips/20270101-0000.parquet", data)
    assert catalog.query(count).to_pylist() == [{"n": 24}]
    lake.storage.write("clips/20270101-0000.parquet", b"damaged")
    with pytest.raises(QueryError, match=r"clips cannot be read .*20270101-0000.*`ego verify`"):
        catalog.query(count)


def test_a_damaged_file_of_a_table_with_renamed_values_is_named(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.storage.write(f"hand_poses/{SHARD}.parquet", b"damaged")
    with Catalog(lake) as catalog:
        for sql in ("SELECT count(*) FROM hand_poses", "SELECT quality_tier FROM hand_poses"):
            with pytest.raises(QueryError, match=rf"^hand_poses cannot be read .*{SHARD}"):
                catalog.query(sql)
        with pytest.raises(QueryError, match="there is no table"):
            catalog.query("SELECT * FROM hand_poses, stored_hand_poses")


def test_files_of_older_releases_are_widened_and_filled(tmp_path: Path) -> None:
    lake = Bench(tmp_path).lake
    with lake.storage.open(f"clips/{SHARD}.parquet") as file:
        batch = pq.read_table(file)
    narrow = batch.drop_columns(["take_id"])
    place = narrow.schema.get_field_index("start_pts_s")
    narrow = narrow.set_column(place, "start_pts_s", narrow["start_pts_s"].cast(pa.float32()))
    sink = pa.BufferOutputStream()
    pq.write_table(narrow.append_column("gone", [["x"] * 12]), sink)
    lake.storage.write("clips/20250101-0000.parquet", memoryview(sink.getvalue()))
    catalog = Catalog(lake)
    (found,) = catalog.query(
        "SELECT count(*) n, count(take_id) takes, sum(start_pts_s) s FROM clips"
    ).to_pylist()
    assert found == {"n": 24, "takes": 12, "s": 24.0}
    with pytest.raises(QueryError, match="gone"):
        catalog.query("SELECT gone FROM clips")


def test_a_filter_on_a_text_finds_what_a_filter_in_python_finds(catalog: Catalog) -> None:
    """Texts are read as dictionaries: of equal, unequal, missing and compared ones."""
    clips = catalog._lake.read("clips", SHARD)["clip_id"].to_pylist()
    for condition, wanted in (
        (f"clip_id = '{clips[4]}'", [clips[4]]),
        (f"clip_id <> '{clips[4]}'", [c for c in clips if c != clips[4]]),
        (f"clip_id IN ('{clips[1]}', 'x', NULL)", [clips[1]]),
        (f"clip_id >= '{clips[7]}'", clips[7:]),
        ("clip_id LIKE '%1-0002'", [c for c in clips if c.endswith("1-0002")]),
        ("clip_id IS NULL", []),
        ("split_reason = 'start' AND clip_index BETWEEN 1 AND 1", clips[1::3]),
    ):
        found = catalog.query(f"SELECT clip_id FROM clips WHERE {condition} ORDER BY 1")
        assert found["clip_id"].to_pylist() == wanted, condition


# -- limits --------------------------------------------------------------------------------------


def test_an_answer_is_streamed_and_a_too_large_one_is_not_held(place: Path) -> None:
    with Catalog(Lake(place / "lake"), memory_limit="200MB") as catalog:
        large = "SELECT repeat('x', 10000) AS x FROM range(100000)"  # 1 GB
        with pytest.raises(QueryError, match=r"more than 0\.05 GB: select fewer"):
            catalog.query(large)
        held = pa.total_allocated_bytes()
        batches = iter(catalog.stream(large))
        assert [next(batches).num_rows for _ in range(3)] == [2048] * 3
        assert pa.total_allocated_bytes() - held < 200e6
        assert catalog.query("SELECT 1 AS x").to_pylist() == [{"x": 1}]
        with pytest.raises(QueryError, match="another statement was asked"):
            next(batches)


def test_too_much_memory_ends_with_a_sentence(place: Path) -> None:
    with Catalog(Lake(place / "lake"), memory_limit="100MB") as catalog:
        for sql in (
            "SELECT list(range) FROM range(100000000)",
            "SELECT hash(range) FROM range(100000000) ORDER BY 1",
            "SELECT repeat('x', 10000000) FROM range(300)",
        ):
            with pytest.raises(QueryError, match="needs more than the 100MB of memory"):
                catalog.query(sql)
    assert not Path(".tmp").exists(), "nothing is put on the disk instead"


@pytest.mark.parametrize("sql", ["SELECT count(*) FROM range(1000000000000000)", ENDLESS])
def test_what_runs_for_ever_is_ended(place: Path, sql: str) -> None:
    catalog = Catalog(Lake(place / "lake"), timeout_s=0.5)
    with pytest.raises(QueryError, match=r"computed for 0\.5 s and was ended"):
        catalog.query(sql)
    assert catalog.query("SELECT 1 AS x").to_pylist() == [{"x": 1}], "each has its own time"
    catalog.close()
    assert not catalog.is_busy


def test_what_is_ended_before_it_has_begun_does_not_go_on(place: Path) -> None:
    """DuckDB takes no notice of an interrupt then."""
    catalog = Catalog(Lake(place / "lake"), timeout_s=0)
    with pytest.raises(QueryError, match="was ended"):
        catalog.query(ENDLESS)
    catalog.close()
    assert not catalog.is_busy


def test_what_cannot_be_ended_stays_known_after_other_statements(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog_module, "_PATIENCE_S", 0.01)
    catalog = Catalog(Lake(place / "lake"), timeout_s=0.1)
    with pytest.raises(QueryError, match="was ended"):
        catalog.query("SELECT length(repeat('a', 300000000))")  # looks for no interrupt
    catalog._timeout_s = None
    for _ in range(2):
        assert catalog.query("SELECT 1 AS x").to_pylist() == [{"x": 1}]
    assert catalog.is_busy
    catalog.close()
    while catalog.is_busy:
        time.sleep(0.05)
    catalog.close()


# -- S3 ------------------------------------------------------------------------------------------


def test_on_s3_the_same_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server(monkeypatch) as endpoint:
        bucket = new_bucket()
        for name in ("lake [1]", "lake 1", "läke?x=%20&#+"):
            lake = Lake(f"s3://{bucket}/{name}")
            for item in ("a", "b"):
                publish(lake, item, 1.0, token=10)
            lake.compact("hand_poses", SHARD, ["a", "b"])
            assert lake.scan("hand_poses").collect().height == 10
            with Catalog(lake) as catalog:
                rows = catalog.query("SELECT count(*) AS n FROM hand_poses WHERE clip_id = 'a'")
                assert rows.to_pylist() == [{"n": 5}]
        before = [
            (o["Key"], o["ETag"]) for o in s3_client().list_objects_v2(Bucket=bucket)["Contents"]
        ]
        with Catalog(lake) as catalog:
            for sql in (
                f"EXPLAIN ANALYZE COPY (SELECT 1) TO '{lake.location}/x.parquet'",
                f"SELECT * FROM read_parquet('{lake.location}/hand_poses/{SHARD}.parquet')",
                f"SELECT * FROM read_text('{endpoint}/{bucket}/x')",
                f"FROM '{lake.location}/hand_poses/{SHARD}.parquet'",
            ):
                with pytest.raises(QueryError):
                    catalog.query(sql)
        after = s3_client().list_objects_v2(Bucket=bucket)["Contents"]
        assert [(o["Key"], o["ETag"]) for o in after] == before


# -- memory of a process -----------------------------------------------------------------------

_PEAK = """
import resource, sys
import ego_assets.catalog
from resources.lake import catalog as catalog_module
from resources.lake.catalog import open_catalog
with open_catalog(sys.argv[1]) as catalog:
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows = sum(b.num_rows for b in catalog.stream(sys.argv[2]))
print(rows, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held) // 1024)
"""


def test_an_answer_of_gigabytes_passes_through_little_memory(place: Path) -> None:
    sql = "SELECT repeat(clip_id, 200) AS x FROM clips, range(80000)"  # 4 GB
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, str(place / "lake"), sql],
        capture_output=True,
        text=True,
        timeout=500,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    rows, peak_mib = map(int, done.stdout.split())
    assert rows == 960_000
    assert peak_mib < 500
