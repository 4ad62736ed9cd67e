"""The steps of one run in the machine's queue for devices.

Here: which devices the run may use by now, which of its steps stand in the queue, and what each
is told: go, wait, go on without, or give up. Not here: Dagster (`executor`), the queue of all runs
(`resources.devices.leases`), processes (`worker_pool`).

A step that wants a device has a `Place`. Whenever the step could start, the executor asks for its
`turn`; when it could not, it says `look_away`, so that other runs may have the device.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from time import monotonic

from dagster_project.executors.step_needs import StepNeeds, check_possible
from dagster_project.executors.worker_pool import Worker
from resources.devices.gpu import Gpu, find_gpus
from resources.devices.leases import Lease, LeaseBook, Request, describe_holders

FIRST_TOLD_S, TOLD_AGAIN_S = 10.0, 300.0
"""When a step says that it waits for a device."""
LOOK_AGAIN_S = 30.0
"""A device may fail while a run goes on: how old the last look at them may be."""


class LeaseTimeoutError(Exception):
    """A step got no device within the time that it may wait."""


@dataclass(eq=False)
class Place:
    """One step, from its place in the queue to the devices that it works on.

    worker: the warm one whose lease the step took over. without_gpu: why it goes on without one.
    """

    step_key: str
    needs: StepNeeds
    since: float = field(default_factory=monotonic)
    asked_at: float = 0.0
    told_at: float = -math.inf
    lease: Lease | None = None
    worker: Worker | None = None
    without_gpu: str = ""

    def __str__(self) -> str:
        if self.without_gpu:
            return "the CPU, degraded"
        return ", ".join(map(str, self.lease.devices)) if self.lease else "the CPU"

    @property
    def visible_devices(self) -> str:
        """As CUDA_VISIBLE_DEVICES names them."""
        return ",".join(str(g.index) for g in self.lease.devices) if self.lease else ""

    def leave(self) -> None:
        """Give up the place, or this process's hold on the devices."""
        if self.lease:
            self.lease.release()
            self.lease = None


@dataclass(frozen=True)
class Turn:
    """Whether a step may start now, and what its log is to say."""

    go: bool
    say: str = ""


class DeviceQueue:
    """A run's side of the machine's queue.

    simulated: pretend that there are so many devices; None: those of the machine.
    timeout_s: a step that waits for longer fails, while no other step of the run has a device.
    degrade_after_s: a step that may goes on without a device after so long. None: never.
    """

    def __init__(
        self,
        run_id: str,
        priority: int,
        *,
        simulated: int | None = None,
        timeout_s: float | None = None,
        degrade_after_s: float | None = None,
    ) -> None:
        self.run_id = run_id
        self.priority = priority
        self.simulated = simulated
        self.timeout_s = timeout_s
        self.degrade_after_s = degrade_after_s
        self.all: list[Gpu] = []
        self.gpus: list[Gpu] = []
        self.waiting: list[Place] = []
        self.looked_at = self.had_device_at = -math.inf

    def look_around(self, needs: Mapping[str, StepNeeds]) -> list[str]:
        """The first look at the machine; what there is to say of it.

        needs: of each step, by its key. Raises ImpossibleNeedsError if one can never be met.
        """
        self.all, self.looked_at = find_gpus(self.simulated), monotonic()
        self.gpus = [g for g in self.all if not g.fault]
        said = [f"{_name(g)} is left out: NVML says {g.fault!r}" for g in self.all if g.fault]
        asking = [key for key, n in needs.items() if n.gpus]
        if asking and not self.all:
            said.append(
                f"This machine has no GPU: {len(asking)} of {len(needs)} steps ask for one and "
                "run on the CPU"
            )
        elif asking:
            self.book = LeaseBook()
            for key in asking:
                check_possible(key, needs[key], self.gpus)
        return said

    def look_again(self) -> list[str]:
        """No further step gets a device that has failed since the last look; what changed."""
        if monotonic() - self.looked_at < LOOK_AGAIN_S:
            return []
        self.looked_at = monotonic()
        found = {g.key: g for g in find_gpus(self.simulated)}
        faults = {g.index: g.fault for g in found.values() if g.fault}
        well = [g for g in self.all if g.key in found and not found[g.key].fault]
        if well == self.gpus:
            return []
        said = [
            f"{_name(g)} is left out from now on: NVML says {faults.get(g.index, 'it is gone')!r}"
            for g in self.gpus
            if g not in well
        ]
        said += [f"{_name(g)} works again" for g in well if g not in self.gpus]
        self.gpus = well
        for place in self.waiting:
            if place.lease:
                place.lease.offer(well)
        return said

    def serves(self, needs: StepNeeds) -> bool:
        """Whether the step is to have a device; where there is none at all, it is not."""
        return bool(needs.gpus and self.all)

    def may_ask(self, place: Place, room: int) -> bool:
        """Whether it has a place in the queue, or there is one for it.

        room: how many more steps the run could start: it has no more places than that.
        """
        return place.lease is not None or len(self.waiting) < room

    def turn(
        self,
        place: Place,
        *,
        resting: Iterable[Worker] = (),
        warm: Collection[str] = (),
        at_work: bool = False,
    ) -> Turn:
        """Whether the step may start. Then `place` says where, or why without a device.

        resting: idle workers that keep a device, with a model on it. warm: CUDA_VISIBLE_DEVICES
        of all idle workers. at_work: whether a step of the run works on a device.
        Raises ImpossibleNeedsError, if devices have failed; LeaseTimeoutError.
        """
        try:
            check_possible(place.step_key, place.needs, self.gpus)
        except Exception:
            self.leave(place)
            raise
        request = self._request(place)
        for worker in resting:
            if worker.lease and worker.lease.reuse(request, place.lease):
                self._forget(place)
                place.worker, place.lease = worker, worker.lease
                return Turn(True)
        if place.lease is None:
            place.lease, place.asked_at = self.book.ask(request, self.gpus), monotonic()
            self.waiting.append(place)
        if place.lease.poll(prefer=self._keys(warm)):
            self._forget(place)
            return Turn(True)
        return self._wait(place, at_work)

    def look_away(self, place: Place) -> None:
        """The step could not start on a device now: others may have it."""
        if place.lease:
            place.lease.look_away()
            place.asked_at = monotonic()

    def leave(self, place: Place) -> None:
        """The step wants no device any more."""
        self._forget(place)
        place.leave()

    def wants_back(self, lease: Lease) -> bool:
        """Whether a lease that only rests should be given up: who waits goes before a model that
        is kept warm, and a device that has failed is left."""
        return lease.is_wanted() or not set(lease.devices) <= set(self.gpus)

    def _wait(self, place: Place, at_work: bool) -> Turn:
        now = monotonic()
        waited = now - place.since
        if at_work:
            self.had_device_at = now
        patience_s, limit_s = self.degrade_after_s, self.timeout_s
        if place.needs.degrades and patience_s is not None and now - place.asked_at > patience_s:
            self.leave(place)
            limited = f"no GPU was free within {patience_s:g} s (degrade_after_s)"
            place.without_gpu = f"{limited}; {self._holders()}"
            return Turn(True, f"Goes on without a GPU: {place.without_gpu}")
        if limit_s is not None and now - max(place.asked_at, self.had_device_at) > limit_s:
            self.leave(place)
            raise LeaseTimeoutError(
                f"step {place.step_key} got no GPU within {limit_s:g} s (lease_timeout_s); "
                f"{self._holders()}"
            )
        if waited > FIRST_TOLD_S and now - place.told_at > TOLD_AGAIN_S:
            place.told_at = now
            wanted = f"{place.needs.gpus:g} GPU; {self._holders()}"
            return Turn(False, f"Has waited {waited:.0f} s for {wanted}")
        return Turn(False)

    def _request(self, place: Place) -> Request:
        return Request(
            place.needs.gpus,
            place.needs.gpu_memory_gb,
            priority=self.priority,
            run_id=self.run_id,
            step_key=place.step_key,
        )

    def _keys(self, warm: Collection[str]) -> set[str]:
        indices = {index for devices in warm for index in devices.split(",")}
        return {g.key for g in self.gpus if str(g.index) in indices}

    def _forget(self, place: Place) -> None:
        if place in self.waiting:
            self.waiting.remove(place)

    def _holders(self) -> str:
        return describe_holders(self.book, self.gpus)


def _name(gpu: Gpu) -> str:
    return f"GPU {gpu.index}"
