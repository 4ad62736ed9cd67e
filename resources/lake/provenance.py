"""Where a file came from: run, attempt, code, settings, weights, inputs, packages, machine.

It travels in the Parquet metadata of every file, so that each number leads back to its video.
"""

from __future__ import annotations

import json
import platform
import socket
import subprocess
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "dagster",
    "numpy",
    "opencv-python-headless",
    "av",
    "pyarrow",
    "pycolmap",
    "torch",
    "transformers",
)


@dataclass(frozen=True)
class Provenance:
    """Of one item (a clip, or a video) in one table."""

    run_id: str
    attempt: int
    stage: str
    operator: str
    operator_version: str
    weights_hash: str
    input_hash: str
    fingerprint: str
    settings: str
    code_version: str
    created_at: str
    host: str
    packages: str
    token: int = 0
    """Fencing token of the attempt: of two, the higher one's rows count."""
    device: str = ""
    """The GPUs that the process saw, as CUDA_VISIBLE_DEVICES names them, or `cpu`."""
    accelerator: str = ""
    """JSON of the GPU that it computed on: name, compute capability, driver, CUDA; empty: none.

    Where only a map was solved on one: its name in CUDA_VISIBLE_DEVICES, and by what."""
    provisional: str = ""
    """Of rows that stand in for those of a backend that got no GPU: `WaitsForGpu: ` and why."""

    profile: str = ""
    """Name of the settings that a person chose for the shard; empty: the defaults."""

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str | bytes) -> Provenance:
        values: dict[str, Any] = json.loads(text)
        return Provenance(**values)


@cache
def code_version() -> str:
    """Package version, with the git commit when the code runs from a checkout."""
    version = metadata.version("ego-assets")
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return version
    try:
        described = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return version
    return f"{version}+{described.stdout.strip()}"


@cache
def package_versions() -> str:
    """JSON of the versions that decide results."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return json.dumps(found, sort_keys=True)


@cache
def host() -> str:
    return f"{socket.gethostname()} {platform.machine()}"
