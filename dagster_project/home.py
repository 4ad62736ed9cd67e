"""The Dagster instance of a lake: where runs and events are kept."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import dagster as dg

from resources.backends.weights import cache_file
from resources.lake import LakeError

ROOT = Path(__file__).resolve().parents[1]
_DEFAULT_CONFIG = "telemetry:\n  enabled: false\nnux:\n  enabled: false\n"


def prepare_home(lake_root: str | Path) -> Path:
    """DAGSTER_HOME if it is set, else a folder in the lake with a dagster.yaml of ours.

    For a lake on S3 it is a folder of this machine: set DAGSTER_HOME where many work on it.
    """
    given = os.environ.get("DAGSTER_HOME")
    if given:
        home = Path(given)
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


def open_instance(lake_root: str | Path) -> dg.DagsterInstance:
    """The instance in the lake's home. To be closed by the caller (it is a context manager)."""
    prepare_home(lake_root)
    return dg.DagsterInstance.get()
