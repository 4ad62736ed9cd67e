"""Has a process killed in the middle of what it does, as a power cut or an operator would."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import sqlalchemy as sa


def kill_before(number: int) -> None:
    """Have this process killed before its change number `number` of a file or a database."""
    left = number

    def count(*_: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(real: Any) -> Any:
        def call(*given: Any, **more: Any) -> Any:
            count()
            return real(*given, **more)

        return call

    for name in ("replace", "unlink"):
        setattr(Path, name, counted(getattr(Path, name)))
    sa.event.listen(sa.Engine, "commit", count)
