"""Dagster's SQLite files have one engine each, which compiles a statement once."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa
from alembic.script import Script, ScriptDirectory
from sqlalchemy.sql.compiler import SQLCompiler

from dagster_project.executors.storages import sqlite_engines
from dagster_project.executors.storages.sqlite_engines import keep_engines, kept_engine
from dagster_project.home import open_instance


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    with open_instance(tmp_path / "lake") as found:
        yield found


def add_event(instance: dg.DagsterInstance, run_id: str) -> None:
    instance.report_engine_event("an event", run_id=run_id, job_name="job")


def test_a_statement_is_compiled_for_the_first_event_alone(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[str] = []
    real = SQLCompiler.visit_insert

    def visit(self: SQLCompiler, statement: sa.Insert, **more: object) -> str:
        compiled.append(statement.table.name)
        return real(self, statement, **more)

    monkeypatch.setattr(SQLCompiler, "visit_insert", visit)
    run = instance.add_run(dg.DagsterRun("job"))
    add_event(instance, run.run_id)
    assert compiled.count("event_logs") == 1
    for _ in range(5):
        add_event(instance, run.run_id)
    assert compiled.count("event_logs") == 1
    assert len(instance.all_logs(run.run_id)) == 6


def test_a_file_that_is_made_again_under_a_name_is_the_new_one(tmp_path: Path) -> None:
    keep_engines()
    path, options = tmp_path / "a.db", {"poolclass": sa.pool.NullPool}
    for number in (1, 2):
        with sqlite3.connect(path) as file:
            file.execute("CREATE TABLE t (n INTEGER)")
            file.execute("INSERT INTO t VALUES (?)", [number])
        engine = kept_engine(f"sqlite:///{path}", **options)
        with engine.connect() as connection:
            assert connection.execute(sa.text("SELECT n FROM t")).scalar() == number
        engine.dispose()  # as Dagster does
        path.unlink()
    assert kept_engine(f"sqlite:///{path}", **options) is engine
    assert kept_engine(f"sqlite:///{path}", connect_args={"timeout": 5}, **options) is not engine


def test_migrations_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sqlite_engines, "_scripts", {})
    read: list[str] = []
    real = ScriptDirectory._load_revisions

    def load(self: ScriptDirectory) -> Iterator[Script]:
        read.append(self.dir)
        return real(self)

    monkeypatch.setattr(ScriptDirectory, "_load_revisions", load)
    for _ in range(2):
        with open_instance(tmp_path / "lake") as instance:
            run = instance.add_run(dg.DagsterRun("job"))
            add_event(instance, run.run_id)
    assert len(read) == 1


def test_dagster_makes_its_engines_by_the_name_that_is_replaced() -> None:
    keep_engines()
    for storage in sqlite_engines.STORAGES:
        assert storage.create_engine is kept_engine
        assert "create_engine(" in Path(storage.__file__).read_text()
