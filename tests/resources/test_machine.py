"""A container may use less of the machine than it sees."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import psutil
import pytest

from resources.processes import machine
from resources.processes.slots import take_cpu

GIB = 2**30


class Groups:
    """Control groups as the kernel shows them, below a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "cgroup"
        self.own = folder / "own"

    def write(self, path: str, text: str) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_text(text)


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Groups:
    """Of a machine with 16 CPUs."""
    made = Groups(tmp_path)
    monkeypatch.setattr(machine, "_GROUPS", made.folder)
    monkeypatch.setattr(machine, "_OWN", made.own)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))
    return made


def test_without_limits_the_machine_is_ours(groups: Groups) -> None:
    total = psutil.virtual_memory().total
    assert (machine.cpus(), machine.memory_bytes()) == (16, total)
    groups.own.write_text("0::/\n")
    groups.write("cpu.max", "max 100000\n")
    groups.write("memory.max", "max\n")
    assert (machine.cpus(), machine.memory_bytes()) == (16, total)


def test_the_least_of_all_groups_above_counts(groups: Groups) -> None:
    groups.own.write_text("0::/pod/container\n")
    groups.write("pod/container/cpu.max", "max 100000\n")
    groups.write("pod/cpu.max", "350000 100000\n")
    groups.write("pod/container/memory.max", f"{2 * GIB}\n")
    groups.write("pod/memory.max", f"{3 * GIB}\n")
    assert (machine.cpus(), machine.memory_bytes()) == (3, 2 * GIB)


def test_less_than_one_cpu_is_one(groups: Groups) -> None:
    groups.own.write_text("0::/\n")
    groups.write("cpu.max", "50000 100000\n")
    assert machine.cpus() == 1


def test_groups_of_the_first_version(groups: Groups) -> None:
    """The path is that of the machine, and the container sees its own group as the root."""
    groups.own.write_text("9:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n0::/\n")
    groups.write("cpu,cpuacct/cpu.cfs_quota_us", "200000\n")
    groups.write("cpu,cpuacct/cpu.cfs_period_us", "100000\n")
    groups.write("memory/memory.limit_in_bytes", f"{GIB}\n")
    assert (machine.cpus(), machine.memory_bytes()) == (2, GIB)
    groups.write("cpu,cpuacct/cpu.cfs_quota_us", "-1\n")
    groups.write("memory/memory.limit_in_bytes", f"{2**63 - 4096}\n")
    assert (machine.cpus(), machine.memory_bytes()) == (16, psutil.virtual_memory().total)


def test_there_are_as_many_slots_as_cpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EGO_LEASE_DIR", str(tmp_path / "leases"))
    monkeypatch.setattr(machine, "cpus", lambda: 2)
    first, second = take_cpu(), take_cpu()
    assert first is not None
    assert second is not None
    assert take_cpu() is None
    os.close(first)
    again = take_cpu()
    assert again is not None
    for descriptor in (second, again):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # it is ours
        os.close(descriptor)
