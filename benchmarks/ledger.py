"""How long `ego status` takes over a ledger of a million clips, against its limit of 1 s.

    python benchmarks/ledger.py [--clips 1000000] [--json]

Fills a SQLite ledger with clips of several stages in all states, then measures what `ego status`
takes in all, Python's start included. The last line is the ratio to the limit; below 1 passes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import sqlalchemy as sa

LIMIT_S = 1.0
FILL = """
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :clips)
INSERT INTO work (stage, unit_id, shard, video_id, fingerprint, state, attempts, error)
SELECT CASE i % 4 WHEN 0 THEN 'detections' WHEN 1 THEN 'hand_masks'
         WHEN 2 THEN 'hand_poses' ELSE 'robot_mappings' END,
       printf('%016x-%04d', i / 4, i % 4), printf('20260101-%04d', i / 4000),
       printf('%016x', i / 4), printf('%032x', i),
       CASE WHEN i % 1000 = 0 THEN 'quarantined' WHEN i % 7 = 0 THEN 'pending' ELSE 'done' END,
       1, CASE WHEN i % 1000 = 0 THEN 'the worker was killed by SIGSEGV' END
FROM n
"""


def fill(lake_root: Path, clips: int) -> None:
    """A lake's ledger with so many rows."""
    from resources.ledger import Ledger

    ledger = Ledger.beside(lake_root)
    ledger.counts()  # makes the tables
    with sa.create_engine(ledger.url).begin() as connection:
        connection.execute(sa.text(FILL), {"clips": clips})
        connection.execute(sa.text("ANALYZE"))


def status_s(lake_root: Path) -> float:
    """Seconds of the whole command, from the start of Python to its end."""
    began = time.perf_counter()
    command = [str(Path(sys.executable).with_name("ego")), "status", "--json"]
    done = subprocess.run(
        [*command, "--lake", str(lake_root)], capture_output=True, text=True, check=True
    )
    seconds = time.perf_counter() - began
    assert json.loads(done.stdout)["stages"]["detections"]["done"] > 0
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        fill(root, 1000)
        small = min(status_s(root) for _ in range(3))
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        fill(root, options.clips)
        size_mib = (root / "_ledger" / "ledger.sqlite").stat().st_size / 2**20
        runs = [status_s(root) for _ in range(5)]
    seconds = statistics.median(runs)
    ratio = seconds / LIMIT_S
    if options.json:
        found = {"clips": options.clips, "status_s": runs, "status_of_1000_s": small}
        print(json.dumps(found | {"ledger_mib": size_mib, "limit_s": LIMIT_S, "ratio": ratio}))
    else:
        print(f"{options.clips:,} clips, ledger of {size_mib:.0f} MiB")
        print(
            f"`ego status`: {seconds:.2f} s (median of {len(runs)}; of 1,000 clips {small:.2f} s)"
        )
        print(f"time over the limit of {LIMIT_S:g} s: {ratio:.2f}")
    return 0 if ratio < 1 else 1


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    sys.exit(main())
