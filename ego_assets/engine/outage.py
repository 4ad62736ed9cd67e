"""How long a stage waits for what is away, and when it gives up. Not here: which errors those are
(`errors`)."""

from __future__ import annotations

import random
import threading
import time

OUTAGE_S = 600.0
"""How long a network or server may be away with nothing charged."""
AWAY_S = OUTAGE_S
"""How long the place of a raw file may be away that was there within the last hour."""
UNSEEN_S = 60.0
"""And of one that was not: nobody may be there to bring it back while the run waits."""
LONGEST_WAIT_S = 30.0


class StageBrokenError(RuntimeError):
    """The machine, not an item, keeps the stage from going on."""


class Outage:
    """How long nothing has come through. An item that outlasts it goes to quarantine: it may be
    the only one that is concerned. The next one that does ends the stage."""

    def __init__(self) -> None:
        self.since: float | None = None
        self.tries = 0
        self.outlasted = 0
        self._one_at_a_time = threading.Lock()

    def goes_on(self, error: Exception) -> bool:
        """Whether to wait still. Raises StageBrokenError."""
        now = time.monotonic()
        with self._one_at_a_time:
            if self.since is None:
                self.since, self.tries = now, 0
            self.tries += 1
            if now - self.since < OUTAGE_S:
                return True
            self.outlasted += 1
            if self.outlasted > 1:
                raise StageBrokenError(
                    f"{type(error).__name__}: {error}: for {self.outlasted * OUTAGE_S:.0f} s; "
                    "what is done is kept, run again when it is back"
                ) from error
            self.since = None
            return False

    def is_over(self) -> None:
        """Something has come through."""
        with self._one_at_a_time:
            self.since, self.tries, self.outlasted = None, 0, 0


def back_off_s(tries: int, first_s: float) -> float:
    """Longer after each try; with jitter, so that not all come back at once."""
    wait_s: float = min(first_s * 2 ** (tries - 1), LONGEST_WAIT_S)
    return wait_s * random.uniform(0.8, 1.2)
