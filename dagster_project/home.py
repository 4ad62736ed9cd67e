"""The Dagster instance of a lake: where runs and events are kept."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

from ego_assets.models.weights import cache_file
from resources.lake import LakeError

ROOT = Path(__file__).resolve().parents[1]
_DEFAULT_CONFIG = """telemetry:
  enabled: false
run_coordinator:
  module: dagster_project.run_queue
  class: MachineRunCoordinator
nux:
  enabled: false
"""
_EARLIER = {
    "6f08751724c0137c3652abb499b48ba8657d10887aa0fa5935a50a5f3454234e",  # pragma: allowlist secret
    "1220c5da04ed076989b5fe5f46858286317b2b50e92dda7d43b33468b28e67e8",  # pragma: allowlist secret
    "3fae54066104e59d7b5f5d39db83e4c046072c5abecc88e66ad8d54325461c93",  # pragma: allowlist secret
    "f8805dc9e6f614c7063da7dcf3562d13a17819c1c5a14d3156d9974de6353777",  # pragma: allowlist secret
}
"""SHA-256 of the files that earlier releases have made: who never edited one gets the new one."""
DAGSTERS_LIMIT = 10


def home_of(lake_root: str | Path) -> Path:
    """Return DAGSTER_HOME if it is set, else a folder in the lake.

    For a lake on S3 it is a folder of this machine: set DAGSTER_HOME where many work on it.
    """
    if given := os.environ.get("DAGSTER_HOME"):
        return Path(given).expanduser().resolve()  # Dagster takes no other
    if str(lake_root).startswith("s3://"):
        name = hashlib.sha256(str(lake_root).encode()).hexdigest()[:12]
        return Path(".ego/homes").resolve() / name
    return Path(lake_root) / ".dagster"


def prepare_home(lake_root: str | Path) -> Path:
    """Make the home of a lake, with a dagster.yaml of ours unless a person has one there."""
    home = home_of(lake_root)
    home.mkdir(parents=True, exist_ok=True)
    config = home / "dagster.yaml"
    if not config.exists() or _is_earlier(config):
        ours = ROOT / "dagster.yaml"
        aside = home / f"dagster.yaml.{os.getpid()}"
        aside.write_text(ours.read_text() if ours.exists() else _DEFAULT_CONFIG)
        aside.replace(config)
    home = _without_query(home)
    os.environ["DAGSTER_HOME"] = str(home)
    return home


def _without_query(home: Path) -> Path:
    """A path to the folder that holds no `?`, which Dagster would take for the query of a URL.

    Where the folder's own path has one, it is a link in the user's cache. Raises LakeError if that
    has one, too, or cannot be written.
    """
    if "?" not in str(home):
        return home
    link = cache_file("homes") / hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
    try:
        if "?" in str(link):
            raise OSError(f"{link} has a `?`, too")
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink() or link.readlink() != home:
            aside = link.with_suffix(f".{os.getpid()}")
            aside.symlink_to(home)
            aside.replace(link)
    except OSError as error:
        raise LakeError(
            f"Dagster cannot keep its runs in {home} because of the `?`, and no link to it can be "
            f"made ({error}): set DAGSTER_HOME to a folder whose path has no `?`"
        ) from error
    return link


def limit_in(home: Path) -> int | None:
    """Return how many runs at a time the home's dagster.yaml allows; None: as many as the machine
    has room for. Raises ValueError, also for what Dagster itself would refuse."""
    config = home / "dagster.yaml"
    if not config.exists() or _is_earlier(config):
        return None
    found = _mapping(yaml.safe_load(config.read_text()), f"{config}")
    coordinator = _mapping(found.get("run_coordinator"), f"run_coordinator in {config}")
    places = {
        "runs of concurrency": _mapping(found.get("concurrency"), f"concurrency in {config}").get(
            "runs"
        ),
        "config of run_coordinator": coordinator.get("config"),
        "run_queue": found.get("run_queue"),
    }
    for name, place in places.items():
        settings = _mapping(place, f"{name} in {config}")
        if "max_concurrent_runs" in settings:
            return _number(settings["max_concurrent_runs"], f"max_concurrent_runs in {config}")
    is_ours = coordinator.get("class") == "MachineRunCoordinator"
    return None if is_ours else DAGSTERS_LIMIT


def _mapping(given: Any, what: str) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise ValueError(f"{what} is {given!r:.100}: Dagster needs names with values there")
    return given


def _number(given: Any, what: str) -> int | None:
    """A number of runs, as Dagster reads it: it may be in a variable of the environment."""
    if isinstance(given, dict) and list(given) == ["env"]:
        name = str(given["env"])
        given, what = os.environ.get(name), f"{what} is the variable {name}, which"
        if given is None:
            raise ValueError(f"{what} is not set")
        with suppress(ValueError):
            given = int(given)
    if given is not None and (isinstance(given, bool) or not isinstance(given, int)):
        raise ValueError(f"{what} is {given!r:.100}: give a whole number (-1: no limit)")
    return given


def open_instance(lake_root: str | Path) -> dg.DagsterInstance:
    """The instance in the lake's home. To be closed by the caller (it is a context manager)."""
    prepare_home(lake_root)
    return dg.DagsterInstance.get()


def _is_earlier(config: Path) -> bool:
    return hashlib.sha256(config.read_bytes()).hexdigest() in _EARLIER
