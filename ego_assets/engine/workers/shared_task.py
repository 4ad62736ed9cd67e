"""The one model of a worker, and who has it. Not here: what a task does (`tasks`)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ego_assets.engine.plan import StageSpec
from ego_assets.engine.tasks import StageTask, build_task
from ego_assets.models.memory import free
from resources.lake import Lake
from resources.ledger import Ledger


class SharedTask:
    """The task of all lanes of a worker, with its model: built once, when first asked for."""

    def __init__(self, spec: StageSpec) -> None:
        self.spec = spec
        self._changed = threading.Condition()
        self._task: StageTask | None = None
        self._users = 0
        self._is_void = False

    @contextmanager
    def use(self, lake: Lake, ledger: Ledger) -> Iterator[StageTask]:
        """The task, for as long as it is held."""
        with self._changed:
            # There is room for one model only: the one to be forgotten goes before another comes.
            self._changed.wait_for(lambda: not self._is_void)
            if self._task is None:
                self._task = build_task(self.spec, lake, ledger)
            task = self._task
            self._users += 1
        try:
            yield task
        finally:
            del task
            with self._changed:
                self._users -= 1
                self._settle()

    def forget(self) -> None:
        """The next one who asks gets a new one, once nobody has the old one any more."""
        with self._changed:
            self._is_void = True
            self._settle()

    def _settle(self) -> None:
        if self._is_void and not self._users:
            self._task, self._is_void = None, False
            free()
            self._changed.notify_all()
