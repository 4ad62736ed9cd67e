"""Cancels a run of this process on Ctrl-C, as the UI cancels one.

Dagster records an interrupted run as failed, and alerts about it, unless the run is already marked
as being cancelled. Here: that mark. Not here: what is said on the terminal (`terminal`).
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg

WORDS = "Interrupted by Ctrl-C or SIGTERM; the same command goes on from here."
SIGNALS = {signal.SIGINT, signal.SIGTERM}


class Interrupts:
    """Knows which signals came, whoever handles them.

    Dagster replaces the handlers while it runs, and keeps what it heard to itself. Only the main
    thread gets signals: elsewhere none ever come.
    """

    def __init__(self) -> None:
        self._came = False
        self._reader = -1

    @property
    def came(self) -> bool:
        """Whether there was one by now."""
        while not self._came and self._reader >= 0:
            try:
                found = os.read(self._reader, 64)
            except BlockingIOError:
                break
            self._came = bool(SIGNALS & set(found))
        return self._came

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note the signals that come within."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._reader, writer = os.pipe()
        for end in (self._reader, writer):
            os.set_blocking(end, False)
        before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            _ = self.came
            os.close(self._reader)
            os.close(writer)
            self._reader = -1


@contextmanager
def cancelled_by(interrupts: Interrupts, instance: dg.DagsterInstance) -> Iterator[None]:
    """Have runs of this process end as canceled, and not as failed, if an interrupt came.

    An interrupted run asks the instance how it stands before it records how it ended: by then, it
    is marked as being cancelled.
    """
    look = instance.get_run_by_id

    def get_run_by_id(run_id: str) -> Any:
        run = look(run_id)
        if run is None or run.is_finished or not interrupts.came:
            return run
        if run.status is not dg.DagsterRunStatus.CANCELING:
            vars(instance).pop("get_run_by_id", None)
            instance.report_run_canceling(run, WORDS)
            run = look(run_id)
        return run

    vars(instance)["get_run_by_id"] = get_run_by_id
    try:
        yield
    finally:
        vars(instance).pop("get_run_by_id", None)
