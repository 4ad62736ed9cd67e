"""What workers do in `test_worker_pool`: a step is the name of a function here."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from multiprocessing import util
from pathlib import Path
from typing import Any

import numpy as np

from dagster_project.executors.worker import pop_early_interrupt
from ego_assets.engine.plan import StageSpec
from ego_assets.engine.workers.worker import MAIN, Order
from resources.lake.s3.client import S3Account
from resources.processes.fork_server import fork_from_shared

Tell = Callable[[Any], None]


def step(command: tuple[str, Any], tell: Tell) -> bool:
    name, argument = command
    globals()[name](argument, tell)
    return True


def works(seconds: float, tell: Tell) -> None:
    tell(os.getpid())
    time.sleep(seconds)


def draws(_: Any, tell: Tell) -> None:
    tell(tuple(np.random.randint(0, 2**31, 4)))


def was_interrupted(_: Any, tell: Tell) -> None:
    tell(pop_early_interrupt())


def has_a_temporary_folder(_: Any, tell: Tell) -> None:
    """The one in which the standard library's processes meet."""
    tell(util.get_temp_dir())


def touches_at_its_end(path: str, tell: Tell) -> None:
    """As what flushes a log or removes a temporary folder when its process ends."""
    atexit.register(Path(path).touch)


def never_leaves(_: Any, tell: Tell) -> None:
    atexit.register(time.sleep, 600)


def dies_talking(_: Any, tell: Tell) -> None:
    """Killed while most of a message that nobody reads is still in this process."""
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGKILL)).start()
    tell(bytes(20_000_000))


def runs_a_stage(spec: StageSpec, tell: Tell) -> None:
    """A worker of a stage, as the stage's supervisor starts it, that waits for its first take."""
    process = fork_from_shared(MAIN, [], Order(spec, 1, S3Account()))
    process.connection.recv()  # its name
    tell(process.pid)
    time.sleep(600)


def has_a_grandchild(_: Any, tell: Tell) -> None:
    """Its parent ends by itself a moment after this process does."""
    script = "sleep 600 & echo $!; read nothing; sleep 0.1"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    child = subprocess.Popen(["sh", "-c", script], start_new_session=True, **pipes)  # type: ignore[call-overload]
    tell(int(child.stdout.readline()))
    time.sleep(600)
