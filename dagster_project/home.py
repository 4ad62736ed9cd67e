"""The Dagster instance of a lake: where runs and events are kept."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import dagster as dg

ROOT = Path(__file__).resolve().parents[1]
_DEFAULT_CONFIG = "telemetry:\n  enabled: false\nnux:\n  enabled: false\n"


def prepare_home(lake_root: str | Path) -> Path:
    """DAGSTER_HOME if it is set, else a folder in the lake with a dagster.yaml of ours.

    For a lake on S3 it is a folder of this machine: set DAGSTER_HOME where many work on it.
    """
    given = os.environ.get("DAGSTER_HOME")
    if given:
        home = Path(given).expanduser().resolve()  # Dagster takes no other
    elif str(lake_root).startswith("s3://"):
        name = hashlib.sha256(str(lake_root).encode()).hexdigest()[:12]
        home = Path(".ego/homes").resolve() / name
    else:
        home = Path(lake_root) / ".dagster"
    home.mkdir(parents=True, exist_ok=True)
    config = home / "dagster.yaml"
    if not config.exists():
        ours = ROOT / "dagster.yaml"
        if ours.exists():
            shutil.copyfile(ours, config)
        else:
            config.write_text(_DEFAULT_CONFIG)
    os.environ["DAGSTER_HOME"] = str(home)
    return home


def open_instance(lake_root: str | Path) -> dg.DagsterInstance:
    """The instance in the lake's home. To be closed by the caller (it is a context manager)."""
    prepare_home(lake_root)
    return dg.DagsterInstance.get()
