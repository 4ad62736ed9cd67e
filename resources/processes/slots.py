"""The CPUs of the machine as slots, of which each stage of each run takes what is free.

A stage has a worker for each CPU if nobody else has any. With several stages at a time that would
be as many for each, and memory for all of them. So whoever starts a worker takes a slot, a file
with a lock that the kernel frees on any death. One worker a stage needs none: each one goes on.
Not here: devices (`resources.devices.leases`), whose folder this shares.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress

from resources.devices.leases import own_folder
from resources.processes import machine


def take_cpu() -> int | None:
    """Return a descriptor that keeps a slot until it is closed; None if there is none free."""
    folder = own_folder()
    for number in range(machine.cpus()):
        descriptor = os.open(folder / f"cpu-{number}", os.O_RDWR | os.O_CREAT, 0o600)
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.utime(descriptor)  # what clears /tmp goes by age
            if os.fstat(descriptor).st_nlink:
                return descriptor
        os.close(descriptor)
    return None
