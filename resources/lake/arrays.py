"""Arrays of a lake, in npz files: those that rows point to, and what a take's next clip needs.

Not here: rows (`lake`), which arrays are still in use (`compaction`).
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from resources.lake.holdings import again_if_moved, attempt_name, attempts, newest
from resources.lake.s3.storage import S3Storage
from resources.lake.storage import LocalStorage

_DONE_UNDER = "_done_under"


class ArrayFiles:
    """What of a lake is in npz files."""

    storage: LocalStorage | S3Storage

    def publish_arrays(
        self, table: str, shard: str, item: str, arrays: Mapping[str, np.ndarray], token: int = 0
    ) -> str:
        """Publish large arrays of one item as an npz without pickles. Returns the key."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **dict(arrays))
        key = f"{table}/_arrays/{shard}/{attempt_name(item, token)}.npz"
        self.storage.write(key, buffer.getbuffer())
        return key

    def read_arrays(self, key: str) -> dict[str, np.ndarray]:
        with np.load(io.BytesIO(self.storage.read(key)), allow_pickle=False) as loaded:
            return {name: loaded[name] for name in loaded.files}

    def write_carried(
        self,
        stage: str,
        shard: str,
        item: str,
        carried: Mapping[str, Any],
        token: int = 0,
        fingerprint: str = "",
    ) -> bool:
        """Store a flat dict of JSON values and arrays; what older attempts stored goes.

        fingerprint: that the item was done under. Returns False if a newer attempt has stored its
        own, so that nobody will read this.
        """
        arrays = {k: v for k, v in carried.items() if isinstance(v, np.ndarray)}
        plain = {k: v for k, v in carried.items() if not isinstance(v, np.ndarray)}
        plain[_DONE_UNDER] = fingerprint
        buffer = io.BytesIO()
        text = np.frombuffer(json.dumps(plain).encode(), np.uint8)
        np.savez_compressed(
            buffer, allow_pickle=False, **{f"a_{k}": v for k, v in arrays.items()}, json=text
        )
        folder = f"_carried/{stage}/{shard}"
        self.storage.write(f"{folder}/{attempt_name(item, token)}.npz", buffer.getbuffer())
        left = attempts(self.storage, folder, item)
        for key, other in left.items():
            if other < token:
                self.storage.delete(key)
        return max(left.values(), default=token) <= token

    def read_carried(
        self, stage: str, shard: str, item: str, fingerprint: str | None = None
    ) -> dict[str, Any] | None:
        """Of the item's newest attempt; None if there is none, or it was done under another
        fingerprint (an earlier version of its rows was brought back)."""

        def read() -> dict[str, np.ndarray] | None:
            found = newest(self.storage, f"_carried/{stage}/{shard}").get(item)
            return None if found is None else self.read_arrays(found[1])

        loaded = again_if_moved(read)
        if loaded is None:
            return None
        carried: dict[str, Any] = json.loads(loaded.pop("json").tobytes())
        done_under = carried.pop(_DONE_UNDER, fingerprint)
        if fingerprint is not None and done_under != fingerprint:
            return None
        return carried | {k.removeprefix("a_"): v for k, v in loaded.items()}
