"""Which GPUs this machine has: asked of NVML, or simulated. Who uses them is `gpu_leases`."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from resources.environment import simulated_gpus, visible_devices

SICK_MACHINE = "sick"
"""Key of what stands for all devices when the driver does not answer."""
_FAKE_MEMORY_GB = 80.0


@dataclass(frozen=True)
class Gpu:
    """One device, in PCI order. `fault` says why it must not be used; empty: it may.

    capability: CUDA compute capability, (9, 0) for an H100; None where NVML was not asked.
    """

    index: int
    name: str
    memory_gb: float
    key: str = ""
    fault: str = ""
    capability: tuple[int, int] | None = None
    driver: str = ""

    def __str__(self) -> str:
        return f"GPU {self.index} ({self.name})"


def find_gpus(simulated: int | None = None) -> list[Gpu]:
    """Every device this process may see, the sick ones too; [] without a driver.

    simulated: pretend that there are so many; None: $EGO_FAKE_GPUS, else ask NVML. Where there are
    real ones, a simulated one has the key of the real one of its number, to which steps are pinned:
    nobody else may lease it meanwhile.
    Raises EnvironmentVariableError if $EGO_FAKE_GPUS is no number of devices.
    """
    if simulated is None:
        simulated = simulated_gpus()
    if simulated is not None:
        keys = {g.index: g.key for g in _ask_nvml()}
        return [
            Gpu(i, "simulated", _FAKE_MEMORY_GB, keys.get(i, f"simulated-{i}"))
            for i in range(simulated)
        ]
    visible = visible_devices()
    return [g for g in _ask_nvml() if visible is None or _is_named(g, visible)]


def list_gpus() -> list[Gpu]:
    """The devices that work. Raises ValueError if there are some, and none does."""
    found = find_gpus()
    well = [g for g in found if not g.fault]
    if found and not well:
        faults = "; ".join(f"GPU {g.index}: {g.fault}" for g in found)
        raise ValueError(
            f"no GPU of this machine works (NVML says {faults}): see `nvidia-smi`, or set "
            "CUDA_VISIBLE_DEVICES= to work on the CPU"
        )
    return well


def _ask_nvml() -> list[Gpu]:
    """A driver that is there and does not answer counts as one sick device: it is no reason to
    work on the CPU, unasked."""
    import pynvml

    absent = (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded)
    try:
        pynvml.nvmlInit()
    except (*absent, pynvml.NVMLError_GpuNotFound):
        return []
    except pynvml.NVMLError as error:
        return [Gpu(0, "unknown", 0.0, SICK_MACHINE, str(error))]
    try:
        return [_look_at(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError as error:
        return [Gpu(0, "unknown", 0.0, SICK_MACHINE, str(error))]
    finally:
        pynvml.nvmlShutdown()


def _look_at(index: int) -> Gpu:
    import pynvml

    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle).total
        name, key = pynvml.nvmlDeviceGetName(handle), pynvml.nvmlDeviceGetUUID(handle)
        major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
        driver = pynvml.nvmlSystemGetDriverVersion()
        with suppress(pynvml.NVMLError_NotSupported):  # as a virtual one says that is well
            pynvml.nvmlDeviceGetUtilizationRates(handle)  # one off the bus answers no question
    except pynvml.NVMLError as error:
        return Gpu(index, "unknown", 0.0, f"sick-{index}", str(error))
    return Gpu(
        index,
        name,
        round(int(memory) / 1e9, 1),
        key,
        capability=(int(major), int(minor)),
        driver=str(driver),
    )


def _is_named(gpu: Gpu, visible: str) -> bool:
    """Whether CUDA_VISIBLE_DEVICES, as a scheduler above us sets it, has this device."""
    names = [n.strip() for n in visible.split(",") if n.strip()]
    if gpu.key == SICK_MACHINE:
        return bool(names)
    return str(gpu.index) in names or any(gpu.key.startswith(n) for n in names)
