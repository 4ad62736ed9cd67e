"""What a step costs besides its work: this executor against what one would use instead.

    python benchmarks/step_overhead.py [--steps 8] [--json]

A chain and a fan of steps that do nothing, with the project's definitions and torch imported, run
by the executor `gpu`, by Dagster's multiprocess executor (spawn, and forkserver with the same
modules preloaded) and in one process. Seconds a step are those between a run of many steps and a
run of one, over the difference in steps: what each further step costs. What a run costs before
its first step is said apart. The last line is the smaller of the two ratios to their bars
(10 times faster than spawn, 3 times faster than forkserver); 1 or more passes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import dagster as dg  # noqa: E402
import torch  # noqa: E402, F401  (as a GPU stage would have it)

import dagster_project.definitions  # noqa: E402, F401
from dagster_project.executors.gpu import gpu_executor  # noqa: E402

BAR_SPAWN, BAR_FORKSERVER = 10.0, 3.0
WIDTH = 2
MODULES = ["torch", "dagster_project.definitions", "benchmarks.step_overhead"]
CONTENDERS: dict[str, tuple[dg.ExecutorDefinition, dict[str, Any]]] = {
    "gpu": (gpu_executor, {"preload_modules": MODULES}),
    "forkserver": (
        dg.multiprocess_executor,
        {"start_method": {"forkserver": {"preload_modules": MODULES}}},
    ),
    "spawn": (dg.multiprocess_executor, {"start_method": {"spawn": {}}}),
    "in_process": (dg.in_process_executor, {}),
}


@dg.op(ins={"after": dg.In(dg.Nothing)})
def nothing() -> None: ...


def make_job(shape: str, steps: int, contender: str) -> dg.JobDefinition:
    @dg.graph(name=f"{shape}_{steps}")
    def graph() -> None:
        last = None
        for n in range(steps):
            step = nothing.alias(f"step_{n}")
            made = step() if last is None else step(last)
            last = made if shape == "chain" or n == 0 else last

    return graph.to_job(executor_def=CONTENDERS[contender][0])


def run_s(shape: str, steps: int, contender: str, instance: dg.DagsterInstance) -> float:
    """Seconds of a whole run."""
    config = dict(CONTENDERS[contender][1])
    if contender != "in_process":
        config["max_concurrent"] = WIDTH
    job = dg.build_reconstructable_job(
        "benchmarks.step_overhead", "make_job", (shape, steps, contender), {}, str(ROOT)
    )
    run_config = {
        "execution": {"config": config},
        "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
    }
    began = time.perf_counter()
    result = dg.execute_job(job, instance=instance, run_config=run_config)
    seconds = time.perf_counter() - began
    assert result.success
    return seconds


def measure(steps: int, repeats: int, instance: dg.DagsterInstance) -> dict[str, dict[str, float]]:
    """Seconds of a further step in a chain and in a fan, and of a run of one step."""
    found: dict[str, dict[str, float]] = {}
    for contender in CONTENDERS:
        run_s("chain", 1, contender, instance)  # imports, and a fork server that stays
        alone = [run_s("chain", 1, contender, instance) for _ in range(repeats)]
        found[contender] = {"run_of_one_s": statistics.median(alone)}
        for shape in ("chain", "fan"):
            many = [run_s(shape, steps, contender, instance) for _ in range(repeats)]
            more = statistics.median(many) - statistics.median(alone)
            found[contender][f"{shape}_step_s"] = max(more, 1e-3) / (steps - 1)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as home,
        dg.instance_for_test(temp_dir=home) as instance,
    ):
        os.environ.setdefault("EGO_LEASE_DIR", str(Path(home) / "leases"))
        found = measure(options.steps, options.repeats, instance)
    shapes = ("chain_step_s", "fan_step_s")
    times = {other: {s: found[other][s] / found["gpu"][s] for s in shapes} for other in found}
    ratio = min(
        min(times["spawn"][s] / BAR_SPAWN, times["forkserver"][s] / BAR_FORKSERVER) for s in shapes
    )
    if options.json:
        print(json.dumps({"seconds": found, "times_faster": times, "ratio": ratio}))
    else:
        print(f"{'':12}{'chain, s/step':>16}{'fan, s/step':>16}{'run of one, s':>16}")
        for name, row in found.items():
            cells = (row["chain_step_s"], row["fan_step_s"], row["run_of_one_s"])
            print(f"{name:12}" + "".join(f"{c:16.3f}" for c in cells))
        for other, bar in (("spawn", BAR_SPAWN), ("forkserver", BAR_FORKSERVER)):
            chain, fan = (times[other][s] for s in shapes)
            print(f"{chain:.1f} (chain) and {fan:.1f} (fan) times faster than {other}; bar {bar:g}")
        print(f"smallest ratio to its bar: {ratio:.2f}")
    return 0 if ratio >= 1 else 1


if __name__ == "__main__":
    sys.exit(main())
