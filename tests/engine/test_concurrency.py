"""How many takes a device has at a time: what a person says, what was measured, today's default."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ego_assets.catalog import STAGES
from ego_assets.engine.choices import Part
from ego_assets.engine.concurrency import MOST_TAKES, Concurrency, concurrency
from ego_assets.engine.outcome import StageReport
from ego_assets.engine.plan import StageSpec
from ego_assets.engine.runner import run_stage
from ego_assets.graph import stage as bridge
from ego_assets.graph.spec import RunConfig
from ego_assets.models import tuning
from ego_assets.models.tuning import MemoryModel
from resources.compute import Compute
from tests.engine.stage_bench import make_bench
from tests.engine.test_lanes import BACKEND, spans

GB = 10**9
T4, H100 = "Tesla T4", "NVIDIA H100 80GB HBM3"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def spec_of(backend: str = "sam2", operator: str = "segmenter", **settings: Any) -> StageSpec:
    return StageSpec(
        name="segmentation",
        item="clip",
        tables=(),
        settings=settings,
        lake_root="",
        ledger_url="",
        shard="",
        run_id="",
        operator=operator,
        backend=backend,
        operator_version="1",
        weights_hash="w",
    )


def measured(device: str, base_gb: float, item_gb: float, total_gb: float) -> None:
    model = MemoryModel(base_gb * GB, item_gb * GB, int(total_gb * GB), ())
    tuning.keep(tuning.key_of("sam2", "w", device), model)


def decide(
    spec: StageSpec,
    *kinds: str,
    devices: tuple[str, ...] = ("0",),
    share: float = 1.0,
    takes: int = 0,
    cpus: int = 64,
) -> Concurrency:
    return concurrency(spec, devices, kinds, share, takes, cpus)


def test_without_a_measurement_it_is_as_it_was() -> None:
    measured(T4, 1, 0.1, 16)  # of another kind of device
    found = decide(spec_of(), H100, devices=("0", "1"), share=0.5)
    assert (found.workers, found.lanes, found.share) == (2, 1, 0.5)
    assert "ego doctor --tune" in found.why
    assert decide(spec_of("foundationpose", "object_pose_estimator"), H100).workers == 1


def test_as_many_models_as_fit_the_share_that_was_leased() -> None:
    """With 16 tracks each 2.6 GB: 80 % of 16 GB hold 4, of a half 2, of a quarter 1."""
    measured(T4, 1, 0.1, 16)
    for share, copies in ((1.0, 3), (0.5, 2), (0.25, 1), (0.1, 1)):
        found = decide(spec_of(), T4, share=share)
        assert (found.workers, found.share) == (copies, share / copies)
    assert "more than 3 bring nothing" in decide(spec_of(), T4).why
    assert "2.60 GB each, in 80 % of 8.0 GB" in decide(spec_of(), T4, share=0.5).why
    measured(T4, 5, 0.1, 16)
    assert decide(spec_of(), T4).workers == 1
    assert decide(spec_of(objects_per_batch=1), T4).workers == 2, "of a smaller batch more fit"
    measured(H100, 1, 0.1, 80)
    assert decide(spec_of(), H100).workers == MOST_TAKES
    assert decide(spec_of(), T4, H100, devices=("0", "1")).workers == 2, "the smaller one counts"


def test_what_a_worker_may_have_holds_the_batch_that_was_counted_with() -> None:
    """`registry.build` finds its batch in the worker's share."""
    measured(T4, 1, 0.1, 16)
    model = tuning.find(tuning.key_of("sam2", "w", T4))
    assert model is not None
    for share in (1.0, 0.5, 0.25):
        found = decide(spec_of(), T4, share=share)
        assert model.batch(16, found.share) == 16


def test_workers_need_cpus_too() -> None:
    measured(H100, 1, 0.1, 80)
    assert decide(spec_of(), H100, cpus=2).workers == 2
    assert decide(spec_of(), H100, devices=("0", "1"), cpus=2).workers == 2


def test_what_a_person_says_counts_more() -> None:
    measured(T4, 1, 0.1, 16)
    found = decide(spec_of(), T4, devices=("0", "1"), takes=5)
    assert (found.workers, found.lanes, found.share) == (10, 1, 0.2)
    assert "compute.takes_per_device" in found.why


def test_lanes_share_a_model_and_are_no_matter_of_memory() -> None:
    hamer = spec_of("hamer", "hand_estimator")
    tuning.keep(tuning.key_of("hamer", "w", T4), MemoryModel(9 * GB, GB, 16 * GB, ()))
    found = decide(hamer, T4, devices=("0", "1"))
    assert (found.workers, found.lanes, found.share) == (2, 4, 1.0)
    assert decide(hamer, T4, takes=6).lanes == 6


def test_workers_are_dealt_to_the_devices(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, {f"v{n}": 1 for n in range(8)})
    spec = replace(bench.spec, backend=BACKEND, devices=("0", "3"))
    run_stage(spec, workers=4)
    seen = {(s["pid"], s["device"]) for s in spans(bench)}
    assert sorted(device for _, device in seen) == ["0", "0", "3", "3"]


def test_a_step_uses_it_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the tag of the step, its lease and NVML's names to workers, log and metadata."""
    asked: list[tuple[StageSpec, int]] = []
    logged: list[str] = []

    def run(spec: StageSpec, *, workers: int, **_: Any) -> StageReport:
        asked.append((spec, workers))
        return StageReport("", "")

    def step(**compute: Any) -> str:
        op = SimpleNamespace(op=SimpleNamespace(tags={"ego/gpus": "0.5"}))
        log = SimpleNamespace(info=logged.append)
        run: Any = bridge.StageRun(
            context=SimpleNamespace(log=log, op_execution_context=op, run_id="r"),  # type: ignore[arg-type]
            stage=STAGES["segmentation"],
            config=RunConfig(),
            storage=SimpleNamespace(),  # type: ignore[arg-type]
            compute=Compute(**compute),
            backends=None,
            choice=None,
        )
        _, metadata = bridge.run_part(run, Part(spec_of()), "s")
        return str(metadata["takes on a device"])

    measured(T4, 1, 0.1, 16)
    monkeypatch.setattr(bridge, "run_stage", run)
    monkeypatch.setattr(bridge, "list_gpus", lambda: [SimpleNamespace(name=T4)])
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert step().startswith("2, each a worker with a model of its own, as `ego doctor --tune`")
    assert step(takes_per_device=4).startswith("4, ")
    for (spec, workers), copies in zip(asked, (2, 4), strict=True):
        assert (workers, spec.devices, spec.device_share) == (copies, ("7",), 0.5 / copies)
    assert "2, each a worker" in logged[0]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(KeyError):
        step(workers=3)
    assert asked[-1][1] == 3, "on a CPU nothing changed"
