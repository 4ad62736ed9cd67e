"""Jobs for the tests of executors. Each can be had with the stock executor or with ours."""

import ctypes
import fcntl
import itertools
import json
import logging
import multiprocessing as mp
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import dagster as dg

from dagster_project.executors.gpu import gpu_executor
from resources.environment import why_without_gpu
from resources.processes.fork_server import server_ready

PINNED_AT_IMPORT = os.environ.get("CUDA_VISIBLE_DEVICES")
EXECUTORS = {"gpu": gpu_executor, "multiprocess": dg.multiprocess_executor}
KEPT: dict[str, Any] = {}
"""What a step leaves in the process on purpose, as a stage leaves its model."""


def make_job(name: str, executor: str = "gpu") -> dg.JobDefinition:
    graph = globals()[name]
    resources = {"broken": broken, "sometimes_broken": sometimes_broken}
    needed = {k: resources[k] for k in resources if name == "everything"}
    return graph.to_job(name=name, executor_def=EXECUTORS[executor], resource_defs=needed)


def execute(
    name: str,
    instance: dg.DagsterInstance,
    executor: str = "gpu",
    config: dict[str, Any] | None = None,
    **options: Any,
) -> dg.JobExecutionResult:
    """Run a job of this module; what goes wrong in it is in the result."""
    options["run_config"] = options.get("run_config", {}) | {"execution": {"config": config or {}}}
    return dg.execute_job(
        dg.build_reconstructable_job(
            "executor_jobs", "make_job", (name, executor), {}, str(Path(__file__).parent)
        ),
        instance=instance,
        raise_on_error=False,
        **options,
    )


# Everything that a step may do, in one graph: each step is compared between executors.


@dg.resource
def broken(_: Any) -> None:
    raise RuntimeError("cannot be made")


@dg.resource
def sometimes_broken(context: dg.InitResourceContext) -> None:
    assert context.dagster_run
    assert context.instance
    name = f"{context.dagster_run.run_id}.once"
    mark = Path(context.instance.storage_directory()) / name
    if not mark.exists():
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
        raise RuntimeError("not yet")


AGAIN = dg.RetryPolicy(max_retries=1)


@dg.op
def one(context: dg.OpExecutionContext) -> int:
    print("printed by one")
    context.log.info("logged by one")
    return 1


@dg.op
def plus_one(value: int) -> int:
    return value + 1


@dg.op
def fails(value: int) -> int:
    raise ValueError("on purpose")


@dg.op(retry_policy=AGAIN)
def fails_once(context: dg.OpExecutionContext, value: int) -> int:
    if context.retry_number == 0:
        raise ValueError("the first time")
    return value


@dg.op(retry_policy=AGAIN)
def fails_always(value: int) -> int:
    raise ValueError("every time")


@dg.op
def asks_for_retry(context: dg.OpExecutionContext, value: int) -> int:
    if context.retry_number < 2:
        raise dg.RetryRequested(max_retries=2, seconds_to_wait=0.1)
    return value


@dg.op(retry_policy=AGAIN)
def fails_for_good(value: int) -> int:
    raise dg.Failure("no use", metadata={"why": "on purpose"}, allow_retries=False)


@dg.op
def leaves_by_exit(value: int) -> int:
    sys.exit(3)


@dg.op
def leaves_by_os_exit(value: int) -> int:
    os._exit(3)


@dg.op
def segfaults(value: int) -> int:
    signal.raise_signal(signal.SIGSEGV)
    return value


@dg.op(retry_policy=AGAIN)
def is_killed_once(context: dg.OpExecutionContext, value: int) -> int:
    if context.retry_number == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return value


@dg.op(required_resource_keys={"broken"})
def lacks_a_resource(value: int) -> int:
    return value


@dg.op(required_resource_keys={"sometimes_broken"}, retry_policy=AGAIN)
def gets_its_resource_later(value: int) -> int:
    return value


@dg.op(out=dg.DynamicOut())
def fan(value: int) -> Iterator[dg.DynamicOutput[int]]:
    for n in range(3):
        yield dg.DynamicOutput(n + value, mapping_key=str(n))


@dg.op
def gather(values: list[int]) -> int:
    return sum(values)


@dg.op(out={"yes": dg.Out(is_required=False), "no": dg.Out(is_required=False)})
def branch(value: int) -> Iterator[dg.Output[int]]:
    yield dg.Output(value, "yes")


@dg.op
def on_yes(value: int) -> int:
    return value


@dg.op
def on_no(value: int) -> int:
    return value


@dg.success_hook
def cheer(context: dg.HookContext) -> None:
    context.log.info("it worked")


@dg.failure_hook
def sigh(context: dg.HookContext) -> None:
    raise RuntimeError("and the hook fails too")


@dg.graph
def everything() -> None:
    start = one.with_hooks({cheer})()
    plus_one.alias("plus_two")(plus_one(start))
    plus_one.alias("after_fails")(fails.with_hooks({sigh})(start))
    fails_once(start)
    fails_always(start)
    asks_for_retry(start)
    fails_for_good(start)
    leaves_by_exit(start)
    leaves_by_os_exit(start)
    plus_one.alias("after_segfaults")(segfaults(start))
    is_killed_once(start)
    lacks_a_resource(start)
    gets_its_resource_later(start)
    gather(fan(start).map(plus_one.alias("mapped")).collect())
    yes, no = branch(start)
    on_yes(yes)
    on_no(no)


@dg.op(config_schema={"mark": str})
def fails_until_marked(context: dg.OpExecutionContext, value: int) -> int:
    mark = Path(context.op_config["mark"])
    if not mark.exists():
        mark.touch()
        raise ValueError("no mark")
    return value


@dg.graph
def repairable() -> None:
    plus_one.alias("after")(fails_until_marked(one()))


# Stopping.


@dg.op(config_schema={"mark": str, "how": str}, tags={"ego/gpus": "1"})
def never_ends(context: dg.OpExecutionContext) -> None:
    mark, how = Path(context.op_config["mark"]), context.op_config["how"]
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    if how != "python":  # also not one that comes before we are in native code
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    aside = mark.with_suffix(".aside")
    aside.write_text(json.dumps([os.getpid(), child.pid]))
    aside.replace(mark)
    if how == "python":
        while True:
            time.sleep(0.05)
    elif how == "stuck":
        mutex = ctypes.create_string_buffer(64)
        for _ in range(2):  # a deadlock in native code, with the GIL
            ctypes.PyDLL(None).pthread_mutex_lock(mutex)
    else:
        sum(itertools.repeat(0))  # busy in native code: no Python signal handler runs


@dg.op(pool="scarce", config_schema={"mark": str}, tags={"ego/gpus": "1"})
def takes_a_slot(context: dg.OpExecutionContext) -> int:
    """How many slots of its pool are taken; with a mark, it never ends."""
    if context.op_config["mark"]:
        Path(context.op_config["mark"]).touch()
        time.sleep(600)
    return context.instance.event_log_storage.get_concurrency_info("scarce").active_slot_count


@dg.graph
def pooled() -> None:
    for n in range(3):
        takes_a_slot.alias(f"taker{n}")()


@dg.op(ins={"after": dg.In(dg.Nothing)})
def never_reached() -> None: ...


@dg.graph
def endless() -> None:
    never_reached(never_ends())


@dg.repository
def for_the_ui() -> list[dg.JobDefinition]:
    return [make_job("endless")]


# Warm workers, pins, and what must not leak.


@dg.op(tags={"ego/gpus": "1"})
def on_gpu() -> dict[str, Any]:
    return look()


@dg.op(ins={"after": dg.In()}, tags={"ego/gpus": "0.5", "ego/gpu_memory_gb": "8"})
def on_half_gpu(after: Any) -> dict[str, Any]:
    return look()


@dg.op(ins={"after": dg.In()}, tags={"ego/gpus": "2"})
def on_two_gpus(after: Any) -> dict[str, Any]:
    return look()


@dg.op(ins={"after": dg.In()})
def on_cpu(after: Any) -> dict[str, Any]:
    return look()


@dg.op(tags={"ego/gpus": "1", "ego/degrades": "true"})
def may_go_without() -> dict[str, Any]:
    return look()


@dg.op(ins={"after": dg.In()}, tags={"ego/gpus": "0"})
def comes_after(after: Any) -> dict[str, Any]:
    return look()


@dg.graph
def degradable() -> None:
    comes_after(may_go_without())


def look() -> dict[str, Any]:
    KEPT["steps"] = KEPT.get("steps", 0) + 1
    return {
        "pid": os.getpid(),
        "devices": os.environ["CUDA_VISIBLE_DEVICES"],
        "order": os.environ["CUDA_DEVICE_ORDER"],
        "without": why_without_gpu(),
        "at import": PINNED_AT_IMPORT,
        "steps": KEPT["steps"],
    }


@dg.graph
def pinned() -> None:
    first = on_gpu()
    cpu = on_cpu(on_half_gpu(first))
    on_two_gpus(cpu)
    on_cpu.alias("on_cpu_again")(cpu)


@dg.op
def makes_a_mess() -> int:
    os.environ["MESS"] = "1"
    del os.environ["HOME"]
    os.chdir("/")
    os.umask(0o077)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 1000)
    logging.getLogger().addHandler(logging.NullHandler())
    logging.getLogger().setLevel(1)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("error")
    sys.path.insert(0, "/nowhere")
    sys.stdout = sys.stderr
    sys.excepthook = print
    sys.setrecursionlimit(5000)
    socket.setdefaulttimeout(0.1)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    random.seed(0)
    return random.getrandbits(60)


@dg.op
def sees_no_mess(bits: int) -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "environment": ("MESS" in os.environ, "HOME" in os.environ),
        "folder": os.getcwd(),  # noqa: PTH109
        "umask": os.umask(0o022),
        "usr1": signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL,
        "timer": signal.getitimer(signal.ITIMER_REAL),
        "handlers": any(type(h) is logging.NullHandler for h in logging.getLogger().handlers),
        "level": logging.getLogger().level,
        "disabled": logging.root.manager.disable,
        "warnings": any(f[0] == "error" for f in warnings.filters),
        "path": "/nowhere" in sys.path,
        "stdout": sys.stdout is sys.__stdout__,
        "hook": sys.excepthook is sys.__excepthook__,
        "recursion": sys.getrecursionlimit() == 5000,
        "timeout": socket.getdefaulttimeout(),
        "cpus": len(os.sched_getaffinity(0)),
        "same draw": random.getrandbits(60) == bits,
    }


@dg.graph
def messy() -> None:
    sees_no_mess(makes_a_mess())


@dg.op
def leaves_a_process() -> tuple[int, int]:
    return os.getpid(), subprocess.Popen(["sleep", "600"], start_new_session=True).pid


@dg.op
def leaves_a_thread(left: Any) -> int:
    # Until somebody waits for it, as a process's end does.
    threading.Thread(target=threading.main_thread().join, name="slow").start()
    return os.getpid()


@dg.op
def is_somebody_else(left: int) -> int:
    return os.getpid()


@dg.graph
def untidy() -> None:
    is_somebody_else(leaves_a_thread(leaves_a_process()))


@dg.op(ins={"after": dg.In()})
def uses_a_pool(after: Any) -> list[int]:
    with mp.get_context("forkserver").Pool(2) as pool:
        # A function of ours would have each process of the pool import Dagster.
        return [*pool.map(partial(pow, exp=2), range(3)), os.getpid()]


@dg.graph
def pools() -> None:
    uses_a_pool.alias("second")(uses_a_pool.alias("first")(one()))


@dg.op(ins={"after": dg.In()}, config_schema={"device": str}, tags={"ego/gpus": "1"})
def loads_a_model(context: dg.OpExecutionContext, after: Any) -> list[Any]:
    """As CUDA would: from the first step on, a device's file stays open in the process."""
    from dagster_project.executors import worker

    device = context.op_config["device"]
    worker.DEVICE_FILE = re.compile(re.escape(device))
    loaded = "model" in KEPT
    if not loaded:
        KEPT["model"] = open(device)  # noqa: SIM115, PTH123
    return [os.getpid(), loaded]


@dg.graph
def models() -> None:
    last = loads_a_model.alias("load")(one())
    loads_a_model.alias("use")(on_cpu(last))


@dg.graph
def fan_of_models() -> None:
    start = one()
    for n in range(3):
        loads_a_model.alias(f"use{n}")(start)


@dg.op(config_schema={"folder": str}, tags={"dagster/priority": "-1"})
def works_until_told(context: dg.OpExecutionContext) -> None:
    _work_until_told(Path(context.op_config["folder"]))


@dg.op(ins={"after": dg.In()}, config_schema={"folder": str})
def waits_until_told(context: dg.OpExecutionContext, after: Any) -> int:
    _work_until_told(Path(context.op_config["folder"]))
    return 0


def _work_until_told(folder: Path) -> None:
    (folder / "began").touch()
    while not (folder / "told").exists():
        time.sleep(0.05)


@dg.graph
def crowded_out() -> None:
    on_gpu()
    works_until_told()


@dg.graph
def models_apart() -> None:
    last = loads_a_model.alias("load")(one())
    loads_a_model.alias("use")(waits_until_told(last))


@dg.op(ins={"after": dg.In()})
def grows(after: Any) -> int:
    KEPT.setdefault("ballast", []).append(b"x" * 64_000_000)
    return os.getpid()


@dg.graph
def growing() -> None:
    grows.alias("third")(grows.alias("second")(grows.alias("first")(one())))


@dg.op(ins={"after": dg.In()}, config_schema={"lock": str}, tags={"ego/cpus": "1000"})
def takes_every_cpu(context: dg.OpExecutionContext, after: Any) -> None:
    with Path(context.op_config["lock"]).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(0.1)


@dg.graph
def heavy() -> None:
    start = one()
    takes_every_cpu.alias("left")(start)
    takes_every_cpu.alias("right")(start)


# Many steps on few devices.


@dg.op(out=dg.DynamicOut(), config_schema={"steps": int}, tags={"ego/gpus": "0"})
def many(context: dg.OpExecutionContext) -> Iterator[dg.DynamicOutput[None]]:
    for n in range(context.op_config["steps"]):
        yield dg.DynamicOutput(None, mapping_key=str(n))


# Each event of a step costs Dagster a transaction: these neither load nor store anything.
OF_A_CROWD: dict[str, Any] = {
    "ins": {"after": dg.In(dg.Nothing)},
    "out": dg.Out(dg.Nothing),
    "config_schema": {"folder": str},
    "retry_policy": dg.RetryPolicy(max_retries=9),
}


@dg.op(**OF_A_CROWD, tags={"ego/gpus": "1"})
def alone(context: dg.OpExecutionContext) -> None:
    _occupy(context, 2)


@dg.op(**OF_A_CROWD, tags={"ego/gpus": "0.5"})
def shared(context: dg.OpExecutionContext) -> None:
    _occupy(context, 1)


def _occupy(context: dg.OpExecutionContext, halves: int) -> None:
    """Take both halves of our device, or one; if they are taken, the executor has failed."""
    folder = Path(context.op_config["folder"])
    device = os.environ["CUDA_VISIBLE_DEVICES"]
    began = time.monotonic()
    taken = []
    for name in "ab":
        half = os.open(folder / f"{device}{name}", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(half, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(half)
        else:
            taken.append(half)
        if len(taken) == halves:
            break
    else:
        (folder / "overlap").write_text(f"device {device}: {context.op_handle}")
        raise dg.Failure("the device is somebody else's", allow_retries=False)
    time.sleep(random.uniform(0.0, 0.04))
    for half in taken:
        os.close(half)
    interval = [device, halves, began, time.monotonic(), context.run_id, os.getpid()]
    with (folder / "intervals").open("a") as out:
        out.write(json.dumps(interval) + "\n")


@dg.graph
def crowd() -> None:
    each = many()
    each.map(alone)
    each.map(shared)


def execute_in(home: Path, name: str, given: dict[str, Any], *, is_forked: bool) -> NoReturn:
    """One run, which is all that this process does, with the Dagster storage of a folder.

    is_forked: the server of its workers is; else it is started, and imports everything itself.
    """
    os.environ["DAGSTER_HOME"] = str(home)
    # Forked before anything is opened.
    with server_ready() if is_forked else nullcontext(), dg.DagsterInstance.get() as own:
        found = execute(name, own, **given)
    sys.exit(0 if found.success else 1)


if __name__ == "__main__":  # python executor_jobs.py HOME NAME GIVEN IS_FORKED
    import executor_jobs

    executor_jobs.execute_in(
        Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]), is_forked=sys.argv[4] == "True"
    )
