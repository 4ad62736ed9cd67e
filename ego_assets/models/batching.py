"""Micro-batches across clips, for models that remember nothing between calls.

Lanes of a worker (threads, a take each) bring items; one of them runs the model over what has
gathered, and each gets its own results back in order. Not here: models, devices.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

MAX_AGE_S = 0.12


@dataclass(eq=False)
class _Ticket(Generic[T, R]):
    """One call: its items, and what has come of them."""

    items: Sequence[T]
    since: float
    taken: int = 0
    results: list[R] = field(default_factory=list)
    error: Exception | None = None

    @property
    def is_over(self) -> bool:
        return self.error is not None or len(self.results) == len(self.items)


class MicroBatcher(Generic[T, R]):
    """Callable from many threads: `results = batcher(items)`.

    A batch closes when `max_items` have gathered, or the oldest has waited `max_age_s`. run: called
    by one thread at a time with at most `max_items` items; returns a result for each. If it raises,
    the items of each call are tried apart, so that one call's bad item fails that call alone.
    A thread that is stopped in `run` (KeyboardInterrupt, SystemExit) leaves the others' items to
    one of them.
    """

    def __init__(
        self,
        run: Callable[[list[T]], Sequence[R]],
        max_items: int,
        max_age_s: float = MAX_AGE_S,
    ) -> None:
        self.run = run
        self.max_items = max_items
        self.max_age_s = max_age_s
        self._changed = threading.Condition()
        self._waiting: list[_Ticket[T, R]] = []
        self._busy = False

    def __call__(self, items: Sequence[T]) -> list[R]:
        """Results of `items`, in their order. Raises what `run` raises."""
        ticket: _Ticket[T, R] = _Ticket(items, time.monotonic())
        with self._changed:
            if items:
                self._waiting.append(ticket)
                self._changed.notify_all()
            try:
                while not ticket.is_over:
                    left_s = self._until_due()
                    if self._busy or left_s > 0:
                        self._changed.wait(None if self._busy else left_s)
                    else:
                        self._run_batch()
            except BaseException:  # nobody asks for these items any more
                self._waiting = [t for t in self._waiting if t is not ticket]
                raise
        if ticket.error is not None:
            raise ticket.error
        return ticket.results

    def _until_due(self) -> float:
        """Seconds until a batch closes, if nobody brings more."""
        if not self._waiting:
            return self.max_age_s
        if sum(len(t.items) - t.taken for t in self._waiting) >= self.max_items:
            return 0.0
        return self._waiting[0].since + self.max_age_s - time.monotonic()

    def _run_batch(self) -> None:
        """Run what has gathered, up to the limit; the lock is ours, and free meanwhile."""
        parts: list[tuple[_Ticket[T, R], int, int]] = []
        room = self.max_items
        for ticket in self._waiting:
            start = ticket.taken
            ticket.taken = min(len(ticket.items), start + room)
            room -= ticket.taken - start
            parts.append((ticket, start, ticket.taken))
            if not room:
                break
        self._waiting = [t for t in self._waiting if t.taken < len(t.items)]
        self._busy = True
        self._changed.release()
        outcomes = None
        try:
            outcomes = self._outcomes([list(t.items[a:b]) for t, a, b in parts])
        finally:
            self._changed.acquire()
            self._busy = False
            if outcomes is None:  # this thread is told to stop: another takes the batch up
                held = [ticket for ticket, _, _ in parts]
                for ticket, start, _ in parts:
                    ticket.taken = start
                self._waiting = held + [t for t in self._waiting if t not in held]
            self._changed.notify_all()
        for (ticket, _, _), outcome in zip(parts, outcomes, strict=True):
            if isinstance(outcome, Exception):
                ticket.error = outcome
                self._waiting = [t for t in self._waiting if t is not ticket]
            else:
                ticket.results.extend(outcome)

    def _outcomes(self, parts: list[list[T]]) -> list[Sequence[R] | Exception]:
        try:
            results = self._checked([item for part in parts for item in part])
        except Exception as error:
            if len(parts) == 1:
                return [error]
            return [outcome for part in parts for outcome in self._outcomes([part])]
        found: list[Sequence[R] | Exception] = []
        start = 0
        for part in parts:
            found.append(results[start : start + len(part)])
            start += len(part)
        return found

    def _checked(self, items: list[T]) -> Sequence[R]:
        results = self.run(items)
        if len(results) != len(items):
            raise RuntimeError(f"{len(items)} items gave {len(results)} results")
        return results
