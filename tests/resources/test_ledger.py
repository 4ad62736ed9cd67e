"""The ledger counts attempts before they start and refuses late ones."""

from __future__ import annotations

import multiprocessing

import pytest

from resources.ledger import LateAttemptError, Ledger, State


@pytest.fixture
def ledger(tmp_path) -> Ledger:
    ledger = Ledger.beside(tmp_path)
    ledger.expect("clips", "20260101-0000", [("u1", "v1"), ("u2", "v1")])
    return ledger


def start(ledger: Ledger, worker: str = "w", fingerprint: str = "f") -> int:
    return ledger.start("clips", "u1", fingerprint=fingerprint, worker=worker, run_id="r")


def state(ledger: Ledger) -> State:
    return ledger.entries(unit_id="u1")[0].state


def test_an_attempt_is_on_disk_before_it_starts(ledger):
    assert start(ledger) == 1
    other = Ledger(ledger.url).entries(unit_id="u1")[0]
    assert (other.state, other.attempts, other.worker) == (State.RUNNING, 1, "w")


def test_attempts_count_per_fingerprint(ledger):
    assert [start(ledger), start(ledger), start(ledger, fingerprint="g")] == [1, 2, 1]


def test_a_late_attempt_cannot_finish(ledger):
    first = start(ledger, "slow")
    start(ledger, "fast")
    with pytest.raises(LateAttemptError):
        ledger.finish("clips", "u1", first, worker="slow")
    assert state(ledger) is State.RUNNING


def test_done_is_done_once(ledger):
    attempt = start(ledger)
    ledger.finish("clips", "u1", attempt, worker="w")
    with pytest.raises(LateAttemptError):
        ledger.fail("clips", "u1", attempt, worker="w", error_class="E", error="e", quarantine=True)
    assert state(ledger) is State.DONE


def test_quarantine_and_release(ledger):
    attempt = start(ledger)
    ledger.fail("clips", "u1", attempt, worker="w", error_class="E", error="why", quarantine=True)
    assert ledger.entries(unit_id="u1")[0].error == "why"
    assert ledger.release(unit_id="u1") == 1
    assert state(ledger) is State.PENDING
    assert start(ledger) == 1


def test_expect_keeps_what_is_known(ledger):
    ledger.finish("clips", "u1", start(ledger), worker="w")
    ledger.expect("clips", "20260101-0000", [("u1", "v1"), ("u3", "v1")])
    assert state(ledger) is State.DONE
    assert ledger.counts() == {"clips": {State.DONE: 1, State.PENDING: 2}}


def test_the_first_to_ask_owns_a_content(ledger):
    assert ledger.claim_video("v", "/a.mp4", "s1") == ("/a.mp4", "s1")
    assert ledger.claim_video("v", "/b.mp4", "s2") == ("/a.mp4", "s1")


def _hammer(url: str, name: str, count: int) -> None:
    ledger = Ledger(url)
    for number in range(count):
        unit = f"{name}-{number}"
        ledger.expect("clips", "s", [(unit, None)])
        attempt = ledger.start("clips", unit, fingerprint="f", worker=name, run_id="r")
        ledger.finish("clips", unit, attempt, worker=name)


def test_many_processes_write_at_once(ledger):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_hammer, args=(ledger.url, f"w{n}", 15)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    assert ledger.counts()["clips"][State.DONE] == 60
