"""How long the whole graph takes over many shards, against the least time that it could take.

The stages are simulated: they sleep for as long as a stage takes on an H100, times a scale, and
hold a simulated device (EGO_FAKE_GPUS) meanwhile. What decides when they run is real: runs, their
processes, the executor, the leases, the ledger and the lake. The least time is the largest of
GPU-seconds over devices, CPU-seconds over cores, and the longest chain of one shard. CPU-seconds
are those that all processes really used, and the cores those of this machine: Dagster's own work
(about ten seconds of a core a shard) is real, and is not scaled. So the scale must be large enough
for the stages to matter beside it. The other side is one shard after the other on one device, as it
was before runs went side by side; its shards take turns, so two of them tell the time of all.

By default 16 shards on 4 devices, which takes about ten minutes on two idle cores. All of it is
`--shards 64 --devices 1 2 4 8`, which takes some hours. The last line is the least time over the
time taken, with 4 devices; it fails under 0.90.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.duty_cycle import write_frames
from benchmarks.simulated_graph import (
    CHAINS,
    LOG_VARIABLE,
    SCALE_VARIABLE,
    SECONDS,
    SHARES,
    scale,
    simulated_backends,
)
from ego_assets.intake.shards import find_files, register_files
from resources.lake import Lake
from resources.processes import machine

BAR = 0.90
TURNS = 2
"""Shards that are run one after the other."""


def make_lake(folder: Path, shards: int) -> Lake:
    """A lake with so many shards of one short video each."""
    raw = folder / "raw"
    raw.mkdir(parents=True)
    for number in range(shards):
        write_frames(raw / f"{number:03d}.mp4", 12 + number)
    lake = Lake(folder / "lake")
    made = register_files(lake, find_files([raw]).files, min_shards=shards)
    assert len(made) == shards, made
    return lake


def run(folder: Path, shards: int, devices: int, at_once: int) -> dict[str, Any]:
    """Run the whole graph in a process of its own, which has no other children."""
    lake = make_lake(folder, shards)
    log = folder / "log"
    log.mkdir()
    environment = os.environ | {
        "EGO_FAKE_GPUS": str(devices),
        "EGO_LEASE_DIR": str(folder / "leases"),
        "EGO_MAX_RUNS": str(at_once),
        "DAGSTER_HOME": str(folder / "home"),
        LOG_VARIABLE: str(log),
    }
    command = [sys.executable, "-m", "benchmarks.whole_graph", "--one", lake.location]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    spans = [json.loads(x) for p in log.glob("*.jsonl") for x in p.read_text().splitlines()]
    assert len(spans) == shards * len(SECONDS), f"{len(spans)} stages of {shards} shards ran"
    gpu_s = sum((end - start) * SHARES.get(op, 0.0) for op, _, _, start, end in spans)
    on_cpu_s = sum(end - start for op, _, _, start, end in spans if op not in SHARES)
    bounds = {
        "gpu_s": gpu_s / devices,
        "cpu_s": (cpu_s + on_cpu_s) / machine.cpus(),
        "chain_s": max(scale() * sum(SECONDS[op] for op in chain) for chain in CHAINS),
    }
    least = max(bounds.values())
    return {"shards": shards, "devices": devices, "seconds": seconds, **bounds, "least_s": least}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--devices", type=int, nargs="*", default=[4])
    parser.add_argument("--scale", type=float, default=0.1, help="of the time on the real devices")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        from dagster_project.runs import run_shards

        lake = Lake(options.one)
        overrides = {"backends": simulated_backends()}
        summary = run_shards(lake.location, lake.shards(), overrides=overrides)
        assert not (summary.problems or summary.failures), summary
        return 0
    os.environ[SCALE_VARIABLE] = str(options.scale)
    found = []
    with tempfile.TemporaryDirectory(prefix="ego-graph-") as name:
        folder = Path(name)
        turns = run(folder / "turns", TURNS, 1, 1)
        in_turn_s = turns["seconds"] / TURNS * options.shards
        for devices in options.devices:
            found.append(run(folder / str(devices), options.shards, devices, devices + 1))
    judged = next((f for f in found if f["devices"] == 4), found[0])
    ratio = judged["least_s"] / judged["seconds"]
    if options.json:
        print(json.dumps({"runs": found, "in_turn_s": in_turn_s, "ratio": ratio, "bar": BAR}))
    else:
        for each in found:
            print(
                f"{each['devices']} devices, {each['shards']} shards: {each['seconds']:.0f} s; at "
                f"least {each['least_s']:.0f} s (devices {each['gpu_s']:.0f}, cores "
                f"{each['cpu_s']:.0f}, one shard {each['chain_s']:.0f}): "
                f"{each['least_s'] / each['seconds']:.2f}"
            )
        print(f"in turn on one device: {in_turn_s:.0f} s")
        print(f"least time over time taken: {ratio:.2f}")
    return 0 if ratio >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
