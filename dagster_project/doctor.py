"""What works on this machine: the findings of `ego doctor`."""

from __future__ import annotations

import os
import platform
import shutil
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import yaml
from pydantic import ValidationError

from dagster_project.home import home_of, limit_in
from dagster_project.run_queue import runs_at_once
from dagster_project.startup import prepare
from ego_assets.catalog import BACKENDS
from ego_assets.feature import BackendEntry, load
from ego_assets.models import registry
from ego_assets.models.choice import (
    BackendsFileError,
    default_name,
    machine_choice,
)
from ego_assets.models.device import precision
from ego_assets.models.memory import is_out_of_memory
from ego_assets.models.registry import check
from ego_assets.models.tuning import TARGET, device_name
from ego_assets.models.weights import WeightsError, WeightsMissingError
from resources.devices.gpu import Gpu, find_gpus
from resources.devices.leases import LeaseBook, LeaseError
from resources.devices.schedule import WHOLE, LeaseClaim
from resources.processes import machine

PACKAGES = ("dagster", "torch", "pycolmap", "dex_retargeting", "av", "opencv-python-headless")
CODECS = ("h264", "hevc", "av1", "vp9", "mpeg4", "mjpeg", "mpeg2video", "aac", "opus")
PYTHON = (3, 11)


@dataclass(frozen=True)
class Finding:
    """What was looked at, how it stands, and the facts.

    state: ok, warning, missing (something does not work), or unused: a model that nobody chose,
    and that is not set up.
    """

    what: str
    state: str
    facts: str


def examine(lake_root: str, *, tune: bool = False) -> list[Finding]:
    """Look at everything; never raises for what is missing.

    tune: measure what backends that batch take of the device, and keep it for the runs to come.
    """
    return [
        _python(),
        _machine(),
        _run_queue(lake_root),
        _environment(),
        _lake(lake_root),
        *_gpus(),
        *[_package(name) for name in PACKAGES],
        _codecs(),
        *_backends(tune),
    ]


def _python() -> Finding:
    version = platform.python_version()
    right = version.startswith(f"{PYTHON[0]}.{PYTHON[1]}.")
    return Finding("python", "ok" if right else "warning", f"{version}; 3.11 is what is tested")


def _machine() -> Finding:
    memory = psutil.virtual_memory()
    facts = f"{machine.cpus()} CPUs, {memory.available / 2**30:.1f} GiB memory free"
    if (limit := machine.memory_bytes()) < memory.total:
        facts += f", {limit / 2**30:.1f} GiB for this container"
    enough = memory.available > 3 * 2**30
    return Finding("machine", "ok" if enough else "warning", facts)


def _run_queue(lake_root: str) -> Finding:
    """How many runs the daemon has go on at a time, and whether that suits the machine."""
    config = home_of(lake_root) / "dagster.yaml"
    try:
        most, why = runs_at_once()
        given = limit_in(config.parent)
    except (ValueError, OSError, yaml.YAMLError) as error:
        return Finding("runs at a time", "missing", str(error))
    if given is None:
        return Finding("runs at a time", "ok", f"{most}, {why}")
    words = "without limit" if given == -1 else str(given)
    facts = f"{words}, as {config} says; this machine has room for {most} ({why})"
    return Finding("runs at a time", "ok" if 0 <= given <= most else "warning", facts)


def _environment() -> Finding:
    try:
        prepare()
    except ValueError as error:
        return Finding("environment", "missing", str(error))
    return Finding("environment", "ok", "what EGO_ variables hold makes sense")


def _lake(given: str) -> Finding:
    if given.startswith("s3://"):
        return _lake_on_s3(given)
    root = Path(given)
    folder = root.resolve()
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        return Finding("lake", "missing", f"{root} cannot be written: choose another with --lake")
    free = shutil.disk_usage(folder).free / 2**30
    state = "ok" if free > 5 else "warning"
    return Finding("lake", state, f"{root.resolve()}, {free:.0f} GiB free")


def _lake_on_s3(given: str) -> Finding:
    from resources.lake import Lake

    try:
        found = Lake(given).storage.is_lake()
    except Exception as error:  # botocore, urllib3, our own: each says what is wrong
        return Finding("lake", "missing", f"{given} cannot be reached: {error}")
    return Finding("lake", "ok", f"{given}, {'in use' if found else 'empty'}")


def _gpus() -> list[Finding]:
    """A line for each device: what it is, and who has it."""
    try:
        gpus = find_gpus()
        claims = LeaseBook().claims() if gpus else []
    except (LeaseError, ValueError) as error:
        return [Finding("GPU", "missing", str(error))]
    if not gpus:
        return [Finding("GPU", "ok", "none: every stage runs on the CPU")]
    return [_gpu(gpu, claims) for gpu in gpus] + _queue(claims)


def _gpu(gpu: Gpu, claims: list[LeaseClaim]) -> Finding:
    if gpu.fault:
        return Finding(f"GPU {gpu.index}", "warning", f"left out, NVML says: {gpu.fault}")
    holders = [
        f"{c.share / WHOLE:g} {'kept warm' if c.idle else 'used'} by {c.step_key} of run "
        f"{c.run_id[:8]} (process {c.pid}, {time.time() - c.since:.0f} s)"
        for c in claims
        if gpu.key in c.devices
    ]
    known = ""
    if gpu.capability:
        level = ".".join(map(str, gpu.capability))
        known = f", compute capability {level} ({precision(gpu.capability)}), driver {gpu.driver}"
    facts = f"{gpu.name}, {gpu.memory_gb:g} GB{known}; {', '.join(holders) or 'free'}"
    return Finding(f"GPU {gpu.index}", "ok", facts)


def _queue(claims: list[LeaseClaim]) -> list[Finding]:
    waiting = [c for c in claims if not c.devices]
    if not waiting:
        return []
    first = min(waiting, key=lambda c: (-c.priority, c.number))
    longest = time.time() - min(c.since for c in waiting)
    facts = (
        f"{len(waiting)} steps wait for a GPU, the longest for {longest:.0f} s; next is "
        f"{first.step_key} of run {first.run_id[:8]} (process {first.pid})"
    )
    return [Finding("GPU queue", "ok", facts)]


def _package(name: str) -> Finding:
    try:
        return Finding(f"package {name}", "ok", metadata.version(name))
    except metadata.PackageNotFoundError:
        return Finding(f"package {name}", "missing", "run `make demo`, or pip install -e .")


def _codecs() -> Finding:
    import av

    missing = [c for c in CODECS if c not in av.codecs_available]
    facts = "decodes " + ", ".join(c for c in CODECS if c not in missing)
    if missing:
        return Finding("codecs", "warning", f"{facts}; not {', '.join(missing)}")
    return Finding("codecs", "ok", facts)


def _backends(tune: bool) -> list[Finding]:
    """A line for each backend; those that the machine's file chooses are to be there.

    tune: measure what those that batch take of the device, and keep it for the runs to come.
    """
    try:
        choice = machine_choice()
    except BackendsFileError as error:
        return [Finding("backends", "missing", str(error))]
    operators = dict.fromkeys(operator for operator, _ in BACKENDS)
    names = {o: getattr(choice, o) or default_name(o) for o in operators}
    entries = BACKENDS | {key: registry.find(*key) for key in names.items()}
    found = []
    for (operator, name), entry in entries.items():
        settings = choice.settings.get(operator, {}) if names[operator] == name else None
        found.append(_backend(entry, settings, choice.weights_dir))
        if tune and entry.batch and found[-1].state == "ok":
            found.append(_tuned(entry, settings or {}, choice.weights_dir))
    return found


def _backend(
    entry: BackendEntry, settings: dict[str, Any] | None = None, weights_dir: str = ""
) -> Finding:
    """settings: of the machine's file, if that chooses it; None: it does not."""
    what = f"{entry.operator}: {entry.name}{'' if settings is None else ' (chosen)'}"
    try:
        load(entry.factory)
    except Exception as error:  # any failure to import is the finding
        return Finding(what, "missing", f"{type(error).__name__}: {error}")
    try:
        if not entry.weights:
            entry.settings(**settings or {})
            return Finding(what, "ok", f"needs no weights; {entry.licence}")
        origin = f"from {entry.source}; {entry.licence}"
        return Finding(what, "ok", f"{check(entry, weights_dir, settings)}; {origin}")
    except ValidationError as error:
        return Finding(what, "missing", f"its settings: {error}")
    except WeightsMissingError as error:
        state = "unused" if settings is None else "missing"
        return Finding(what, state, f"not set up: {error}; {origin}")
    except WeightsError as error:
        return Finding(what, "missing", f"{error}; {origin}")


def _tuned(entry: BackendEntry, settings: dict[str, Any], weights_dir: str) -> Finding:
    what = f"tuned {entry.name}"
    if not entry.measured_on_cpu and device_name() == "cpu":
        return Finding(what, "ok", "not measured without a GPU: it would take many minutes")
    try:
        model = registry.tune(entry, weights_dir, settings)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return Finding(what, "warning", f"not even one item fits this device: {error}")
    batch = model.batch(entry.max_batch)
    facts = (
        f"{model.base / 1e9:.2f} GB and {model.item / 1e6:.0f} MB an item, batches to "
        f"{model.samples[-1][0]} tried on {device_name()}: {entry.batch} {batch}, which takes "
        f"{model.needs(batch) / 1e9:.2f} GB (`ego/gpu_memory_gb`); {model.copies(batch)} side by "
        f"side in {100 * TARGET:.0f} % of {model.total / 1e9:.0f} GB"
    )
    return Finding(what, "ok", facts)
