"""A disk that is full or may not be written stops the stage, blames no clip, and loses nothing."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ego_assets.engine.outage import StageBrokenError
from ego_assets.engine.runner import run_stage
from resources.ledger import Ledger, State
from tests.engine.stage_bench import SHARD, Bench, make_bench

pytestmark = [pytest.mark.slow, pytest.mark.chaos]
TABLE = "object_movements"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder of 3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root may mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def bench(small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """The lake on the small disk; the ledger on one with room, as beside a Postgres."""
    made = make_bench(small_disk, {f"v{n}": 4 for n in range(3)})
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite")
    return replace(made, ledger=ledger, spec=replace(made.spec, ledger_url=ledger.url))


def states(bench: Bench) -> set[State]:
    return {e.state for e in bench.ledger.entries(stage=TABLE)}


def fill(disk: Path) -> Path:
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError:
            pass
    return ballast


@pytest.mark.parametrize(("isolate", "behind"), [(True, False), (True, True), (False, False)])
def test_a_full_disk(bench: Bench, small_disk: Path, isolate: bool, behind: bool) -> None:
    bench.spec = replace(bench.spec, publish_behind=behind)
    ballast = fill(small_disk)
    with pytest.raises(StageBrokenError, match=r"No space left.*make room"):
        run_stage(bench.spec, workers=1, isolate=isolate)
    assert states(bench) == {State.PENDING}
    assert {e.attempts for e in bench.ledger.entries(stage=TABLE)} == {0}
    ballast.unlink()
    report = run_stage(bench.rerun(), workers=2)
    assert (report.done, report.failures) == (12, [])
    assert bench.lake.read(TABLE, SHARD).num_rows == 12


def test_a_disk_that_may_only_be_read(bench: Bench, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    try:
        with pytest.raises((StageBrokenError, OSError), match="Read-only"):
            run_stage(bench.spec, workers=1)
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    assert State.QUARANTINED not in states(bench)
    assert run_stage(bench.rerun(), workers=2).done == 12
