"""SQL over the lake answers, and lets nobody write, load, attach or look outside."""

from __future__ import annotations

from pathlib import Path

import pytest

from ego_assets.schemas import TABLES
from resources.lake.catalog import Catalog, QueryError, open_catalog
from tests.stages.test_audit import Bench

SECRET = "planted-secret-4711"  # pragma: allowlist secret


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    (tmp_path / "outside.csv").write_text(f"a\n{SECRET}\n")
    (tmp_path / "outside.parquet").write_bytes(b"PAR1")
    return Catalog(Bench(tmp_path).lake)


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
        "COPY clips TO '{outside}/copy.csv'",
        "COPY clips TO '{lake}/clips/copy.parquet'",
        "EXPORT DATABASE '{lake}/x'",
        "ATTACH '{lake}/x.db'",
        "ATTACH '{outside}/x.db'",
        "CREATE TABLE t AS SELECT 1",
        "CREATE SECRET s (TYPE s3)",
        "DELETE FROM clips",
        "DROP VIEW clips",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "RESET lock_configuration",
        "PRAGMA enable_profiling",
        "CALL pragma_version()",
        "SELECT 1; SELECT 2",
        "SELECT 1; DROP VIEW clips",
        "SELECT * FROM nothing_like_it",
        "SELEC 1",
        "",
    ],
)
def test_refused(catalog: Catalog, tmp_path: Path, sql: str) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(QueryError) as refusal:
        catalog.query(sql.format(outside=tmp_path, lake=tmp_path / "lake"))
    assert SECRET not in str(refusal.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_python_variables_are_not_tables(catalog: Catalog) -> None:
    secret = TABLES["clips"].arrow_schema().empty_table()
    assert secret.num_rows == 0
    with pytest.raises(QueryError):
        catalog.query("SELECT * FROM secret")
