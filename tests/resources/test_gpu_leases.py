"""Leases of GPUs: packing and fairness as a model, then real processes that are killed."""

from __future__ import annotations

import fcntl
import json
import multiprocessing as mp
import os
import random
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resources.devices import leases as gpu_leases
from resources.devices.gpu import Gpu, find_gpus, list_gpus
from resources.devices.leases import Lease, LeaseBook, LeaseError, Request, hold, let_go
from resources.devices.schedule import WHOLE, LeaseClaim, schedule
from resources.environment import degrade_after_s

FOUR = find_gpus(4)


@pytest.fixture(autouse=True)
def _everybody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine: who does not, has a file that is older still."""
    monkeypatch.setattr(gpu_leases, "PASSED_OVER_S", 3600.0)


@pytest.fixture
def book(tmp_path: Path) -> LeaseBook:
    return LeaseBook(tmp_path / "leases")


# The schedule, as a pure function.

sizes = st.sampled_from([0.25, 0.3, 0.5, 1 / 3, 1.0, 2.0, 4.0])


def claim_of(number: int, gpus: float, memory_gb: float = 0, priority: int = 0) -> LeaseClaim:
    request = Request(gpus, memory_gb, priority)
    return LeaseClaim(
        id=str(number),
        number=number,
        priority=priority,
        count=request.count,
        share=request.share,
        memory_mb=round(memory_gb * 1000),
        eligible={g.key: round(g.memory_gb * 1000) for g in FOUR},
        run_id="",
        step_key="",
        pid=0,
        since=0,
    )


def check_capacity(claims: list[LeaseClaim]) -> None:
    for gpu in FOUR:
        here = [c for c in claims if gpu.key in c.devices]
        assert sum(c.share for c in here) <= WHOLE
        assert sum(c.memory_mb for c in here) <= gpu.memory_gb * 1000
        assert len(here) == 1 or all(c.share < WHOLE for c in here)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(sizes, st.sampled_from([0, 10, 40, 80]), st.integers(1, 9)),
        min_size=1,
        max_size=40,
    ),
    st.randoms(use_true_random=False),
)
def test_nobody_is_starved_and_no_device_is_overfull(
    wanted: list[tuple[float, int, int]], rng: random.Random
) -> None:
    """A machine in small: claims arrive one a tick, work for some ticks, leave."""
    claims: list[LeaseClaim] = []
    until: dict[str, int] = {}
    arrivals = list(enumerate(wanted))
    began: dict[str, int] = {}
    tick = 0
    while arrivals or claims:
        if arrivals:
            number, (gpus, memory_gb, _) = arrivals.pop(0)
            claims.append(claim_of(number, gpus, memory_gb))
        # Owners look in any order; each takes what is its own only.
        for claim in rng.sample(claims, len(claims)):
            if not claim.devices:
                grants, reserved = schedule(claims)
                claim.devices = grants.get(claim.id, [])
                claim.reserved = reserved.get(claim.id, [])
                if claim.devices:
                    assert len(set(claim.devices)) == claim.count
                    began[claim.id] = tick
                    until[claim.id] = tick + wanted[claim.number][2]
        check_capacity(claims)
        assert any(c.devices for c in claims) or not claims, "the machine stands still"
        tick += 1
        claims = [c for c in claims if not c.devices or until[c.id] > tick]
    # All that was asked for before me may run first, one after the other; nothing that came later.
    for number in range(len(wanted)):
        before = sum(duration for _, _, duration in wanted[:number])
        assert began[str(number)] <= number + before + 1


def test_small_ones_do_not_starve_a_big_one_and_may_use_what_it_does_not_need() -> None:
    claims = [claim_of(n, 0.5) for n in range(6)]
    for claim, key in zip(claims, "001122", strict=True):
        claim.devices = [f"simulated-{key}"]
    big, small = claim_of(6, 2), claim_of(7, 0.5)
    grants, reserved = schedule([*claims, big, small])
    assert grants == {}
    assert reserved["6"][0] == "simulated-3"  # the empty one, and one that must get empty
    big.reserved = reserved["6"]
    other = next(f"simulated-{i}" for i in range(3) if f"simulated-{i}" not in big.reserved)
    claims = [c for c in claims if c.devices != [other]]
    grants, reserved = schedule([*claims, big, small])
    # Now the big one fits on the two empty devices, whatever it had reserved.
    assert sorted(grants["6"]) == sorted([other, "simulated-3"])


def test_a_reserved_device_only_gets_emptier() -> None:
    claims = [claim_of(n, 0.5) for n in range(8)]
    for n, claim in enumerate(claims):
        claim.devices = [f"simulated-{n // 2}"]
    big = claim_of(8, 1)
    (kept,) = schedule([*claims, big])[1]["8"]
    big.reserved = [kept]
    other = "simulated-2"
    assert kept != other
    freed = [c for c in claims if c.id != "4"]  # half of another device
    grants, reserved = schedule([*freed, big, claim_of(9, 0.5), claim_of(10, 0.5)])
    assert grants == {"9": [other]}
    assert reserved["8"] == [kept]


def test_priority_goes_first_then_who_came_first() -> None:
    held = [claim_of(n, 1) for n in range(3)]
    for n, claim in enumerate(held):
        claim.devices = [f"simulated-{n}"]
    waiting = [claim_of(3, 1), claim_of(4, 1), claim_of(5, 1, priority=5)]
    assert schedule([*held, *waiting])[0] == {"5": ["simulated-3"]}
    assert schedule([*held, *waiting[:2]])[0] == {"3": ["simulated-3"]}


def test_shares_are_packed_and_three_thirds_make_a_device() -> None:
    thirds = [claim_of(n, 1 / 3) for n in range(4)]
    grants, _ = schedule(thirds)
    assert [grants[str(n)] for n in range(4)] == [["simulated-0"]] * 3 + [["simulated-1"]]


def test_memory_is_packed_too() -> None:
    heavy = [claim_of(n, 0.1, memory_gb=50) for n in range(5)]
    grants, reserved = schedule(heavy)
    assert len({tuple(g) for g in grants.values()}) == 4
    assert set(reserved) == {"4"}


@pytest.mark.parametrize("gpus", [0, -1, 1.5, float("nan"), float("inf")])
def test_a_request_that_makes_no_sense_is_refused(gpus: float) -> None:
    with pytest.raises(ValueError, match="GPUs"):
        Request(gpus)


def test_whether_a_request_could_ever_fit() -> None:
    assert Request(4, 80).fits(FOUR)
    assert not Request(5).fits(FOUR)
    assert not Request(0.5, 81).fits(FOUR)


# The book, with real locks.


def test_a_lease_from_the_queue_to_the_end(book: LeaseBook) -> None:
    first = book.ask(Request(4, run_id="r", step_key="s"), FOUR)
    second = book.ask(Request(0.5), FOUR)
    assert not second.poll()
    assert first.poll()
    assert [str(d) for d in first.devices] == [f"GPU {i} (simulated)" for i in range(4)]
    (holder,) = book.holders()
    assert (holder.run_id, holder.step_key, holder.pid) == ("r", "s", os.getpid())
    assert not second.poll()
    first.release()
    assert second.poll()
    second.release()
    assert book.claims() == []
    assert list(book.folder.glob("*.claim")) == []


def test_who_has_devices_keeps_them_though_asked_again(book: LeaseBook) -> None:
    lease = book.ask(Request(1), FOUR)
    assert lease.poll()
    before = lease.devices
    assert lease.poll()
    assert lease.devices == before
    assert len(book.holders()) == 1


def test_a_lease_lasts_until_the_last_hold_ends(book: LeaseBook) -> None:
    lease = book.ask(Request(1), FOUR[:1])
    assert lease.poll()
    descriptor = hold(lease.path)
    lease.release()
    assert len(book.holders()) == 1
    let_go(descriptor)
    assert book.holders() == []


def test_a_resting_lease_is_reused_only_while_nobody_waits(book: LeaseBook) -> None:
    lease = book.ask(Request(1), FOUR[:1])
    assert lease.poll()
    lease.rest()
    assert book.holders()[0].idle
    assert not lease.reuse(Request(0.5)), "another kind of lease"
    assert lease.reuse(Request(1, step_key="next"))
    assert book.holders()[0].step_key == "next"
    elsewhere = book.ask(Request(1), FOUR[1:])
    assert not lease.is_wanted()
    waiting = book.ask(Request(0.5), FOUR[:1])
    assert lease.is_wanted()
    assert not lease.reuse(Request(1))
    waiting.release()
    elsewhere.release()


def granted(book: LeaseBook, run_id: str, gpus: list[Gpu] = FOUR) -> Lease:
    lease = book.ask(Request(1, run_id=run_id), gpus)
    assert lease.poll()
    return lease


def test_a_model_makes_room_only_for_who_would_get_its_device(book: LeaseBook) -> None:
    granted(book, "b")  # and at work
    warm = [granted(book, "a") for _ in range(2)]
    for lease in warm:
        lease.rest()
    served = book.ask(Request(1, run_id="b"), FOUR)
    assert [w.is_wanted() for w in warm] == [False, False], "there is a free one"
    assert served.poll()
    waiting = book.ask(Request(1, run_id="c"), FOUR)
    assert not waiting.poll()
    assert sorted(w.is_wanted() for w in warm) == [False, True]
    os.utime(waiting.path, (0, 0))
    assert [w.is_wanted() for w in warm] == [False, False], "it does not look any more"
    big = book.ask(Request(4, run_id="a"), FOUR)
    assert not big.poll()
    assert [w.is_wanted() for w in warm] == [True, True], "of another kind, and of its own run"


def test_a_step_takes_over_the_lease_of_its_run_when_it_is_its_turn(book: LeaseBook) -> None:
    one, request = FOUR[:1], Request(1, run_id="a")
    lease = granted(book, "a", one)
    lease.rest()
    place, other = book.ask(request, one), book.ask(Request(1, run_id="b"), one)
    assert not lease.is_wanted()
    assert not lease.reuse(request), "past two that wait"
    assert lease.reuse(request, place)
    assert [c.run_id for c in book.claims()] == ["a", "b"], "it has left the queue"
    lease.rest()
    place = book.ask(request, one)
    assert lease.is_wanted()
    assert not lease.reuse(request, place), "past one that waits for longer"
    lease.release()
    assert not place.poll()
    assert other.poll()


def test_who_does_not_look_is_passed_over(book: LeaseBook, monkeypatch: pytest.MonkeyPatch) -> None:
    asleep = book.ask(Request(1), FOUR[:1])
    awake = book.ask(Request(1), FOUR[:1])
    assert not awake.poll()
    os.utime(asleep.path, (0, 0))
    assert awake.poll()
    awake.release()
    assert asleep.poll()
    asleep.release()
    looks_away, behind = book.ask(Request(1), FOUR[:1]), book.ask(Request(1), FOUR[:1])
    looks_away.look_away()
    assert behind.poll()
    assert not looks_away.poll()
    later = book.ask(Request(1), FOUR[:1])
    behind.release()
    assert not later.poll(), "the place in the queue was not kept"
    assert looks_away.poll()


def test_machines_of_other_devices_do_not_wait_for_each_other(book: LeaseBook) -> None:
    other = [Gpu(0, "real", 24.0, "GPU-abc")]
    blocked = book.ask(Request(4), FOUR)
    one = book.ask(Request(1), FOUR[:1])
    assert blocked.poll()
    assert not one.poll()
    assert book.ask(Request(1), other).poll()


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir(mode=0o755)
    with pytest.raises(LeaseError, match="0700"):
        LeaseBook(open_to_all)
    mine = tmp_path / "mine"
    mine.mkdir(mode=0o700)
    link = tmp_path / "link"
    link.symlink_to(mine)
    with pytest.raises(LeaseError, match="not a folder"):
        LeaseBook(link)


def test_a_torn_book_is_begun_anew_unless_somebody_holds_a_device(book: LeaseBook) -> None:
    lease = book.ask(Request(1), FOUR)
    lease.poll()
    (book.folder / "book.json").write_text('[{"id": ')
    with pytest.raises(LeaseError, match="damaged or gone while leases are held"):
        book.claims()
    (book.folder / "book.json").unlink()
    with pytest.raises(LeaseError, match="damaged or gone while leases are held"):
        book.claims()
    lease.release()
    assert book.claims() == []


@pytest.mark.parametrize("by", ["whoever opens the book", "a stage that starts"])
def test_what_a_lease_needs_never_gets_old(book: LeaseBook, by: str) -> None:
    lease = granted(book, "a")
    asleep = book.ask(Request(4, run_id="b"), FOUR)
    for path in book.folder.iterdir():
        os.utime(path, (0, 0))
    if by == "a stage that starts":
        let_go(hold(lease.path))
    else:
        book.claims()
    old = {p for p in book.folder.iterdir() if p.stat().st_mtime == 0}
    assert old == {Path(asleep.path)}, "who waits has to look for itself"


def test_a_book_that_cannot_be_written_says_where_and_what_to_do(
    book: LeaseBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = book.ask(Request(1), FOUR)

    def write(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", write)
    with pytest.raises(LeaseError, match=r"leases.*: No space left on device: .*EGO_LEASE_DIR"):
        lease.poll()
    with pytest.raises(LeaseError):
        book.ask(Request(1), FOUR)
    monkeypatch.undo()
    later = book.ask(Request(1), FOUR)
    assert len(book.claims()) == len(list(book.folder.glob("*.claim"))) == 2, "one is left over"
    assert lease.poll()
    assert later.poll()


def test_what_a_killed_process_had_not_yet_entered_is_swept(book: LeaseBook) -> None:
    (book.folder / "dead.claim").touch()
    book.ask(Request(1), FOUR)
    assert not (book.folder / "dead.claim").exists()


def test_simulated_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EGO_FAKE_GPUS", "3")
    assert [g.key for g in list_gpus()] == ["simulated-0", "simulated-1", "simulated-2"]
    assert len(find_gpus(1)) == 1
    monkeypatch.setenv("EGO_FAKE_GPUS", "many")
    with pytest.raises(ValueError, match="EGO_FAKE_GPUS"):
        find_gpus()


@pytest.mark.parametrize(("given", "seconds"), [("", None), ("0", 0.0), ("600", 600.0)])
def test_how_long_a_step_waits(
    monkeypatch: pytest.MonkeyPatch, given: str, seconds: float | None
) -> None:
    monkeypatch.setenv("EGO_DEGRADE_AFTER_S", given)
    assert degrade_after_s() == seconds
    for wrong in ("soon", "-1", "nan", "inf"):
        monkeypatch.setenv("EGO_DEGRADE_AFTER_S", wrong)
        with pytest.raises(ValueError, match="give seconds"):
            degrade_after_s()


class FakeNvml:
    """Three devices, of which the second has fallen off the bus and the third is virtual."""

    class NVMLError(Exception):
        pass

    class NVMLError_NotSupported(NVMLError):
        pass

    class NVMLError_LibraryNotFound(NVMLError):
        pass

    class NVMLError_DriverNotLoaded(NVMLError):
        pass

    class NVMLError_GpuNotFound(NVMLError):
        pass

    def __getattr__(self, name: str) -> object:
        return lambda *_: None

    def nvmlDeviceGetCount(self) -> int:
        return 3

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> object:
        return type("Memory", (), {"total": 80e9})

    def nvmlDeviceGetName(self, handle: int) -> str:
        return "H100"

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-{handle}{handle}"

    def nvmlDeviceGetCudaComputeCapability(self, handle: int) -> tuple[int, int]:
        return 9, 0

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> None:
        if handle == 1:
            raise self.NVMLError("GPU is lost")
        if handle == 2:
            raise self.NVMLError_NotSupported("Not Supported")


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    """A machine with these devices."""
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.delenv("EGO_FAKE_GPUS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return fake


@pytest.mark.usefixtures("nvml")
def test_sick_devices_are_left_out_and_a_scheduler_above_us_is_obeyed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert [(g.index, g.fault) for g in find_gpus()] == [(0, ""), (1, "GPU is lost"), (2, "")]
    assert [g.key for g in list_gpus()] == ["GPU-00", "GPU-22"]
    for visible, indices in {"2": [2], "GPU-00": [0], "": [], "0,2": [0, 2]}.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert [g.index for g in list_gpus()] == indices


@pytest.mark.parametrize("asked", ["nvmlInit", "nvmlDeviceGetCount"])
def test_a_driver_that_does_not_answer_is_no_machine_without_gpus(
    nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    def mismatch() -> int:
        raise nvml.NVMLError("Driver/library version mismatch")

    monkeypatch.setattr(nvml, asked, mismatch, raising=False)
    assert [g.fault for g in find_gpus()] == ["Driver/library version mismatch"]
    with pytest.raises(ValueError, match=r"no GPU of this machine works .*version mismatch"):
        list_gpus()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert len(find_gpus()) == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert list_gpus() == []


def test_a_machine_without_a_driver_has_no_gpu(
    nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent() -> None:
        raise nvml.NVMLError_LibraryNotFound

    monkeypatch.setattr(nvml, "nvmlInit", absent, raising=False)
    assert list_gpus() == []


@pytest.mark.usefixtures("nvml")
def test_a_simulated_device_is_not_leased_beside_the_real_one(book: LeaseBook) -> None:
    simulated = find_gpus(4)
    assert [g.name for g in simulated] == ["simulated"] * 4
    assert simulated[3].key == "simulated-3"
    lease = book.ask(Request(1), simulated[:1])
    assert lease.poll()
    real = book.ask(Request(1), list_gpus()[:1])
    assert not real.poll()


# Real processes.


def work(folder: Path, seed: int, leases: int) -> None:
    """Lease, check that the devices are ours alone, let go; again and again."""
    rng = random.Random(seed)
    book = LeaseBook(folder / "leases")
    for _ in range(leases):
        request = Request(rng.choice([0.5, 0.5, 1.0, 2.0]), run_id=str(seed))
        lease = book.ask(request, FOUR)
        while not lease.poll():
            time.sleep(0.005)
        halves = []
        for gpu in lease.devices:
            for _ in range(2 if request.share == WHOLE else 1):
                halves.append(take_half(folder, gpu.index))
        time.sleep(rng.uniform(0, 0.02))
        for half in halves:
            os.close(half)
        lease.release()


def take_half(folder: Path, index: int) -> int:
    """One of the two locks of a device; there is none left if it is overfull."""
    for name in "ab":
        descriptor = os.open(folder / f"{index}{name}", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
        else:
            return descriptor
    (folder / "overlap").write_text(f"device {index}")
    raise AssertionError(f"device {index} is overfull")


@pytest.mark.parametrize("killing", [False, True])
def test_processes_never_share_more_than_there_is(tmp_path: Path, killing: bool) -> None:
    context = mp.get_context("fork")
    workers, leases = 8, 40
    rng = random.Random(1)
    running = {
        seed: context.Process(target=work, args=(tmp_path, seed, leases)) for seed in range(workers)
    }
    for process in running.values():
        process.start()
    for n in range(20 if killing else 0):
        time.sleep(0.03)
        seed = rng.choice(list(running))
        running[seed].kill()
        running[seed].join()
        running[seed] = context.Process(target=work, args=(tmp_path, 100 + n, 5))
        running[seed].start()
    for process in running.values():
        process.join(300)
        assert process.exitcode == 0
    assert not (tmp_path / "overlap").exists()
    assert LeaseBook(tmp_path / "leases").claims() == []
    assert json.loads((tmp_path / "leases" / "book.json").read_text()) == []
