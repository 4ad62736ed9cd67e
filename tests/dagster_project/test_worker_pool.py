"""Workers as processes: what is so however and whenever one of them dies. No Dagster here."""

from __future__ import annotations

import multiprocessing as mp
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from dagster_project.executors import worker_pool
from dagster_project.executors.worker import Finished, Task, Told
from dagster_project.executors.worker_pool import Died, Worker, WorkerPool
from resources.devices.gpu import find_gpus
from resources.devices.leases import Lease, LeaseBook, Request
from resources.lake import Lake
from resources.ledger import Ledger
from resources.processes.fork_server import ForkServerError
from tests.engine.stage_bench import spec_for

LIMIT_S = 300
KILLED = Died("was killed by SIGKILL, most often by the kernel because memory ran out")


@contextmanager
def pool_of(*modules: str, path: str = "") -> Iterator[WorkerPool]:
    """A pool whose server is ready."""
    options: dict[str, Any] = {"size": 9, "steps_per_worker": 99, "growth_mb": 10**6}
    options["path"] = [path]
    with WorkerPool("worker_steps:step", ["worker_steps", *modules], **options) as pool:
        until(pool, lambda _: pool.ready)
        yield pool


def until(pool: WorkerPool, what: Callable[[Any], bool]) -> Any:
    """The first message that is so; None if the pool itself is before it says anything."""
    deadline = time.monotonic() + LIMIT_S
    while not what(None):
        assert time.monotonic() < deadline, "did not come about"
        said = pool.wait(0.1)
        for number, (_, message) in enumerate(said):
            if what(message):
                pool.pending.extend(said[number + 1 :])
                return message
    return None


def hear(pool: WorkerPool, kind: Any) -> Any:
    return until(pool, lambda message: isinstance(message, kind))


def give(pool: WorkerPool, name: str, argument: Any = None, lease: Lease | None = None) -> Worker:
    worker = pool.take("")
    worker.lease = lease
    worker.give(Task((name, argument), lease.path if lease else None))
    return worker


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def book(tmp_path: Path) -> LeaseBook:
    return LeaseBook(tmp_path / "leases")


@pytest.fixture
def lease(book: LeaseBook) -> Lease:
    lease = book.ask(Request(1), find_gpus(1))
    assert lease.poll()
    return lease


def test_the_worker_has_the_lease_when_the_run_is_gone(book: LeaseBook, lease: Lease) -> None:
    with pool_of() as pool:
        worker = give(pool, "works", 600.0, lease)
        hear(pool, Told)
        worker.release()  # as the run's death would
        assert len(book.holders()) == 1
        os.kill(worker.pid, signal.SIGKILL)
        hear(pool, Died)
        assert book.claims() == []


def test_a_stage_has_the_lease_until_it_is_dead_itself(
    book: LeaseBook, lease: Lease, tmp_path: Path
) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger")
    spec = spec_for("object_movements", Lake(tmp_path), ledger, "s", tables=("t",))
    with pool_of() as pool:
        worker = give(pool, "runs_a_stage", spec, lease)
        stage = psutil.Process(hear(pool, Told).what)
        # Run and worker are dead, and nobody below has come to notice it yet.
        frozen = [pool.server.process.pid, stage.ppid(), stage.pid]
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        worker.release()
        os.kill(worker.pid, signal.SIGKILL)
        assert worker.is_gone(LIMIT_S)
        assert [c.devices for c in book.claims()] == [["simulated-0"]], "a second owner"
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
        hear(pool, Died)
        assert not is_running(stage.pid)
    assert book.claims() == []


@pytest.mark.parametrize("first_heard", ["its words", "its end"])
def test_a_worker_killed_in_the_middle_of_a_message_has_died(first_heard: str) -> None:
    with pool_of() as pool:
        worker = give(pool, "dies_talking")
        assert worker.is_gone(LIMIT_S)
        if first_heard == "its end":
            pool._receive(worker, worker.ended)
        assert hear(pool, Died) == KILLED


SECOND_FORK_FAILS = """
import os
forks = [os.fork]
def fork():
    if not forks:
        raise BlockingIOError(11, "Resource temporarily unavailable")
    return forks.pop()()
os.fork = fork
"""


@pytest.mark.parametrize("limit", ["processes", "files"])
def test_a_worker_that_cannot_be_started_costs_no_other_one(tmp_path: Path, limit: str) -> None:
    (tmp_path / "second_fork_fails.py").write_text(SECOND_FORK_FAILS)
    modules = ["second_fork_fails"] if limit == "processes" else []
    with pool_of(*modules, path=str(tmp_path)) as pool:
        worker = give(pool, "works", 0.2)
        pool.server_deaths = 2
        if limit == "files":
            resource.prlimit(pool.server.process.pid, resource.RLIMIT_NOFILE, (3, 3))
        with pytest.raises(ForkServerError, match="this machine lets no further worker start"):
            pool.take("")
        finished = hear(pool, Died | Finished)
        assert isinstance(finished, Finished)
        assert pool.put_back(worker, finished) == ""
        assert pool.server_deaths == 0, "only deaths in a row are too many"


AWAITS_INTERRUPT = """
import os, signal, time
def wait():
    while signal.SIGINT not in signal.sigpending():
        time.sleep(0.01)
os.register_at_fork(after_in_child=wait)
"""


def test_an_interrupt_that_comes_before_the_worker_is_ready_is_not_lost(tmp_path: Path) -> None:
    (tmp_path / "awaits_interrupt.py").write_text(AWAITS_INTERRUPT)
    with pool_of("awaits_interrupt", path=str(tmp_path)) as pool:
        give(pool, "was_interrupted").interrupt()
        assert hear(pool, Told) == Told(True)


def test_fresh_workers_draw_different_numbers() -> None:
    with pool_of("numpy.random") as pool:
        drawn = []
        for _ in range(2):
            give(pool, "draws")
            drawn.append(hear(pool, Told).what)
        assert len(pool.workers) == len(set(drawn)) == 2


def test_a_worker_is_dead_when_all_is_that_it_has_started() -> None:
    with pool_of() as pool:
        worker = give(pool, "has_a_grandchild")
        grandchild = hear(pool, Told).what
        os.kill(worker.pid, signal.SIGKILL)
        hear(pool, Died)
        assert not is_running(grandchild)


def end_step(pool: WorkerPool, worker: Worker) -> None:
    """And have the worker back, for the next one."""
    assert pool.put_back(worker, hear(pool, Finished)) == ""


def test_a_worker_that_died_while_idle_gets_no_step() -> None:
    with pool_of() as pool:
        worker = give(pool, "draws")
        end_step(pool, worker)
        os.kill(worker.pid, signal.SIGKILL)
        assert worker.is_gone(LIMIT_S)
        assert give(pool, "draws") is not worker
        hear(pool, Finished)


def test_a_worker_that_keeps_a_model_makes_no_room_for_another(lease: Lease) -> None:
    with pool_of() as pool:
        pool.size = 1
        keeps = give(pool, "draws", lease=lease)
        pool.put_back(keeps, Finished("", keeps_devices=True, rss_bytes=1))
        other = give(pool, "draws")
        end_step(pool, other)
        pool.take("another device")
        assert pool.resting() == [keeps]
        assert other.leaving


AT_IMPORT = """
import atexit
print("printed at import")
atexit.register(print, "the server ends")
"""


def test_what_is_to_happen_once_happens_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    (tmp_path / "at_import.py").write_text(AT_IMPORT)
    touched = tmp_path / "touched"
    with pool_of("at_import", path=str(tmp_path)) as pool:
        give(pool, "works", 0.0)
        give(pool, "touches_at_its_end", str(touched))
        for _ in range(2):
            hear(pool, Finished)
        for worker in pool.workers.values():
            worker.busy = False
        assert len(pool.workers) == 2
        assert not touched.exists()
    assert touched.exists(), "what a step has registered with atexit"
    assert capfd.readouterr().out.splitlines() == ["printed at import", "the server ends"]


def test_a_worker_that_does_not_leave_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "LEAVING_S", 0.2)
    with pool_of() as pool:
        worker = give(pool, "never_leaves")
        end_step(pool, worker)
        pool.retire(worker)
        assert hear(pool, Died) == KILLED


def test_nothing_is_left_in_the_temporary_folder() -> None:
    with pool_of() as pool:
        killed = give(pool, "has_a_temporary_folder")
        folders = {hear(pool, Told).what}
        os.kill(killed.pid, signal.SIGKILL)
        ended = give(pool, "has_a_temporary_folder")
        folders.add(hear(pool, Told).what)
        end_step(pool, ended)
    assert not any(Path(folder).exists() for folder in folders)


NEVER_LOADS = """
import os, pathlib, time
pathlib.Path({!r}).write_text(str(os.getpid()))
time.sleep(600)
"""


def test_a_server_that_still_imports_dies_with_the_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "never_loads.py").write_text(NEVER_LOADS.format(str(mark)))

    def run() -> None:
        with pool_of("never_loads", path=str(tmp_path)):
            pass

    process = mp.get_context("fork").Process(target=run)
    process.start()
    wait_until(lambda: mark.exists() and mark.read_text())
    server = int(mark.read_text())
    assert process.pid
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    try:
        wait_until(lambda: not is_running(server))
    finally:
        if is_running(server):
            os.kill(server, signal.SIGKILL)


def wait_until(what: Callable[[], Any]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not what():
        assert time.monotonic() < deadline, "did not come about"
        time.sleep(0.02)
