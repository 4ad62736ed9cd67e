"""A run's steps in the queue for devices: a clock of the test's own, no process, no Dagster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dagster_project.executors import device_queue
from dagster_project.executors.device_queue import DeviceQueue, LeaseTimeoutError, Place
from dagster_project.executors.step_needs import ImpossibleNeedsError, StepNeeds
from resources.devices import leases as gpu_leases
from resources.devices.gpu import Gpu, find_gpus
from resources.devices.leases import Lease, LeaseBook, Request

ONE = StepNeeds(gpus=1)


class Machine:
    """Its devices and its clock."""

    def __init__(self, gpus: list[Gpu]) -> None:
        self.gpus = gpus
        self.now = 0.0

    def fail(self, index: int) -> None:
        self.gpus = [replace(g, fault="GPU is lost") if g.index == index else g for g in self.gpus]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Two devices; it has just been started."""
    found = Machine(find_gpus(2))
    monkeypatch.setenv("EGO_LEASE_DIR", str(tmp_path / "leases"))
    monkeypatch.setattr(device_queue, "find_gpus", lambda simulated: list(found.gpus))
    monkeypatch.setattr(device_queue, "monotonic", lambda: found.now)
    monkeypatch.setattr(gpu_leases, "PASSED_OVER_S", 600.0)
    return found


@pytest.fixture
def others(machine: Machine) -> Iterator[list[Lease]]:
    """What another run has: everything, one lease a device."""
    request = Request(1, run_id="other", step_key="s")
    leases = [LeaseBook().ask(request, machine.gpus) for _ in machine.gpus]
    assert all(lease.poll() for lease in leases)
    yield leases
    for lease in leases:
        lease.release()


def queue_of(**options: float) -> DeviceQueue:
    queue = DeviceQueue("r", 0, **options)  # type: ignore[arg-type]
    assert queue.look_around({"a": ONE, "b": ONE}) == []
    return queue


def place_of(needs: StepNeeds = ONE, key: str = "a") -> Place:
    return Place(key, needs, since=device_queue.monotonic())


def test_a_device_that_is_free_is_had_at_once(machine: Machine) -> None:
    queue, place = queue_of(), place_of()
    assert (str(place), place.visible_devices) == ("the CPU", "")
    assert queue.turn(place, warm={"1", ""}).go
    assert (str(place), place.visible_devices) == ("GPU 1 (simulated)", "1"), "where it is warm"
    assert queue.waiting == []
    assert [c.step_key for c in LeaseBook().holders()] == ["a"]
    place.leave()
    assert LeaseBook().claims() == []


def test_a_run_has_no_more_places_than_steps_that_it_could_start(
    machine: Machine, others: list[Lease]
) -> None:
    queue, first, second = queue_of(), place_of(), place_of(key="b")
    assert queue.may_ask(first, room=1)
    assert not queue.turn(first).go
    assert queue.may_ask(first, room=1), "it has the place"
    assert not queue.may_ask(second, room=1)
    assert queue.may_ask(second, room=2)
    others[0].release()
    assert queue.turn(first).go
    assert queue.may_ask(second, room=1)
    first.leave()
    assert [c.run_id for c in LeaseBook().claims()] == ["other"]


def test_a_step_says_that_it_waits_and_who_has_the_devices(
    machine: Machine, others: list[Lease]
) -> None:
    queue, place = queue_of(), place_of()
    said = {}
    for machine.now in (0.0, 9.0, 11.0, 12.0, 300.0, 312.0):
        if words := queue.turn(place).say:
            said[machine.now] = words
    assert list(said) == [11.0, 312.0]
    assert said[11.0].startswith("Has waited 11 s for 1 GPU; GPU 0 (simulated) is held by s of")
    queue.leave(place)


def wait_out(queue: DeviceQueue, place: Place, machine: Machine, *, at_work: bool) -> None:
    for _ in range(10):
        assert not queue.turn(place, at_work=at_work).go
        machine.now += 1.0


def test_a_step_that_waits_too_long_fails(machine: Machine, others: list[Lease]) -> None:
    queue, place = queue_of(timeout_s=9.5), place_of()
    wait_out(queue, place, machine, at_work=False)
    with pytest.raises(LeaseTimeoutError, match=r"step a got no GPU within 9.5 s .*of run other"):
        queue.turn(place)
    assert (queue.waiting, place.lease) == ([], None)
    assert [c.run_id for c in LeaseBook().claims()] == ["other", "other"]


def test_waiting_for_steps_of_the_same_run_is_no_timeout(
    machine: Machine, others: list[Lease]
) -> None:
    queue, place = queue_of(timeout_s=3.0), place_of()
    wait_out(queue, place, machine, at_work=True)
    machine.now += 3.0
    with pytest.raises(LeaseTimeoutError):
        queue.turn(place)


def test_the_time_in_which_a_step_could_not_start_does_not_count(
    machine: Machine, others: list[Lease]
) -> None:
    queue, place = queue_of(timeout_s=9.5, degrade_after_s=9.5), place_of()
    wait_out(queue, place, machine, at_work=False)
    queue.look_away(place)
    wait_out(queue, place, machine, at_work=False)
    queue.leave(place)


def test_a_step_that_may_goes_on_without(machine: Machine, others: list[Lease]) -> None:
    queue, place = queue_of(degrade_after_s=9.5), place_of(replace(ONE, degrades=True))
    wait_out(queue, place, machine, at_work=True)
    turn = queue.turn(place, at_work=True)
    assert turn.go
    assert turn.say == f"Goes on without a GPU: {place.without_gpu}"
    assert str(place) == "the CPU, degraded"
    assert [c.run_id for c in LeaseBook().claims()] == ["other", "other"]


def look(queue: DeviceQueue, machine: Machine) -> list[str]:
    machine.now += device_queue.LOOK_AGAIN_S
    return queue.look_again()


def test_a_device_that_fails_goes_to_nobody_and_the_place_is_kept(
    machine: Machine, others: list[Lease]
) -> None:
    queue, place = queue_of(), place_of()
    assert not queue.turn(place).go
    behind = LeaseBook().ask(Request(1, run_id="third"), machine.gpus)
    machine.fail(0)
    assert queue.look_again() == [], "the last look is not that old"
    assert look(queue, machine) == ["GPU 0 is left out from now on: NVML says 'GPU is lost'"]
    assert look(queue, machine) == []
    others[0].release()
    assert not queue.turn(place).go
    others[1].release()
    behind.look_away()
    assert queue.turn(place).go
    assert place.visible_devices == "1"
    resting = place.lease
    assert resting is not None
    assert not queue.wants_back(resting)
    machine.fail(1)
    look(queue, machine)
    assert queue.wants_back(resting)
    resting.release()
    behind.release()


def test_a_device_that_works_again_is_used_again(machine: Machine) -> None:
    queue, well = queue_of(), machine.gpus
    machine.fail(0)
    look(queue, machine)
    machine.gpus = well
    assert look(queue, machine) == ["GPU 0 works again"]
    place = place_of(StepNeeds(gpus=2))
    assert queue.turn(place).go
    place.leave()


@pytest.mark.parametrize("lose", [lambda m: m.fail(0), lambda m: m.gpus.clear()])
def test_a_step_that_waits_for_more_than_is_left_fails(
    machine: Machine, others: list[Lease], lose: Callable[[Machine], None]
) -> None:
    queue, place = queue_of(), place_of(StepNeeds(gpus=2))
    assert not queue.turn(place).go
    lose(machine)
    look(queue, machine)
    with pytest.raises(ImpossibleNeedsError, match="more than this machine has"):
        queue.turn(place)
    assert queue.waiting == []


def test_a_machine_without_devices_serves_nobody(machine: Machine) -> None:
    machine.gpus = []
    queue = DeviceQueue("r", 0)
    assert queue.look_around({"a": ONE, "b": StepNeeds()}) == [
        "This machine has no GPU: 1 of 2 steps ask for one and run on the CPU"
    ]
    assert not queue.serves(ONE)
