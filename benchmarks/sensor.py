"""What a tick of the raw-data sensor takes beyond listing, with many files known and 100 new; and
how long the looks of a first import take.

    python benchmarks/sensor.py [--known 1000 10000 100000 340000] [--new 100] [--first 340000]
        [--json]

Makes a folder of so many files that a lake holds already, adds the new ones, and measures the tick
that notes them and the tick that puts them into shards, less the listing in it (medians of three
rounds). Then a folder of so many videos (links to a small one) meets an empty lake, and looks
follow each other, 30 s apart, until every video is in a shard. The last line is the worst of two
ratios: the slowest tick to its limit of 2 s, the longest look to its limit of 50 s (Dagster ends a
tick after 60 s); below 1 passes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

LIMIT_S = 2.0
LOOK_LIMIT_S = 50.0
TICK_S = 30.0
FILES_A_SHARD = 64


def make(folder: Path, start: int, count: int) -> list[Path]:
    """Empty files, 1000 a folder."""
    made = []
    for number in range(start, start + count):
        path = folder / f"{number // 1000:04d}" / f"video_{number:07d}.mp4"
        if number % 1000 == 0 or number == start:
            path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        made.append(path)
    return made


def measure(root: Path, known: int, new: int, rounds_of: int = 3) -> dict[str, Any]:
    from ego_assets.intake.arrivals import Arrivals
    from ego_assets.intake.batches import Limits
    from resources.lake import Lake
    from resources.ledger import Ledger
    from resources.raw.reader import scan_raw

    raw, lake = root / "raw", Lake(root / "lake")
    paths = make(raw, 0, known)
    (lake.root / "shards").mkdir(parents=True)
    for number, start in enumerate(range(0, known, FILES_A_SHARD)):
        batch = paths[start : start + FILES_A_SHARD]
        files = [{"uri": str(p), "byte_size": 0, "duration_s": 60.0} for p in batch]
        content = json.dumps({"files": files, "wants_run": True})
        (lake.root / "shards" / f"20260101-{number:04d}.json").write_text(content)
    now = time.time()
    limits = Limits(settle_s=30, wait_s=30)
    arrivals = Arrivals(lake, Ledger.beside(root / "lake"), limits, clock=lambda: now)
    began = time.perf_counter()
    for _ in range(2):  # the first makes the table, the second learns the versions
        arrivals.look([str(raw)], budget_s=3600)
    first_s = time.perf_counter() - began

    def tick() -> tuple[Any, dict[str, float]]:
        """A look, and its seconds: of the listing in it, and beyond that."""
        listing_s = 0.0

        def timed(*arguments: Any) -> Iterator[Any]:
            nonlocal listing_s
            entries = scan_raw(*arguments)
            while True:
                began = time.perf_counter()
                entry = next(entries, None)
                listing_s += time.perf_counter() - began
                if entry is None:
                    return
                yield entry

        began, cpu_began = time.perf_counter(), time.process_time()
        with patch("ego_assets.intake.arrivals.scan_raw", timed):
            look = arrivals.look([str(raw)], budget_s=3600)  # listing is not what is measured
        beyond_s = time.perf_counter() - began - listing_s
        cpu_s = time.process_time() - cpu_began
        return look, {"listing_s": listing_s, "beyond_s": beyond_s, "cpu_s": cpu_s}

    rounds = []
    for number in range(rounds_of):
        make(raw, known + number * new, new)
        noted, noting = tick()
        now += 60
        closed, closing = tick()
        idle, idling = tick()
        assert noted.new == new, noted
        assert len(closed.shards) == -(-new // FILES_A_SHARD), closed
        assert (idle.new, idle.waiting, idle.shards) == (0, 0, []), idle
        rounds.append({"noting": noting, "closing": closing, "idle": idling})
    return {
        "known": known,
        "first_ticks_s": first_s,
        "idle_cpu_s": statistics.median(r["idle"]["cpu_s"] for r in rounds),
        "listing_s": min(t["listing_s"] for r in rounds for t in r.values()),
        **{
            f"{kind}_s": statistics.median(r[kind]["beyond_s"] for r in rounds)
            for kind in ("noting", "closing", "idle")
        },
    }


def make_videos(folder: Path, count: int) -> None:
    """Small videos, 1000 a folder: each the first one of its folder by another name."""
    from tests.engine.stage_bench import write_video

    for number in range(count):
        path = folder / f"{number // 1000:04d}" / f"video_{number:07d}.mp4"
        if number % 1000 == 0:
            path.parent.mkdir(parents=True)
            first = path
            write_video(first, frames=8)
        else:
            os.link(first, path)


def first_import(root: Path, count: int) -> dict[str, Any]:
    """Looks at a folder that is new to a lake, until all of it is in shards."""
    from ego_assets.intake.arrivals import Arrivals
    from ego_assets.intake.batches import Limits
    from resources.lake import Lake
    from resources.ledger import Ledger

    make_videos(root / "raw", count)
    lake = Lake(root / "lake")
    now = [time.time()]
    looks: list[float] = []
    resume = None
    while True:
        # As in the sensor, a look knows of the one before what is in the database and the cursor.
        ledger = Ledger.beside(root / "lake")
        arrivals = Arrivals(lake, ledger, Limits(), clock=lambda: now[0])
        began = time.perf_counter()
        look = arrivals.look([str(root / "raw")], resume)
        looks.append(time.perf_counter() - began)
        now[0] += max(looks[-1], TICK_S)
        resume = look.resume
        if resume is None and not (look.new or look.waiting):
            break
    held = [f["uri"] for shard in lake.shards() for f in lake.read_shard(shard)["files"]]
    assert len(held) == len(set(held)) == count, (len(held), len(set(held)))
    return {
        "videos": count,
        "shards": len(lake.shards()),
        "looks": len(looks),
        "longest_s": max(looks),
        "median_s": statistics.median(looks),
        "total_s": sum(looks),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--known", type=int, nargs="*", default=[1000, 10_000, 100_000, 340_000])
    parser.add_argument("--new", type=int, default=100)
    parser.add_argument("--first", type=int, default=340_000, help="videos of the first import")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    for known in options.known:
        with tempfile.TemporaryDirectory() as name:
            rows.append(measure(Path(name).resolve(), known, options.new))
    with tempfile.TemporaryDirectory() as name:
        first = first_import(Path(name).resolve(), options.first)
    slowest = max((max(r["noting_s"], r["closing_s"]) for r in rows), default=0.0)
    ratio = max(slowest / LIMIT_S, first["longest_s"] / LOOK_LIMIT_S)
    if options.json:
        limits = {"limit_s": LIMIT_S, "look_limit_s": LOOK_LIMIT_S, "ratio": ratio}
        print(json.dumps({"new": options.new, "ticks": rows, "first": first} | limits))
    else:
        for r in rows:
            print(
                f"{r['known']:>7,} known, {options.new} new: listing {r['listing_s']:.2f} s; beyond"
                f" it {r['noting_s']:.2f} s to note, {r['closing_s']:.2f} s to close shards, "
                f"{r['idle_s']:.2f} s idle (CPU of an idle tick, listing included: "
                f"{r['idle_cpu_s']:.2f} s; the very first ticks: {r['first_ticks_s']:.0f} s)"
            )
        print(
            f"first import of {first['videos']:,}: {first['looks']} looks, {first['shards']:,} "
            f"shards; a look takes {first['median_s']:.1f} s, the longest {first['longest_s']:.1f} "
            f"s, all of them {first['total_s']:.0f} s"
        )
        print(f"slowest tick or look over its limit: {ratio:.2f}")
    return 0 if ratio < 1 else 1


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    sys.exit(main())
