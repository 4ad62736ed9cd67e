"""`ego run` submits shards as runs, side by side, on every device; what is done costs nothing."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from benchmarks.finished_lake import make_finished_lake
from benchmarks.simulated_graph import Segmenter, simulated_backends
from benchmarks.whole_graph import make_lake
from dagster_project import runs
from dagster_project.cli import main
from dagster_project.definitions import build_defs
from dagster_project.home import open_instance
from dagster_project.run_summary import Summary, add_known_checks, fill
from dagster_project.runs import run_shards
from dagster_project.unfinished import find_unfinished
from ego_assets.catalog import TABLES
from ego_assets.graph.backends import Backends
from ego_assets.operator import ClipInput
from ego_assets.quality.failed import note_failed
from resources.devices.gpu import find_gpus
from resources.devices.leases import LeaseBook, Request
from resources.lake import Lake
from resources.ledger import Ledger
from resources.raw.places import files_of

PATIENCE_S = 300.0
MEETING = "EGO_TEST_MEETING"


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EGO_LEASE_DIR", str(tmp_path / "leases"))
    monkeypatch.setenv("EGO_SIMULATED_SCALE", "0")


class MeetsOthers(Segmenter):
    """Ends when it has been on as many devices at once as are expected."""

    def work(self, clip: ClipInput) -> None:
        folder = Path(os.environ[MEETING])
        (folder / os.environ["CUDA_VISIBLE_DEVICES"]).touch()
        wanted = int((folder / "wanted").read_text())
        deadline = time.monotonic() + PATIENCE_S
        while len(list(folder.iterdir())) <= wanted:
            assert time.monotonic() < deadline, "the other devices are idle"
            time.sleep(0.05)


def test_the_ledger_is_migrated_before_dagster_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads that migrate at a time take Alembic's environment from each other."""

    def begin(root: str) -> None:
        with sqlite3.connect(tmp_path / "lake/_ledger/ledger.sqlite") as ledger:
            assert ledger.execute("SELECT version_num FROM alembic_version").fetchone()
        raise InterruptedError

    monkeypatch.setattr(runs, "open_instance", begin)
    with pytest.raises(InterruptedError):
        runs.run_shards(tmp_path / "lake", [])


@contextmanager
def holding_devices(
    folder: Path, monkeypatch: pytest.MonkeyPatch, devices: int
) -> Iterator[tuple[Lake, int]]:
    """A lake with a shard for each device, and the process of a command over them whose runs hold
    all devices at once, and would do so for ever."""
    meeting = folder / "meeting"
    meeting.mkdir()
    (meeting / "wanted").write_text("99")
    monkeypatch.setenv(MEETING, str(meeting))
    monkeypatch.setenv("EGO_FAKE_GPUS", str(devices))
    lake = make_lake(folder, shards=devices)
    pid = os.fork()
    if pid == 0:
        status = 1
        # A background job of a shell inherits an ignored SIGINT.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            backends = simulated_backends(segmenter=f"{__name__}:MeetsOthers")
            run_shards(lake.location, lake.shards(), overrides={"backends": backends})
        except KeyboardInterrupt:
            status = 130
        finally:
            os._exit(status)
    try:
        deadline = time.monotonic() + 2 * PATIENCE_S
        while not {str(n) for n in range(devices)} <= {p.name for p in meeting.iterdir()}:
            assert time.monotonic() < deadline, "devices are idle"
            time.sleep(0.05)
        assert len({key for claim in LeaseBook().holders() for key in claim.devices}) == devices
        yield lake, pid
    finally:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@pytest.mark.slow
def test_one_command_keeps_four_devices_busy_and_one_ctrl_c_cancels_its_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with holding_devices(tmp_path, monkeypatch, 4) as (lake, pid):
        os.kill(pid, signal.SIGINT)
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    assert LeaseBook().claims() == []
    with open_instance(lake.location) as instance:
        found = instance.get_runs()
        assert {run.status for run in found} == {dg.DagsterRunStatus.CANCELED}
        assert sorted(run.tags["dagster/partition"] for run in found) == lake.shards()
        for run in found:  # as those of a sensor: the UI finds their job, and can do them again
            assert run.remote_job_origin is not None
            assert run.remote_job_origin.location_name == "ego"


@pytest.mark.heavy
def test_a_run_without_a_device_goes_on_if_it_may_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EGO_FAKE_GPUS", "1")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    lease = LeaseBook().ask(Request(1, run_id="greedy", step_key="hoards"), find_gpus())
    assert lease.poll()
    lake = make_lake(tmp_path, shards=1)
    notes: list[str] = []
    backends = simulated_backends()
    try:
        summary = run_shards(
            lake.location,
            lake.shards(),
            degrade_after_s=0.1,
            overrides={"backends": backends},
            tell=lambda progress: notes.append(progress.note),
        )
    finally:
        lease.release()
    assert set(summary.waiting_for_gpu) >= {"detections", "hand_poses", "object_poses"}
    assert "held by hoards of run greedy" in summary.degraded


def test_a_shard_is_run_before_the_files_of_the_next_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = make_finished_lake(tmp_path, shards=3)
    looked: list[str] = []

    def hashes(lake: Lake, ledger: Ledger, shard: str) -> bool:
        looked.append(shard)
        return False

    monkeypatch.setattr("ego_assets.upkeep.unfinished.are_as_read", hashes)
    for shard in lake.shards():
        for file in files_of(lake, shard):
            os.utime(file.uri)  # only reading it tells that it is as it was
    with open_instance(lake.location) as instance:
        ledger = Ledger.of(lake.location)
        found = find_unfinished(lake, ledger, instance, lake.shards(), Backends(), {})
        for number, shard in enumerate(lake.shards(), start=1):
            assert next(found) == shard
            assert looked == lake.shards()[:number]


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def ego(*arguments: str, status: int = 0) -> Any:
    done = CliRunner().invoke(main, [*arguments, "--json"])
    assert done.exit_code == status, done.output
    return json.loads(done.stdout)


def events(lake: Lake) -> list[int]:
    """Storage ids of all that Dagster has recorded of the lake's assets."""
    with open_instance(lake.location) as instance:
        assets = instance.get_asset_keys()
        return [
            record.storage_id
            for key in assets
            for record in instance.fetch_materializations(key, limit=100).records
        ]


def test_what_is_finished_gets_no_run_and_stays_as_it_is(tmp_path: Path) -> None:
    lake = make_finished_lake(tmp_path, shards=2)
    note_failed(
        lake,
        "hand_poses",
        lake.shards()[0],
        [{"check": "hands_do_not_jitter", "severity": "error", "reason": "they do"}],
    )
    files = {p: p.stat().st_mtime_ns for p in lake.root.rglob("*.parquet")}
    before = events(lake)
    summary = ego("run", str(tmp_path / "raw"), "--lake", lake.location, status=1)
    assert summary["rows"]["clips"] == 4
    assert summary["clips"] == {"total": 4, "done": 4, "failed": 0, "quarantined": 0}
    assert summary["videos"] == {"total": 2, "accepted": 2, "rejected": 0}
    (check,) = summary["checks"]  # it failed when the shard was run, and still does
    assert (check["shard"], check["reason"]) == (lake.shards()[0], "they do")
    assert {p: p.stat().st_mtime_ns for p in lake.root.rglob("*.parquet")} == files
    assert events(lake) == before
    with open_instance(lake.location) as instance:
        assert instance.get_runs_count() == 0


def unfinished(lake: Lake, **settings: dict[str, Any]) -> list[str]:
    with open_instance(lake.location) as instance:
        ledger = Ledger.of(lake.location)
        return list(find_unfinished(lake, ledger, instance, lake.shards(), Backends(), settings))


def test_what_is_not_finished_is_found(tmp_path: Path) -> None:
    lake = make_finished_lake(tmp_path, shards=6)
    shards, ledger = lake.shards(), Ledger.of(lake.location)
    assert unfinished(lake) == []
    every = unfinished(lake, hand_poses={"smoothing_frames": 2.0})
    assert every == shards, "another setting makes other rows"
    assert unfinished(lake, hand_poses={"smoothing_frames": 1.5}) == [], "it is the default"
    ledger.requeue("hand_poses", [e.item_id for e in ledger.entries(shard=shards[0])], "again")
    changed = sorted((tmp_path / "raw").iterdir())[1]
    changed.write_bytes(b"another video")
    (lake.root / f"object_poses/{shards[2]}.parquet").unlink()
    sorted((tmp_path / "raw").iterdir())[3].unlink()
    with open_instance(lake.location) as instance:
        job = build_defs().resolve_job_def("whole_graph")
        tags = {"dagster/partition": shards[4]}
        run = instance.create_run_for_job(job, tags=tags)
        instance.report_run_canceled(run)  # in a check, say: the ledger does not know
    assert unfinished(lake) == shards[:5]


def test_a_finished_shard_is_judged_and_counted_with_few_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A file that is younger than two seconds is read, whoever is fast enough to ask for it then.
    monkeypatch.setattr("resources.raw.presence.RACY_NS", 0)
    lake = make_finished_lake(tmp_path, shards=2)
    opened, read = [], []

    class Counted(pq.ParquetFile):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            opened.append(args)
            super().__init__(*args, **kwargs)

        def read(self, *args: Any, **kwargs: Any) -> pa.Table:
            read.append(args)
            return super().read(*args, **kwargs)

    monkeypatch.setattr(pq, "ParquetFile", Counted)
    assert unfinished(lake) == []
    judged = len(opened), len(read)
    summary = Summary(lake.location, lake.shards())
    fill(summary, lake, Ledger.of(lake.location), known_uris(lake))
    assert summary.rows["clips"] == 4
    assert judged[0] <= 2 * 4, "manifest and clips, their rows and where these come from"
    assert judged[1] <= 2 * 2, "the rows of manifest and clips"
    assert len(opened) - judged[0] <= 2 * len(TABLES), "each table once"
    assert len(read) - judged[1] <= 2 * 1, "rows are counted by footers"


def known_uris(lake: Lake) -> set[str]:
    return {f.uri for shard in lake.shards() for f in files_of(lake, shard)}


def test_only_checks_of_shards_that_were_not_run_are_known_ones(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    for shard in "ab":
        lake.write_shard(shard, {"files": []})
    failed = [{"check": "c", "severity": "warn", "reason": "r"}]
    note_failed(lake, "clips", "a", failed)
    note_failed(lake, "clips", "b", failed)
    summary = Summary(lake.location, ["a", "b"])
    add_known_checks(summary, lake, ["b"])
    assert [check["shard"] for check in summary.checks] == ["b"]


@pytest.mark.slow
def test_runs_of_a_killed_command_are_known_to_be_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sensors import lost_runs

    monkeypatch.setattr(lost_runs, "GRACE_S", 0.0)
    with holding_devices(tmp_path, monkeypatch, 1) as (lake, pid):
        below = psutil.Process(pid).children(recursive=True)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        deadline = time.monotonic() + PATIENCE_S
        while any(map(is_alive, below)):
            assert time.monotonic() < deadline, below
            time.sleep(0.05)
    with open_instance(lake.location) as instance:
        (run,) = instance.get_runs()
        assert lost_runs.end_lost_runs(instance, Ledger.of(lake.location)) == [run.run_id]
