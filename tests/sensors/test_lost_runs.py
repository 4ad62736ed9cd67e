"""A run whose machine was switched off is ended and told of, and its shard is retried. One that
works is left alone, in whatever container it is, whatever happens to the clock."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
import sqlalchemy as sa

from resources.ledger import Ledger
from resources.ledger.tables import work
from resources.processes import RUN_TAG, process_name, run_locks, run_tag
from resources.processes.run_locks import RunLocks
from resources.processes.silence import AwakeClock
from sensors import lost_runs
from sensors.alerts import Span, signals
from sensors.lost_runs import (
    LOOK_S,
    SILENCE_S,
    START_LIMIT_S,
    count_lost_runs,
    end_lost_runs,
)
from tests.resources.namespaces import needs_namespaces
from tests.sensors.servers import http_inbox
from tests.sensors.test_alerts import Desk
from tests.sensors.test_schedules import Night
from tests.support.instances import dagster_instance

ROOT = Path(__file__).resolve().parents[2]
STATUS = dg.DagsterRunStatus


@pytest.fixture(scope="module")
def dead() -> str:
    """Name of a process that is gone."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    began = int(psutil.Process(child.pid).create_time() * 1000)
    child.kill()
    child.communicate()
    return f"{process_name().split(':')[0]}:{child.pid}:{began}"


@dg.job
def toy() -> None:
    @dg.op
    def idle() -> None: ...

    idle()


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dagster_instance(tmp_path) as made:
        yield made


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.beside(tmp_path / "lake")


def begin(
    instance: dg.DagsterInstance, tag: str = "", status: STATUS = STATUS.STARTED, **more: Any
) -> str:
    """tag: RUN stands for the run's own id."""
    run = instance.create_run_for_job(more.pop("job", toy), status=status, **more)
    if tag:
        instance.add_run_tags(run.run_id, {RUN_TAG: tag.replace("RUN", run.run_id)})
    return run.run_id


def status(instance: dg.DagsterInstance, run_id: str) -> STATUS:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


def test_a_run_whose_process_is_gone_is_told_and_its_shard_retried(
    instance: dg.DagsterInstance, tmp_path: Path, dead: str
) -> None:
    night = Night(tmp_path, instance)
    shard = night.shards[0]
    instance.add_dynamic_partitions("shards", [shard])
    night.fail(shard, "u1")
    tags = {"dagster/partition": shard}
    run_id = begin(instance, f"RUN {dead}", tags=tags)
    assert night.retried() == [shard]
    assert status(instance, run_id) is STATUS.FAILURE
    ((signal,), _) = signals(instance, Span(0.0, 0.0))
    assert (signal.subject, signal.member, signal.ok) == ("job toy", shard, False)
    assert "the process of the run is gone" in signal.detail


def test_a_run_that_was_being_cancelled_is_cancelled(
    instance: dg.DagsterInstance, ledger: Ledger, dead: str
) -> None:
    run_id = begin(instance, f"RUN {dead}", STATUS.CANCELING)
    assert end_lost_runs(instance, ledger) == [run_id]
    assert status(instance, run_id) is STATUS.CANCELED


def test_runs_that_may_live_are_left_alone(
    instance: dg.DagsterInstance, ledger: Ledger, dead: str
) -> None:
    living = begin(instance)
    instance.add_run_tags(living, {RUN_TAG: run_tag(living)})
    begin(instance)
    begin(instance, f"RUN elsewhere:{dead.partition(':')[2]}")
    begin(instance, f"another-run {dead}")  # inherited from the run before
    assert end_lost_runs(instance, ledger) == []


def test_a_run_that_never_begins_is_ended(
    instance: dg.DagsterInstance, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = begin(instance, status=STATUS.STARTING)
    assert end_lost_runs(instance, ledger) == []
    monkeypatch.setattr(lost_runs, "START_LIMIT_S", -1.0)
    assert end_lost_runs(instance, ledger) == [run_id]
    assert status(instance, run_id) is STATUS.FAILURE


def test_a_run_that_begins_is_not_ended_because_we_were_stopped(
    instance: dg.DagsterInstance, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container that was frozen, or a machine that was paused: the run slept with us."""
    run_id = begin(instance, status=STATUS.STARTING)
    assert end_lost_runs(instance, ledger) == []
    let_pass(monkeypatch, START_LIMIT_S + 60)
    assert (end_lost_runs(instance, ledger), count_lost_runs(instance)) == ([], 0)
    for _ in range(13):  # and some seconds of the test itself
        let_pass(monkeypatch, LOOK_S)
        assert lost_runs._never_began(instance) == []
    for _ in range(2):
        let_pass(monkeypatch, LOOK_S)
        lost_runs._never_began(instance)
    assert end_lost_runs(instance, ledger) == [run_id]


def test_a_run_that_begins_is_not_ended_because_the_clock_was_put_forward(
    instance: dg.DagsterInstance, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(instance, status=STATUS.STARTING)
    step_clock(monkeypatch, 7200.0)
    assert end_lost_runs(instance, ledger) == []
    assert end_lost_runs(instance, ledger) == []


def test_a_run_that_ends_by_itself_while_we_look_is_not_failed(
    instance: dg.DagsterInstance, ledger: Ledger, dead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = begin(instance, f"RUN {dead}")
    real = ledger.beats_of_runs

    def ends() -> Any:
        run = instance.get_run_by_id(run_id)
        assert run is not None
        event = dg.DagsterEvent("PIPELINE_SUCCESS", run.job_name)
        instance.report_dagster_event(event, run_id)
        return real()

    monkeypatch.setattr(ledger, "beats_of_runs", ends)
    assert end_lost_runs(instance, ledger) == []
    assert status(instance, run_id) is STATUS.SUCCESS


def test_the_alert_sensor_ends_lost_runs(
    instance: dg.DagsterInstance, tmp_path: Path, dead: str
) -> None:
    with http_inbox() as inbox:
        desk = Desk(instance, tmp_path, inbox)
        begin(instance, f"RUN {dead}")
        desk.tick()
        assert desk.told() == [("raised", "job toy")]


BEFORE_THE_RESTART = f"RUN {os.uname().nodename}@{'0' * 16}-1-1:7:7"
"""Tag of a run on this machine, on another boot."""


@pytest.fixture
def restarted(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A run whose machine was restarted."""
    run_id = begin(instance, BEFORE_THE_RESTART)
    says = (
        "import sys; from resources.processes.run_locks import RunLocks\n"
        "RunLocks(sys.argv[1]).take(sys.argv[2]); print(flush=True); input()"
    )
    command = [sys.executable, "-c", says, instance.root_directory, run_id]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert count_lost_runs(instance) == 0
        process.kill()
    monkeypatch.setattr(run_locks, "boot_id", lambda: "1" * 32)
    yield run_id


def test_a_run_that_was_killed_before_it_began_is_ended(
    instance: dg.DagsterInstance, ledger: Ledger, restarted: str
) -> None:
    """Else the nightly retry takes its shard for busy."""
    run_id = begin(instance, status=STATUS.NOT_STARTED)
    waits = begin(instance, status=STATUS.NOT_STARTED)
    folder = Path(instance.root_directory) / run_locks.FOLDER
    (folder / f"{restarted}.lock").rename(folder / f"{run_id}.lock")
    assert end_lost_runs(instance, ledger) == [run_id]
    assert status(instance, run_id) is STATUS.FAILURE
    assert status(instance, waits) is STATUS.NOT_STARTED


def test_a_run_whose_machine_was_restarted_between_two_units_is_ended(
    instance: dg.DagsterInstance, ledger: Ledger, restarted: str
) -> None:
    assert count_lost_runs(instance) == 1
    assert end_lost_runs(instance, ledger) == [restarted]
    assert status(instance, restarted) is STATUS.FAILURE
    assert end_lost_runs(instance, ledger) == []
    assert RunLocks(instance.root_directory).run_ids() == []


def test_a_run_whose_machine_was_restarted_at_a_unit_is_ended_once_its_heartbeat_is_old(
    instance: dg.DagsterInstance, ledger: Ledger, restarted: str
) -> None:
    claim(ledger, restarted, "u1")
    assert end_lost_runs(instance, ledger) == []
    let_age(ledger, {"u1": 60.0})
    assert end_lost_runs(instance, ledger) == [restarted]


def test_a_run_with_a_lock_is_alive_however_long_it_is_silent(
    instance: dg.DagsterInstance, ledger: Ledger, quick: None
) -> None:
    """Its process may be in another container, and stopped."""
    run_id = begin(instance, "RUN elsewhere:1:1")
    claim(ledger, run_id, "u1")
    let_age(ledger, {"u1": SILENCE_S + 60})
    with RunLocks(instance.root_directory).held(run_id):
        assert end_lost_runs(instance, ledger) == []
    assert end_lost_runs(instance, ledger) == [run_id]


def test_a_run_that_was_killed_as_it_began_is_ended(
    instance: dg.DagsterInstance, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could not say yet which process it is."""
    killed, other, ours = begin(instance), begin(instance), begin(instance, "RUN elsewhere:1:1")
    for run_id in (killed, other, ours):
        begun = dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, "toy")
        instance.report_dagster_event(begun, run_id)
    found = instance.get_run_by_id(other)
    assert found is not None
    instance.report_engine_event("an executor of Dagster's own goes on", found)
    assert (end_lost_runs(instance, ledger), count_lost_runs(instance)) == ([], 0)
    monkeypatch.setattr(lost_runs, "START_LIMIT_S", -1.0)
    assert count_lost_runs(instance) == 1
    assert end_lost_runs(instance, ledger) == [killed]


def let_age(ledger: Ledger, ages_s: dict[str, float]) -> None:
    """Items whose last heartbeat is so old."""
    with sa.create_engine(ledger.url).begin() as connection:
        for item, age_s in ages_s.items():
            beat = work.update().where(work.c.item_id == item)
            connection.execute(beat.values(heartbeat_at=time.time() - age_s))


def claim(ledger: Ledger, run_id: str, *items: str) -> None:
    ledger.expect("clips", "s", [(u, "v") for u in items])
    for item in items:
        ledger.start("clips", item, fingerprint="f", worker="elsewhere:2:2", run_id=run_id)


def step_clock(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Of this process, put forward from now on."""
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + seconds)


def let_pass(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """On the monotonic clock by which runs that have not begun are watched."""
    awake = lost_runs._starting._clock
    assert isinstance(awake, AwakeClock)
    real = awake._clock
    monkeypatch.setattr(awake, "_clock", lambda: real() + seconds)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lost_runs, "WATCH_S", 0.0)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("age_s", "is_lost"), [(SILENCE_S - 60, False), (SILENCE_S + 60, True)])
def test_a_run_of_another_machine_is_lost_when_its_heartbeats_stop(
    instance: dg.DagsterInstance, ledger: Ledger, age_s: float, is_lost: bool
) -> None:
    run_id = begin(instance, "RUN elsewhere:1:1")
    claim(ledger, run_id, "u1", "u2")
    let_age(ledger, {"u1": age_s, "u2": SILENCE_S + 999})
    assert end_lost_runs(instance, ledger) == [run_id] * is_lost


@pytest.mark.usefixtures("quick")
def test_what_a_killed_step_left_is_no_silence_of_its_run(
    instance: dg.DagsterInstance, ledger: Ledger
) -> None:
    here = begin(instance)
    instance.add_run_tags(here, {RUN_TAG: run_tag(here)})
    claim(ledger, here, "u1")
    elsewhere = begin(instance, "RUN elsewhere:1:1")
    claim(ledger, elsewhere, "u2")
    let_age(ledger, {"u1": SILENCE_S + 60, "u2": SILENCE_S + 60})
    run = instance.get_run_by_id(elsewhere)
    assert run is not None
    instance.report_engine_event("another step goes on", run)
    assert end_lost_runs(instance, ledger) == []


def test_a_run_in_a_container_is_not_lost_because_the_clock_was_put_forward(
    instance: dg.DagsterInstance, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its heartbeats go on while we listen."""
    run_id = begin(instance, "RUN elsewhere:1:1")
    claim(ledger, run_id, "u1")
    (entry,) = ledger.entries()
    step_clock(monkeypatch, 7200.0)

    def listen(seconds: float) -> None:
        assert ledger.beat("clips", "u1", entry.token)

    monkeypatch.setattr(lost_runs.time, "sleep", listen)
    assert end_lost_runs(instance, ledger) == []
    monkeypatch.setattr(lost_runs.time, "sleep", lambda seconds: None)
    step_clock(monkeypatch, 7200.0)
    assert end_lost_runs(instance, ledger) == [run_id]


def test_a_run_whose_clips_have_heartbeats_is_alive_whatever_its_name_says(
    instance: dg.DagsterInstance, ledger: Ledger, dead: str
) -> None:
    """This machine may be a copy of another."""
    run_id = begin(instance, f"RUN {dead}")
    claim(ledger, run_id, "u1")
    assert end_lost_runs(instance, ledger) == []
    let_age(ledger, {"u1": 60.0})
    assert end_lost_runs(instance, ledger) == [run_id]


@needs_namespaces
def test_a_run_in_a_pid_namespace_of_its_own_is_left_alone(
    instance: dg.DagsterInstance, ledger: Ledger
) -> None:
    """It has the same host name, and a number that nobody has out here, or somebody else."""
    says = "import resources.processes as p; print(p.process_name(), flush=True); input()"
    apart = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    with subprocess.Popen(
        [*apart, sys.executable, "-c", says],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as other:
        assert other.stdout is not None
        name = other.stdout.readline().strip()
        begin(instance, f"RUN {name}")
        assert end_lost_runs(instance, ledger) == []
        other.kill()
