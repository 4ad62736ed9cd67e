"""What works on this machine: the findings of `ego doctor`."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import psutil

from resources.backends.registry import REGISTRY, BackendEntry, check
from resources.backends.weights import WeightsError, WeightsMissingError
from resources.gpu import list_gpus

PACKAGES = ("dagster", "torch", "pycolmap", "dex_retargeting", "av", "opencv-python-headless")
CODECS = ("h264", "hevc", "av1", "vp9", "mpeg4", "mjpeg", "mpeg2video", "aac", "opus")
PYTHON = (3, 11)


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, how it stands (ok, warning, missing), and the facts."""

    what: str
    state: str
    facts: str


def examine(lake_root: str) -> list[Finding]:
    """Look at everything; never raises for what is missing."""
    return [
        _python(),
        _machine(),
        _lake(lake_root),
        *_gpus(),
        *[_package(name) for name in PACKAGES],
        _codecs(),
        *[_backend(entry) for entry in REGISTRY.values()],
    ]


def _python() -> Finding:
    version = platform.python_version()
    right = version.startswith(f"{PYTHON[0]}.{PYTHON[1]}.")
    return Finding("python", "ok" if right else "warning", f"{version}; 3.11 is what is tested")


def _machine() -> Finding:
    memory = psutil.virtual_memory()
    facts = f"{len(os.sched_getaffinity(0))} CPUs, {memory.available / 2**30:.1f} GiB memory free"
    enough = memory.available > 3 * 2**30
    return Finding("machine", "ok" if enough else "warning", facts)


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
    gpus = list_gpus()
    if not gpus:
        return [Finding("GPU", "ok", "none: every stage runs on the CPU")]
    return [Finding(f"GPU {g.index}", "ok", f"{g.name}, {g.memory_gb} GB") for g in gpus]


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


def _backend(entry: BackendEntry) -> Finding:
    what = f"{entry.operator}: {entry.name}"
    module, _, name = entry.factory.partition(":")
    try:
        getattr(importlib.import_module(module), name)
    except Exception as error:  # any failure to import is the finding
        return Finding(what, "missing", f"{type(error).__name__}: {error}")
    if not entry.weights:
        return Finding(what, "ok", f"needs no weights; {entry.licence}")
    origin = f"from {entry.source}; {entry.licence}"
    try:
        return Finding(what, "ok", f"{check(entry)}; {origin}")
    except WeightsMissingError as error:
        return Finding(what, "warning", f"not set up: {error}; {origin}")
    except WeightsError as error:
        return Finding(what, "missing", f"{error}; {origin}")
