"""One setting bounds the decoded pictures of every stage; the most expensive takes go first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stage_bench import SHARD, make_bench

from ego_assets.operators import cuts
from ego_assets.operators.decode import ClipFrames
from ego_assets.stages.plan import plan
from ego_assets.stages.runner import run_stage
from ego_assets.stages.tasks import ClipTask, SplitTask

BUDGET = 12 * 2**20


def test_lanes_share_the_budget_of_their_worker(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    for lanes in (1, 3):
        spec = replace(bench.spec, bytes_in_flight=BUDGET, lanes=lanes)
        unit = plan(spec, bench.lake, bench.ledger)[0].units[0]
        task = ClipTask(spec, bench.lake, bench.ledger)
        clip = task.clip_input(unit, Path(unit.payload["video"]["uri"]))
        assert isinstance(clip.frames, ClipFrames)
        assert clip.frames.max_bytes_in_flight == BUDGET // lanes


def test_the_search_for_cuts_has_the_same_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(tmp_path)
    spec = replace(bench.spec, task="split", tables=("clips",), operator="", bytes_in_flight=BUDGET)
    budgets: list[int] = []

    class Spy(ClipFrames):
        def __init__(self, *given: Any, **options: Any) -> None:
            super().__init__(*given, **options)
            budgets.append(self.max_bytes_in_flight)

    monkeypatch.setattr(cuts, "ClipFrames", Spy)
    unit = plan(spec, bench.lake, bench.ledger)[0].units[0]
    task = SplitTask(spec, bench.lake, bench.ledger)
    task.splitter.split(unit.payload["video"], Path(unit.payload["video"]["uri"]))
    assert budgets == [BUDGET]


def test_the_most_expensive_takes_go_first(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, {"a": 1, "b": 3, "c": 2, "d": 4})
    run_stage(bench.spec, isolate=False)
    entries = bench.ledger.entries(stage="object_movements", shard=SHARD)
    begun = [e.unit_id[0] for e in sorted(entries, key=lambda e: e.started_at or 0)]
    assert "".join(begun) == "ddddbbbcca"
