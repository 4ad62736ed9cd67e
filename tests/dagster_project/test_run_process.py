"""The process of a run keeps the files of its events open."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage

from dagster_project.executors.run_process import event_files_open


@dg.job
def nothing() -> None:
    """A job without a step."""


def test_an_event_does_not_write_the_log_back(tmp_path: Path) -> None:
    """Whoever closes the last connection to a file of SQLite deletes its write-ahead log."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        run = instance.create_run_for_job(nothing)
        storage = instance.event_log_storage
        assert isinstance(storage, SqliteEventLogStorage)
        log = Path(f"{storage.path_for_shard(run.run_id)}-wal")
        instance.report_engine_event("before", run)
        assert not log.exists()
        with event_files_open(instance, run.run_id):
            instance.report_engine_event("within", run)
            assert log.exists()
        assert not log.exists()
        told = [
            record.event_log_entry.message
            for record in instance.get_records_for_run(run.run_id).records
        ]
        assert [word for word in ("before", "within") if any(word in t for t in told)] == [
            "before",
            "within",
        ]


def test_a_run_whose_files_are_not_there_goes_on(tmp_path: Path) -> None:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        with event_files_open(instance, "no-such-run"):
            pass
        storage = instance.event_log_storage
        assert isinstance(storage, SqliteEventLogStorage)
        assert not Path(storage.path_for_shard("no-such-run")).exists()
    with dg.DagsterInstance.ephemeral() as instance, event_files_open(instance, "x"):
        pass
