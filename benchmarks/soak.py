"""A long run of many short clips under a memory limit, with some poison: nothing lost, none leaks.

Makes thousands of one-second videos (few are rendered, the others have other bytes behind the
same picture), one in a hundred of which is poison: cut off, noise, text, empty, or a video that
kills whoever segments it. Runs the whole graph over them in a control group of 2 GiB (where this
user may make one; else the sum over the processes is only watched). Then everything is counted,
and the lake verified. The last line is the memory of the last quarter of the run over that of the
second (below 1.15 passes); it fails as well if anything is unaccounted for, or over the limit.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.poison import KILLER
from ego_assets.catalog import TABLES
from ego_assets.upkeep.audit import verify
from resources.lake import Lake
from resources.ledger import Ledger, State
from samples import render_sample

LIMIT_BYTES = 2 * 2**30
MOST_GROWTH = 1.15
POISON_SHARE = 0.01
RENDERED = 8
POISON = {
    "cut": "truncated",
    "noise": "unreadable",
    "text": "not_media",
    "empty": "empty",
    KILLER: "",
}
"""{kind: the manifest's reason for rejecting it; "" if it is taken and ends in quarantine}."""


def make_videos(folder: Path, count: int) -> dict[str, str]:
    """Write `count` videos. Returns {name: kind of poison, or ""}."""
    folder.mkdir(parents=True)
    rendered = folder.parent / "rendered"
    bases = [
        render_sample(rendered, seed=s, duration_s=1.0, width=320, height=180, fps=10.0)
        for s in range(RENDERED)
    ]
    dice = random.Random(3)
    bad = set(dice.sample(range(count), max(len(POISON), round(POISON_SHARE * count))))
    kinds: dict[str, str] = {}
    for number in range(count):
        base = bases[number % RENDERED]
        kind = list(POISON)[len([n for n in kinds.values() if n]) % len(POISON)]
        kind = kind if number in bad else ""
        # A box of type `free` says nothing to a player, and makes another file of it.
        data = base.read_bytes() + struct.pack(">I4sQ", 16, b"free", number)
        data = {
            "cut": data[: len(data) // 3],
            "noise": dice.randbytes(20_000),
            "text": f"no video {number}\n".encode() * 50,
            "empty": b"",
        }.get(kind, data)
        path = folder / f"{kind or 'v'}{number:05d}.mp4"
        path.write_bytes(data)
        if kind in {"", KILLER}:
            sidecar = base.with_suffix(".camera.json").read_bytes()
            path.with_suffix(".camera.json").write_bytes(sidecar)
        kinds[path.name] = kind
    return kinds


def run(videos: Path, lake: Path, workers: int) -> None:
    """In a process of its own: the whole graph."""
    from dagster_project.runs import run_paths
    from ego_assets.graph.backends import Backends

    backends = Backends(segmenter="benchmarks.poison:PoisonSegmenter")
    summary = run_paths([videos], lake, workers=workers, overrides={"backends": backends})
    print(json.dumps(summary.problems))


class ControlGroup:
    """A memory limit for a process and all its children, of cgroup version 1 or 2."""

    def __init__(self, limit_bytes: int) -> None:
        name = f"ego-soak-{os.getpid()}"
        first, second = Path("/sys/fs/cgroup/memory", name), Path("/sys/fs/cgroup", name)
        self.folder: Path | None = None
        for folder, file in ((first, "memory.limit_in_bytes"), (second, "memory.max")):
            with suppress(OSError):
                folder.mkdir()
                self.folder = folder
                (folder / file).write_text(str(limit_bytes))
                return
            with suppress(OSError):
                folder.rmdir()
            self.folder = None

    def enter(self) -> None:
        """To be called in the process, before it starts others."""
        if self.folder:
            (self.folder / "cgroup.procs").write_text(str(os.getpid()))

    def close(self) -> None:
        if self.folder:
            with suppress(OSError):
                self.folder.rmdir()


def watch(process: subprocess.Popen[bytes], series: list[int]) -> None:
    """Every second: the memory that the process and its children have for themselves."""
    while process.poll() is None:
        total = 0
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(process.pid)
            for each in [parent, *parent.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess, FileNotFoundError):
                    total += each.memory_full_info().pss
        series.append(total)
        time.sleep(1)


def unaccounted(lake: Lake, ledger: Ledger, kinds: Mapping[str, str]) -> list[str]:
    """Every file, clip and table that is not where it should be, as sentences."""
    found: list[str] = []
    manifest = [v for s in lake.shards() for v in lake.read("video_manifest", s).to_pylist()]
    rows = Counter(Path(v["uri"]).name for v in manifest)
    found += [f"{name} has {rows[name]} rows in the manifest" for name in kinds if rows[name] != 1]
    for video in manifest:
        name = Path(video["uri"]).name
        wanted = POISON.get(kinds[name], "") if kinds[name] else ""
        if (video["reject_reason"] or "") != wanted:
            found.append(f"{name}: {video['reject_reason']}, not {wanted or 'accepted'}")
    killers = {v["video_id"] for v in manifest if kinds[Path(v["uri"]).name] == KILLER}
    for entry in ledger.entries():
        dead = entry.video_id in killers and entry.stage in {
            "detections",
            "object_masks",
            "hand_masks",
        }
        after = entry.video_id in killers and entry.stage in list(TABLES)[5:]
        wanted_state = State.QUARANTINED if dead else State.PENDING if after else State.DONE
        if entry.state is not wanted_state:
            found.append(f"{entry.stage} {entry.item_id} is {entry.state}, not {wanted_state}")
        if dead and "SIGSEGV" not in (entry.error or ""):
            found.append(f"{entry.stage} {entry.item_id}: the signal is not named")
    return found + [str(p) for p in verify(lake, ledger)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--run", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        run(*arguments.run, arguments.workers)
        return
    with tempfile.TemporaryDirectory(prefix="ego-soak-") as name:
        folder = Path(name)
        kinds = make_videos(folder / "raw", arguments.clips)
        group = ControlGroup(LIMIT_BYTES)
        lake = Lake(folder / "lake")
        command = [sys.executable, "-m", "benchmarks.soak", "--workers", str(arguments.workers)]
        command += ["--run", str(folder / "raw"), str(lake.root)]
        began = time.monotonic()
        series: list[int] = []
        process = subprocess.Popen(command, preexec_fn=group.enter, stdout=subprocess.DEVNULL)
        watcher = threading.Thread(target=watch, args=(process, series))
        watcher.start()
        status = process.wait()
        watcher.join()
        seconds = time.monotonic() - began
        lost = unaccounted(lake, Ledger.beside(lake.root), kinds)
        group.close()
    quarters = [float(np.percentile(q, 90)) for q in np.array_split(np.array(series), 4)]
    result: dict[str, Any] = {
        "clips": arguments.clips,
        "poison": Counter(k for k in kinds.values() if k),
        "seconds": round(seconds, 1),
        "limit_mib": LIMIT_BYTES / 2**20,
        "limit_enforced": group.folder is not None,
        "peak_mib": round(max(series) / 2**20),
        "quarters_mib": [round(q / 2**20) for q in quarters],
        "unaccounted": lost,
        "exit_status": status,
        "ratio": round(quarters[3] / quarters[1], 3),
    }
    if arguments.json:
        print(json.dumps(result))
    else:
        for key, value in result.items():
            print(f"{key}: {value[:20] if isinstance(value, list) else value}")
        print(f"memory of the last quarter over the second: {result['ratio']:.2f}")
    good = status == 0 and not lost and max(series) < LIMIT_BYTES
    sys.exit(0 if good and result["ratio"] < MOST_GROWTH else 1)


if __name__ == "__main__":
    main()
