"""A worker process: takes come over a pipe, lanes run them, what happens is told over the pipe.

A worker may die at any moment (a decoder or a native solver may take it along): everything that
must outlive it is in the lake and the ledger before it says so on the pipe. Not here: what is done
with a take (`lane`).
"""

from __future__ import annotations

import os
import queue
import signal
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from ego_assets.engine.outage import StageBrokenError
from ego_assets.engine.plan import StageSpec
from ego_assets.engine.workers.lane import Lane
from ego_assets.engine.workers.messages import Broken
from ego_assets.engine.workers.results import CLIPS_BEHIND, Room, Take
from ego_assets.engine.workers.shared_task import SharedTask
from ego_assets.vision.threads import limit_threads
from resources.devices.leases import hold_ours
from resources.lake.s3.client import S3Account, use_account
from resources.processes import process_name
from resources.processes.forking import INTERRUPTS

MAIN = "ego_assets.engine.workers.worker:work"
NEEDS = ["numpy", "cv2", "av", "pyarrow", "pyarrow.parquet"]
"""What nearly every stage uses: loaded once, before workers are forked."""
THREADS_OF_LIBRARIES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Order:
    """What a worker is to be: the stage, how many threads a library may take, and how the
    supervisor reaches S3."""

    spec: StageSpec
    threads: int
    account: S3Account


def work(connection: Connection, order: Order) -> None:
    """Live a worker's life: take takes until there are none, or the supervisor is gone."""
    use_account(order.account)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor decides when to stop
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTS)
    hold_ours()  # until we are dead: others may be so before us
    limit_threads(order.threads)
    name, sending = process_name(), threading.Lock()

    def tell(message: Any) -> None:
        with sending:
            connection.send(message)

    tell(name)
    _run_lanes(connection, order.spec, name, tell)


def _run_lanes(
    connection: Connection, spec: StageSpec, name: str, tell: Callable[[Any], None]
) -> None:
    """Takes go to the lanes as they come, also those that must go on; the first is this thread."""
    takes: queue.SimpleQueue[Take | None] = queue.SimpleQueue()
    task = SharedTask(spec)
    room = None
    if spec.publish_behind:
        room = Room(spec.result_bytes, CLIPS_BEHIND * spec.lanes)

    def receive() -> None:
        try:
            while (group := connection.recv()) is not None:
                takes.put(Take(group))
        except (EOFError, OSError):
            pass  # the supervisor is gone
        for _ in range(spec.lanes):
            takes.put(None)

    def run_lane() -> None:
        try:
            lane = Lane(spec, name, tell, task, room, takes.put)
            while (take := takes.get()) is not None:
                lane.run_take(take)
        except StageBrokenError as error:
            tell(Broken(str(error)))
        except BaseException:  # whichever thread it is, the process ends
            traceback.print_exc()
            os._exit(1)

    threading.Thread(target=receive, name="receiver", daemon=True).start()
    others = [
        threading.Thread(target=run_lane, name=f"lane{n}", daemon=True)
        for n in range(1, spec.lanes)
    ]
    for thread in others:
        thread.start()
    run_lane()
    for thread in others:
        thread.join()
