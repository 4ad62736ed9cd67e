"""When a raw file is complete, and which files make a shard: it closes like a bus, full or on time.

Not here: what arrives, and what is done with a shard that closes (`arrivals`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from resources.ledger.raw_files import Waiting
from resources.raw.limits import SHARD_BYTES, SHARD_DURATION_S, SHARD_FILES


@dataclass(frozen=True)
class Limits:
    """When a file is complete, and when a shard is closed."""

    settle_s: float = 60.0
    files: int = SHARD_FILES
    byte_size: int = SHARD_BYTES
    duration_s: float = SHARD_DURATION_S
    wait_s: float = 600.0


def close_batches(files: Sequence[Waiting], limits: Limits, now: float) -> list[list[Waiting]]:
    """The batches of files that close now: filled in the order of arrival; the last one, which is
    not full, only if its oldest file has waited long enough."""
    batches: list[list[Waiting]] = []
    last: list[Waiting] = []
    byte_size, duration_s = 0, 0.0
    for file in files:
        byte_size += file.byte_size
        duration_s += file.duration_s or 0.0
        is_over = byte_size > limits.byte_size or duration_s > limits.duration_s
        if last and (is_over or len(last) == limits.files):
            batches.append(last)
            last, byte_size, duration_s = [], file.byte_size, file.duration_s or 0.0
        last.append(file)
    is_full = len(last) == limits.files
    if last and (is_full or now - min(w.first_seen for w in last) >= limits.wait_s):
        batches.append(last)
    return batches
