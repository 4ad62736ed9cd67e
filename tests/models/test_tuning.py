"""Batches that fit: the memory of a backend is measured, kept, and used where nobody says more."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dagster_project import doctor
from ego_assets.engine import plan
from ego_assets.models import registry, tuning
from ego_assets.models.tuning import TARGET, MemoryModel, fit, measure
from tests.models.tiny_models import tiny_depth_anything, tiny_hamer, tiny_sam2
from tests.support.linked_weights import link_default_weights

pytestmark = pytest.mark.usefixtures("one_thread")

GB, MB = 10**9, 10**6
HAMER = ("hand_estimator", "hamer")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_line_through_what_was_measured() -> None:
    found = fit([(1, 3 * GB), (2, 4 * GB), (4, 6 * GB)], 80 * GB)
    assert (found.base, found.item) == (pytest.approx(2 * GB), pytest.approx(GB))
    assert found.batch(most=256) == 62, "80 % of 80 GB, less 2 GB, at 1 GB each"
    assert found.batch(most=32) == 32
    assert found.batch(most=256, share=0.5) == 30, "half a device is half of its memory"
    assert found.copies(batch=6) == 8


def test_no_sample_lies_above_the_line_and_no_line_falls() -> None:
    samples = [(1, 110 * MB), (2, 90 * MB), (4, 210 * MB), (8, 300 * MB)]
    found = fit(samples, GB)
    assert all(found.needs(b) >= p - 1 for b, p in samples)
    assert fit([(1, 200 * MB), (2, 100 * MB)], GB).item == 0
    with pytest.raises(ValueError, match="at least one sample"):
        fit([], GB)


@pytest.mark.parametrize("gigabytes", [16, 24, 40, 80, 141])
def test_every_device_is_used_to_its_target_and_no_further(gigabytes: int) -> None:
    model = MemoryModel(3 * GB, 0.2 * GB, gigabytes * GB, ())
    batch = model.batch(most=10**6)
    assert model.needs(batch) <= TARGET * gigabytes * GB < model.needs(batch + 1)


def test_a_model_that_is_too_large_gets_batches_of_one() -> None:
    assert MemoryModel(20 * GB, GB, 16 * GB, ()).batch(most=64) == 1


def test_the_memory_of_this_process_is_measured() -> None:
    """240 MB of model, 16 MB an item, in a process where nothing else is done meanwhile."""
    script = """
import json, numpy
from ego_assets.models.tuning import measure

held = []
found = measure(
    lambda: held.append(numpy.ones(30_000_000)), lambda n: numpy.ones(n * 2_000_000), most=16
)
print(json.dumps([found.base, found.item, [b for b, _ in found.samples]]))
"""
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    base, item, batches = json.loads(child.stdout)
    assert batches == [1, 2, 4, 8, 16]
    assert item == pytest.approx(16 * MB, rel=0.25)
    assert base == pytest.approx(240 * MB, rel=0.25)


def test_a_container_has_what_it_may_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "CONTAINER_LIMIT", tmp_path / "memory.max")
    whole = tuning._host_memory()
    (tmp_path / "memory.max").write_text("max\n")
    assert tuning._host_memory() == whole > GB
    (tmp_path / "memory.max").write_text(f"{GB}\n")
    assert tuning._host_memory() == GB


def test_measuring_stops_before_the_memory_does(monkeypatch: pytest.MonkeyPatch) -> None:
    now, ran = [0], []

    def run(count: int) -> None:
        ran.append(count)
        now[0] = 100 * count

    gauges = (1000, lambda: None, lambda: now[0])
    monkeypatch.setattr(tuning, "_gauges", lambda: gauges)
    monkeypatch.setattr(tuning, "_resident", lambda: 0)
    assert measure(lambda: None, run, most=64).batch(most=64) == 8
    assert ran == [1, 2, 4, 8], "sixteen would be beyond the target"
    ran.clear()

    def fails(count: int) -> None:
        run(count)
        if count > 2:
            raise MemoryError

    assert [b for b, _ in measure(lambda: None, fails, most=64).samples] == [1, 2]
    with pytest.raises(MemoryError):
        measure(lambda: None, lambda count: fails(count + 9), most=64)


def test_what_was_measured_is_found_again_and_a_broken_file_is_nothing(tmp_path: Path) -> None:
    model = MemoryModel(1.5, 2.5, 100, ((1, 4), (2, 7)))
    tuning.keep("a", model)
    tuning.keep("b", model)
    assert tuning.find("a") == tuning.find("b") == model
    assert tuning.find("c") is None
    (tmp_path / "cache" / "ego" / "tuning.json").write_text('{"a": {"base": 1}}')
    assert tuning.find("a") is None


def test_a_measurement_is_of_weights_a_device_and_a_torch() -> None:
    key = tuning.key_of("hamer", "abc")
    assert key.startswith("hamer abc cpu torch 2.")
    assert key != tuning.key_of("hamer", "abd")


@pytest.fixture
def gauges(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device of 1 GB, on which a backend takes 200 MB and 10 MB an item. What this process has
    resident also depends on other tests."""
    resets: list[int] = []

    def peak() -> int:
        return 200 * MB + 10 * MB * tuning.TRIALS[len(resets) - 2]

    found = (GB, lambda: resets.append(1), peak)
    monkeypatch.setattr(tuning, "_gauges", lambda: found)
    monkeypatch.setattr(tuning, "_resident", lambda: 0)


@pytest.mark.usefixtures("gauges")
def test_a_backend_takes_the_batch_that_was_measured(tmp_path: Path) -> None:
    tiny_hamer(tmp_path / "hamer")
    entry = registry.find(*HAMER)

    def batch(**settings: Any) -> int:
        return registry.build(*HAMER, settings, str(tmp_path)).batch  # type: ignore[attr-defined]

    assert batch() == 32, "nothing was measured"
    found = registry.tune(entry, str(tmp_path))
    assert len(found.samples) == 5
    tuned = found.batch(entry.max_batch)
    assert tuned == 60, "80 % of 1 GB, less 200 MB, at 10 MB each"
    assert batch() == tuned
    assert batch(crops_per_batch=5) == 5, "what a person says counts"
    tiny_hamer(tmp_path / "hamer", seed=1)
    assert batch() == 32, "of other weights nothing is known"


@pytest.mark.usefixtures("gauges")
def test_depth_can_be_measured_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "TRIALS", (1, 2))
    tiny_depth_anything(tmp_path / "x")
    entry = registry.find("reconstructor", "pycolmap_depth_anything")
    found = registry.tune(entry, str(tmp_path), {"checkpoint": "x"})
    assert [b for b, _ in found.samples] == [1, 2]


@pytest.mark.usefixtures("gauges", "packaged_weights")
def test_trackers_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "TRIALS", (1, 2))
    tiny_sam2(tmp_path / "x")
    link_default_weights(tmp_path)
    entry, settings = registry.find("segmenter", "sam2"), {"checkpoint": "x"}
    facts = doctor._tuned(entry, settings, str(tmp_path)).facts
    assert "not measured without a GPU" in facts
    monkeypatch.setattr(doctor, "device_name", lambda: "Tesla T4")
    facts = doctor._tuned(entry, settings, str(tmp_path)).facts
    assert "batches to 2 tried on Tesla T4: objects_per_batch 16" in facts
    assert "; 2 side by side in 80 % of 1 GB" in facts
    built: Any = registry.build("segmenter", "sam2", settings, str(tmp_path))
    assert built.tracker.enlarge.limit == 16


def test_how_fast_it_is_computed_is_no_part_of_a_fingerprint() -> None:
    settings = {"checkpoint": "x", "crops_per_batch": 7, "compile": True}
    assert registry.decisive(*HAMER, settings) == {"checkpoint": "x"}
    settings = {"checkpoint": "x", "frames_per_batch": 7, "compile": True, "depth_frames": 3}
    kept = registry.decisive("reconstructor", "pycolmap_depth_pro", settings)
    assert kept == {"checkpoint": "x", "depth_frames": 3}


def test_clips_stay_done_under_another_batch(tmp_path: Path) -> None:
    from tests.engine.stage_bench import make_bench

    bench = make_bench(tmp_path)

    def fingerprints(**settings: Any) -> set[str]:
        spec = bench.rerun(operator="hand_estimator", backend="hamer", settings=settings)
        groups = plan.plan(spec, bench.lake, bench.ledger)
        return {u.base_fingerprint for g in groups for u in g.items}

    assert fingerprints() == fingerprints(crops_per_batch=7) == fingerprints(compile=True)
    assert fingerprints() != fingerprints(checkpoint="other")
