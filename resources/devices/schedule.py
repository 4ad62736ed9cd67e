"""Who of those who wait for GPUs gets which: the queue and the packing.

Here: claims as they stand in the book, and what each gets now. Not here: the book itself, and who
is alive (`leases`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

WHOLE = 1000
"""Shares are thousandths of a device: three thirds must make one, and floats do not."""


@dataclass
class LeaseClaim:
    """One line of the book. `devices` is empty while it waits."""

    id: str
    number: int
    priority: int
    count: int
    share: int
    memory_mb: int
    eligible: dict[str, int]
    run_id: str
    step_key: str
    pid: int
    since: float
    devices: list[str] = field(default_factory=list)
    reserved: list[str] = field(default_factory=list)
    idle: bool = False

    @property
    def kind(self) -> tuple[int, int, int]:
        return self.count, self.share, self.memory_mb


@dataclass
class _Room:
    share: int
    memory_mb: int

    def fits(self, claim: LeaseClaim) -> bool:
        return self.share >= claim.share and self.memory_mb >= claim.memory_mb

    def take(self, claim: LeaseClaim) -> None:
        self.share -= claim.share
        self.memory_mb -= claim.memory_mb


def schedule(
    claims: Iterable[LeaseClaim], prefer: Collection[str] = ()
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """What each waiting claim gets now, and the devices kept for those that get nothing yet.

    By priority, then first come first served. A claim that must wait keeps the devices that it
    will get: those behind it may use others, but not these, so they only get emptier and it is
    never starved by smaller ones. Shares go where least is left, so that whole devices stay whole.
    """
    claims = list(claims)
    room: dict[str, _Room] = {}
    for claim in claims:
        for key, memory_mb in claim.eligible.items():
            room.setdefault(key, _Room(WHOLE, memory_mb))
    for claim in claims:
        for key in claim.devices:
            room[key].take(claim)
    grants: dict[str, list[str]] = {}
    reserved: dict[str, list[str]] = {}
    kept: set[str] = set()
    waiting = [c for c in claims if not c.devices]
    for claim in sorted(waiting, key=lambda c: (-c.priority, c.number)):
        open_to_it = [k for k in claim.eligible if k not in kept]
        fitting = sorted(
            (k for k in open_to_it if room[k].fits(claim)),
            key=lambda k: (room[k].share, k not in prefer, k),
        )
        if len(fitting) >= claim.count:
            grants[claim.id] = fitting[: claim.count]
            for key in grants[claim.id]:
                room[key].take(claim)
        else:
            reserved[claim.id] = _reserve(claim, open_to_it, room)
            kept.update(reserved[claim.id])
    return grants, reserved


def _reserve(claim: LeaseClaim, open_to_it: list[str], room: dict[str, _Room]) -> list[str]:
    """The devices to empty for a claim. Once chosen they stay, or they would never be empty."""
    if claim.reserved and set(claim.reserved) <= set(open_to_it):
        return claim.reserved
    able = [k for k in open_to_it if claim.eligible[k] >= claim.memory_mb]
    able.sort(key=lambda k: (-room[k].share, k))
    return able[: claim.count] if len(able) >= claim.count else []
