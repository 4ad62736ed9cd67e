"""How long `ego run` takes over shards that are finished, and whether it leaves them as they are.

    python benchmarks/noop.py [--shards 1000] [--files 2]

The lake is made without computing (`finished_lake`); the planner, the ledger, the lake and
Dagster's instance are real. Fails if a run was made, a file of the lake written, or an event
recorded. The last line is the time for each shard against the limit of 50 ms; below 1 passes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import dagster as dg

from benchmarks.finished_lake import make_finished_lake
from dagster_project.home import open_instance
from dagster_project.runs import run_paths
from ego_assets.catalog import TABLES
from resources.lake import Lake

LIMIT_S = 0.05


def picture(lake: Lake) -> dict[str, Any]:
    """All that a run would change: files of tables with their times, runs, events."""
    files = {
        str(path): path.stat().st_mtime_ns
        for table in TABLES
        for path in (lake.root / table).rglob("*")
        if path.is_file()
    }
    with open_instance(lake.location) as instance:
        last = [
            record.storage_id
            for table in TABLES
            for record in instance.fetch_materializations(dg.AssetKey(table), limit=1).records
        ]
        return {"files": files, "runs": instance.get_runs_count(), "events": last}


def measure(folder: Path, shards: int, files: int) -> dict[str, float]:
    """Seconds of making the lake, and of `ego run` over it."""
    began = time.monotonic()
    lake = make_finished_lake(folder, shards, files)
    made = time.monotonic()
    before = picture(lake)
    looked = time.monotonic()
    cpu_s = time.process_time()
    summary = run_paths([folder / "raw"], lake.location)
    seconds, cpu_s = time.monotonic() - looked, time.process_time() - cpu_s
    assert summary.ok, summary.problems or summary.failures[:3]
    assert summary.rows["clips"] == 2 * shards * files, summary.rows
    assert picture(lake) == before, "finished shards were touched"
    return {"shards": shards, "made_s": made - began, "seconds": seconds, "cpu_s": cpu_s}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--files", type=int, default=2, help="raw files of a shard")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ego-noop-") as name:
        found = measure(Path(name).resolve(), options.shards, options.files)
    ratio = found["seconds"] / options.shards / LIMIT_S
    if options.json:
        print(json.dumps(found | {"limit_s": LIMIT_S, "ratio": ratio}))
    else:
        each = found["seconds"] / options.shards * 1000
        print(
            f"{options.shards:,} finished shards (made in {found['made_s']:.0f} s): "
            f"{found['seconds']:.1f} s, {found['cpu_s']:.1f} s of a core, {each:.1f} ms a shard"
        )
        print(f"time over limit: {ratio:.2f}")
    return 0 if ratio < 1 else 1


if __name__ == "__main__":
    sys.exit(main())
