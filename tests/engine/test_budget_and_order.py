"""One setting bounds the decoded pictures of every stage; the most expensive takes go first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ego_assets.catalog import STAGES
from ego_assets.engine.choices import Part
from ego_assets.engine.plan import StageSpec, plan
from ego_assets.engine.runner import run_stage
from ego_assets.engine.tasks import ClipTask, VideoTask
from ego_assets.graph import stage
from ego_assets.graph.spec import RunConfig
from ego_assets.media.decode import ClipFrames
from ego_assets.videos import cuts
from resources.compute import Compute
from resources.lake import Lake
from resources.ledger import Ledger
from resources.storage import Storage
from tests.engine.stage_bench import SHARD, make_bench, spec_for

BUDGET = 12 * 2**20


def make_spec(folder: Path) -> StageSpec:
    lake = Lake(folder)
    return spec_for("object_movements", lake, Ledger.beside(folder), SHARD)


def test_lanes_share_the_budget_of_their_worker(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    for lanes in (1, 3):
        spec = replace(bench.spec, bytes_in_flight=BUDGET, lanes=lanes)
        item = plan(spec, bench.lake, bench.ledger)[0].items[0]
        task = ClipTask(spec, bench.lake, bench.ledger)
        clip = task.clip_input(item, Path(item.payload["video"]["uri"]))
        assert isinstance(clip.frames, ClipFrames)
        assert clip.frames.max_bytes_in_flight == BUDGET // lanes


def test_pictures_and_results_of_a_model_on_a_device_share_the_budget(tmp_path: Path) -> None:
    for lanes in (1, 3):
        spec = replace(
            make_spec(tmp_path), bytes_in_flight=BUDGET, lanes=lanes, publish_behind=True
        )
        assert spec.result_bytes == BUDGET // 2
        assert spec.result_bytes + lanes * spec.frame_bytes == BUDGET


@pytest.mark.parametrize(
    ("backend", "behind"), [("tests.engine.lane_backends:LaneEstimator", True), ("baseline", False)]
)
def test_only_what_computes_on_a_device_is_published_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str, behind: bool
) -> None:
    class Stop(Exception):
        pass

    asked: list[StageSpec] = []

    def run(spec: StageSpec, **_: Any) -> None:
        asked.append(spec)
        raise Stop

    monkeypatch.setattr(stage, "run_stage", run)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    op = SimpleNamespace(op=SimpleNamespace(tags={}))
    step: Any = stage.StageRun(
        context=SimpleNamespace(op_execution_context=op, run_id="r"),  # type: ignore[arg-type]
        stage=STAGES["object_movements"],
        config=RunConfig(),
        storage=Storage(lake_root="lake"),
        compute=Compute(),
        backends=None,
        choice=None,
    )
    spec = replace(make_spec(tmp_path), backend=backend)
    with pytest.raises(Stop):
        stage.run_part(step, Part(spec), SHARD)
    assert [s.publish_behind for s in asked] == [behind]


def test_the_search_for_cuts_has_the_same_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(tmp_path)
    spec = spec_for("clips", bench.lake, bench.ledger, SHARD, bytes_in_flight=BUDGET)
    budgets: list[int] = []

    class Spy(ClipFrames):
        def __init__(self, *given: Any, **options: Any) -> None:
            super().__init__(*given, **options)
            budgets.append(self.max_bytes_in_flight)

    monkeypatch.setattr(cuts, "ClipFrames", Spy)
    item = plan(spec, bench.lake, bench.ledger)[0].items[0]
    task = VideoTask(spec, bench.lake, bench.ledger)
    task.process(item, None)
    assert budgets == [BUDGET]


def test_the_most_expensive_takes_go_first(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, {"a": 1, "b": 3, "c": 2, "d": 4})
    run_stage(bench.spec, isolate=False)
    entries = bench.ledger.entries(stage="object_movements", shard=SHARD)
    begun = [e.item_id[0] for e in sorted(entries, key=lambda e: e.started_at or 0)]
    assert "".join(begun) == "ddddbbbcca"
