"""How models run on a device: precision, compilation with a way back, what a file says of it."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from ego_assets.hands.hamer.estimator import HamerEstimator
from ego_assets.hands.settings import HamerSettings
from ego_assets.masks.settings import Sam2Settings
from ego_assets.models import device
from ego_assets.models.device import compiled, precision, to_device, to_host
from ego_assets.scene.settings import DepthProSettings
from ego_assets.settings import COMPILE_MODES, Settings
from resources.compute import PRESETS, Compute
from resources.devices.gpu import find_gpus
from tests.models.tiny_models import tiny_hamer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("capability", "wanted"),
    [
        (None, "float32"),
        ((6, 1), "float32"),
        ((7, 0), "float16"),
        ((7, 5), "float16"),
        ((8, 0), "bfloat16"),
        ((9, 0), "bfloat16"),
    ],
)
def test_precision_is_what_pays_there(capability: tuple[int, int] | None, wanted: str) -> None:
    assert precision(capability) == wanted


def test_arrays_go_there_and_back() -> None:
    import torch

    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    one, two = to_host(to_device(array, torch.device("cpu")), torch.ones(2))
    assert np.array_equal(one, array)
    assert two.tolist() == [1, 1]


def test_a_compiled_network_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced by torch.compile, run by its simplest backend: another takes minutes to build."""
    monkeypatch.setattr(device, "COMPILER", "eager")
    tiny_hamer(tmp_path / "hamer")
    crops = [np.random.default_rng(i).integers(0, 255, (64, 64, 3), np.uint8) for i in range(3)]
    plain, quick = (HamerEstimator(HamerSettings(compile=c), tmp_path) for c in (False, True))
    for one, other in zip(plain._look(crops), quick._look(crops), strict=True):
        for a, b in zip(one, other, strict=True):
            assert np.allclose(a, b, atol=1e-5)
    assert quick.network.token.quick is not None  # type: ignore[attr-defined]


def test_what_cannot_be_compiled_runs_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a machine without a C++ compiler: a warning once, the right result, no second try."""
    import torch

    tries = []

    def no_compiler(graph: Any, inputs: Any) -> Any:
        tries.append(graph)
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(device, "COMPILER", no_compiler)

    def double(x: Any) -> Any:
        return 2 * x

    run = compiled(double, True)
    with caplog.at_level(logging.WARNING):
        assert run(torch.ones(2)).tolist() == [2, 2]
        assert run(torch.ones(3)).tolist() == [2, 2, 2]
    assert len(tries) == 1
    assert len(caplog.records) == 1
    assert "double runs without torch.compile" in caplog.text
    assert "No working C++ compiler" in caplog.text


class Graphs:
    """A compiler's backend as CUDA graphs are: one for each shape, which writes each result to the
    same place."""

    def __init__(self) -> None:
        self.modes: list[str] = []
        self.batches: list[int] = []

    def __call__(self, graph: Any, inputs: Any, mode: str) -> Any:
        import torch

        places: list[Any] = []
        self.modes.append(mode)

        def replay(*args: Any) -> Any:
            if not places:
                self.batches.append(next(len(x) for x in args if x.ndim == 4))
            found = graph(*args)
            places[:] = places or [torch.empty_like(x) for x in found]
            for place, value in zip(places, found, strict=True):
                assert place.shape == value.shape, "a graph is of one shape"
                place.copy_(value)
            return tuple(places)

        return replay


def test_graphs_are_of_few_shapes_and_keep_their_results_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    mode = "reduce-overhead"
    torch._dynamo.reset()
    graphs = Graphs()
    monkeypatch.setattr(device, "COMPILER", graphs)
    tiny_hamer(tmp_path / "hamer")
    crops = list(np.random.default_rng(0).integers(0, 255, (7, 64, 64, 3), np.uint8))
    plain, quick = (
        HamerEstimator(HamerSettings(compile=c, crops_per_batch=6), tmp_path) for c in (False, mode)
    )
    for count in (2, 4, 7):
        ones, others = (e.look(crops[:count]) for e in (plain, quick))
        for one, other in zip(ones, others, strict=True):
            for a, b in zip(one, other, strict=True):
                assert np.allclose(a, b, atol=1e-5)
    assert graphs.batches == [4, 6, 1], "two and four as four, seven as six and one: six fit"
    shown = torch.from_numpy(np.stack(crops[:4])).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        first, second = (quick.network.token(x) for x in (shown[:3], shown.flip(0)))
    assert torch.allclose(first, plain.network._token(shown[:3]), atol=1e-5)
    assert len(second) == 4, "of its own place: the first is as it was"
    assert set(graphs.modes) == {mode}
    assert quick.network.token.quick is not None  # type: ignore[attr-defined]


def test_what_is_no_way_to_compile_is_refused() -> None:
    kinds: list[type[Settings]] = [HamerSettings, Sam2Settings, DepthProSettings]
    for settings in kinds:
        for good in (False, True, *COMPILE_MODES):
            assert settings(compile=good).compile == good  # type: ignore[attr-defined, call-arg]
        for wrong in ("max", "true", 2, None):
            with pytest.raises(
                ValidationError, match='give false, true, "reduce-overhead" or "max'
            ):
                settings(compile=wrong)  # type: ignore[call-arg]


def test_a_network_that_fails_itself_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(device, "COMPILER", "eager")

    def wrong(x: Any) -> Any:
        return x @ torch.ones(7)

    with pytest.raises(RuntimeError, match=r"size mismatch|shapes|inconsistent"):
        compiled(wrong, True)(torch.ones(2))
    assert compiled(wrong, False) is wrong


def test_memory_that_runs_out_is_no_fault_of_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "COMPILER", "eager")
    run = compiled(lambda x: x, True)
    calls = []

    def full(x: Any) -> Any:
        calls.append(x)
        raise MemoryError

    run.quick = full  # type: ignore[attr-defined]
    for _ in range(2):
        with pytest.raises(MemoryError):
            run(1)
    assert calls == [1, 1]


# -- what is said of the machine -------------------------------------------------------------


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVML as on a machine with one H100."""
    fake: Any = ModuleType("pynvml")
    fake.NVMLError = type("NVMLError", (Exception,), {})
    for name in ("NotSupported", "LibraryNotFound", "DriverNotLoaded", "GpuNotFound"):
        setattr(fake, f"NVMLError_{name}", type(f"NVMLError_{name}", (fake.NVMLError,), {}))
    fake.nvmlInit = fake.nvmlShutdown = lambda: None
    fake.nvmlDeviceGetCount = lambda: 1
    fake.nvmlDeviceGetHandleByIndex = lambda index: index
    fake.nvmlDeviceGetMemoryInfo = lambda handle: SimpleNamespace(total=85_520_809_984)
    fake.nvmlDeviceGetName = lambda handle: "NVIDIA H100 80GB HBM3"
    fake.nvmlDeviceGetUUID = lambda handle: "GPU-1"
    fake.nvmlDeviceGetCudaComputeCapability = lambda handle: (9, 0)
    fake.nvmlSystemGetDriverVersion = lambda: "550.54.15"
    fake.nvmlDeviceGetUtilizationRates = lambda handle: None
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("EGO_FAKE_GPUS", raising=False)


def test_nvml_tells_memory_and_compute_capability(nvml: None) -> None:
    (gpu,) = find_gpus()
    assert (gpu.memory_gb, gpu.capability, gpu.driver) == (85.5, (9, 0), "550.54.15")
    from dagster_project import doctor

    (finding, *_) = doctor._gpus()
    assert "compute capability 9.0 (bfloat16), driver 550.54.15" in finding.facts


def test_a_file_names_the_gpu_that_it_was_computed_on(
    nvml: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    assert device.describe_device() == "", "nobody has touched a GPU"
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    device._cuda.cache_clear()
    try:
        assert json.loads(device.describe_device()) == {
            "gpu": "NVIDIA H100 80GB HBM3",
            "compute_capability": "9.0",
            "driver": "550.54.15",
            "cuda": "12.8",
        }
    finally:
        device._cuda.cache_clear()


# -- presets ---------------------------------------------------------------------------------


def test_a_preset_fills_in_what_nobody_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(128)))
    assert Compute().worker_count() == 128
    assert Compute().bytes_in_flight == 64 * 2**20
    chosen = Compute(preset="cpu_128_h100_4")
    assert chosen.worker_count() == 24
    assert chosen.worker_count(on_device=True) == 1
    assert chosen.bytes_in_flight == 256 * 2**20
    mine = Compute(preset="cpu_128_h100_4", workers=3, megabytes_in_flight=8)
    assert (mine.worker_count(), mine.bytes_in_flight) == (3, 8 * 2**20)


def test_no_preset_starts_more_workers_than_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one run; the stages of several share the CPUs (`resources.processes.slots`)."""
    for name, preset in PRESETS.items():
        cpus = {"small_cpu": 4, "cpu_32": 32, "cpu_32_gpu_2": 32, "cpu_128_h100_4": 128}[name]
        assert preset.workers <= cpus
        assert preset.runs <= max(1, cpus // 4)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0})
    assert Compute(preset="cpu_32").worker_count() == 1
