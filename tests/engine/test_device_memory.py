"""On a device: a clip that does not fit is quarantined as `oom`, and its worker and model go on;
what was computed there says so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ego_assets.engine import publish
from ego_assets.engine.runner import run_stage
from ego_assets.operator import ClipOutput
from resources.ledger import State
from tests.engine.fake_backends import FakeEstimator
from tests.engine.memory_backends import ITEMS
from tests.engine.stage_bench import SHARD, make_bench

TABLE = "object_movements"
BACKEND = "tests.engine.memory_backends:HungryEstimator"


def test_a_clip_that_never_fits_is_set_aside_and_the_worker_is_well(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, {f"v{n}": 2 for n in range(3)})
    glutton, large = (f"v1{'0' * 14}-0001", f"v2{'0' * 14}-0000")
    bench.behave(glutton, items=99)  # not even one item fits
    bench.behave(large, items=4)  # five items fit
    report = run_stage(replace(bench.spec, backend=BACKEND, lanes=2), workers=1)
    assert (report.done, report.worker_deaths, report.retried) == (5, 0, 0)
    assert [(f.item_id, f.state) for f in report.failures] == [(glutton, "quarantined")]
    reason = report.failures[0].reason
    assert reason.startswith("oom: out of memory with batches of ")
    assert "free on the machine" in reason
    entries = {e.item_id: e for e in bench.ledger.entries(stage=TABLE)}
    assert entries[glutton].state is State.QUARANTINED
    assert entries[glutton].error_class == "oom"
    assert {e.attempts for e in entries.values()} == {1}, "tried again by the model, not the stage"
    rows = bench.lake.read(TABLE, SHARD).to_pylist()
    lengths = {r["clip_id"]: r["path_length"] for r in rows}
    assert lengths.pop(large) == 4 * ITEMS
    assert set(lengths.values()) == {ITEMS}
    calls = (bench.folder / "raw" / "calls").read_text().split("\n")[:-1]
    assert len({c.split(" ", 1)[1] for c in calls}) == 1, "one worker, one model"


def test_a_file_says_what_it_was_computed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(tmp_path, {"v0": 1})
    monkeypatch.setattr(publish, "describe_device", lambda: '{"gpu": "H100"}')
    run_stage(bench.spec, isolate=False)
    clip = f"v0{'0' * 14}-0000"
    found = bench.lake.provenance(TABLE, SHARD, clip)
    assert found is not None
    assert found.accelerator == '{"gpu": "H100"}'
    assert {"torch", "transformers"} <= json.loads(found.packages).keys()
    # An operator without torch says so itself.
    monkeypatch.setattr(publish, "describe_device", lambda: "")
    plain = FakeEstimator.process

    def process(*args: Any) -> ClipOutput:
        output = plain(*args)
        output.notes["accelerator"] = "3"
        return output

    monkeypatch.setattr(FakeEstimator, "process", process)
    run_stage(bench.rerun(force=True), isolate=False)
    found = bench.lake.provenance(TABLE, SHARD, clip)
    assert found is not None
    assert found.accelerator == "3"
