"""A model on a device with little memory, whose allocator fails on demand.

Beside the video, `{clip_id}.json` may say {"items": n}: what an item of that clip takes.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ego_assets.models.batching import MicroBatcher
from ego_assets.models.memory import ElasticBatch
from ego_assets.objects.settings import MovementSettings
from ego_assets.operator import Carried, ClipInput, ClipOutput
from tests.engine.fake_backends import movement_row

CAPACITY, BATCH, ITEMS = 20, 16, 12
OutOfMemoryError = type("OutOfMemoryError", (RuntimeError,), {})  # as torch has it


class Allocator:
    """So many items, and an error as torch's for more."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.used = 0

    @contextmanager
    def hold(self, items: int) -> Iterator[None]:
        if self.used + items > self.capacity:
            raise OutOfMemoryError(f"asked for {items}, {self.capacity - self.used} free\nstack")
        self.used += items
        try:
            yield
        finally:
            self.used -= items


class HungryEstimator:
    """Two lanes over one model; an item's result is what it took."""

    name, version, quality_tier, weights_hash = "hungry", "1", "reference", ""
    lanes = 2
    on_device = True

    def __init__(self, settings: MovementSettings) -> None:
        self.allocator = Allocator(CAPACITY)
        self.look = MicroBatcher(ElasticBatch(self._look, BATCH), BATCH)
        self.lock = threading.Lock()

    def _look(self, items: list[int]) -> list[int]:
        with self.allocator.hold(sum(items)):
            return items

    def process(self, clip: ClipInput, carried: Carried | None) -> ClipOutput:
        folder = Path(clip.video["uri"]).parent
        with self.lock, (folder / "calls").open("a") as file:
            file.write(f"{clip.clip_id} {os.getpid()} {id(self)}\n")
        plan = folder / f"{clip.clip_id}.json"
        items = json.loads(plan.read_text())["items"] if plan.exists() else 1
        total = sum(self.look([items] * ITEMS))
        return ClipOutput({"object_movements": [movement_row(clip, "track", float(total))]})
