"""How much a shard takes, unless a person says otherwise: the one place that says so."""

from __future__ import annotations

SHARD_FILES = 64
SHARD_BYTES = 64 * 10**9
SHARD_DURATION_S = 900.0
"""Of footage."""
