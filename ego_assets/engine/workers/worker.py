"""A worker process: takes come over a pipe, lanes run them, what happens is told over the pipe.

A worker may die at any moment (a decoder or a native solver may take it along): everything that
must outlive it is in the lake and the ledger before it says so on the pipe. Not here: what is done
with a take (`lane`).
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from typing import Any

from ego_assets.engine.outage import StageBrokenError
from ego_assets.engine.plan import StageSpec
from ego_assets.engine.workers.lane import Lane
from ego_assets.engine.workers.messages import Broken
from ego_assets.engine.workers.results import CLIPS_BEHIND, Room, Take
from ego_assets.engine.workers.shared_task import SharedTask
from ego_assets.engine.workers.worker_log import WorkerLog
from ego_assets.vision.threads import limit_threads
from resources.devices.leases import LEASE_VARIABLE, hold
from resources.lake.s3.client import S3Account, use_account
from resources.processes import process_name
from resources.processes.owned_folders import own_folder_of_multiprocessing


def worker_main(
    connection: Connection,
    spec: StageSpec,
    stderr: WorkerLog,
    threads: int,
    environment: dict[str, str],
    account: S3Account,
) -> None:
    """Entry point of a worker process.

    environment: the supervisor's; a worker would else have that of the fork server's start.
    account: how the supervisor reaches S3.
    """
    os.environ.clear()
    os.environ.update(environment)
    use_account(account)
    _die_with_parent()
    own_folder_of_multiprocessing()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor decides when to stop
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.dup2(stderr.fileno(), 2)
    stderr.close()
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    faulthandler.enable(file=sys.stderr)
    if lease := environment.get(LEASE_VARIABLE):
        hold(lease)  # until we are dead: others may be so before us
    _limit_threads(threads)
    name, sending = process_name(), threading.Lock()

    def tell(message: Any) -> None:
        with sending:
            connection.send(message)

    tell(name)
    _run_lanes(connection, spec, name, tell)


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


def _limit_threads(threads: int) -> None:
    limit_threads(threads)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)


def _die_with_parent() -> None:
    """PR_SET_PDEATHSIG: the kernel kills us when our parent dies, so orphans cannot be.

    Our parent is the fork server, which lives as long as anybody holds the pipe that it watches;
    by default its children do too, and would keep it, and themselves, alive without a supervisor.
    """
    alive = forkserver._forkserver._forkserver_alive_fd  # type: ignore[attr-defined]
    if alive is not None:
        os.close(alive)
        forkserver._forkserver._forkserver_alive_fd = None  # type: ignore[attr-defined]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL, 0, 0, 0)
