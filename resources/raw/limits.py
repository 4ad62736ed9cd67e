"""How much a shard and a worker take, unless a person says otherwise."""

from __future__ import annotations

SHARD_FILES = 64
SHARD_BYTES = 64 * 10**9
SHARD_DURATION_S = 900.0
"""Of footage."""
BYTES_IN_FLIGHT = 64 * 2**20
"""Of pictures and results that wait for somebody in a worker."""
