"""Checks every EGO_ variable at the start: a run must not find out at its end.

Here: all of them at once. Not here: what each is for (where it is read).
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from resources.environment import (
    EnvironmentVariableError,
    answer_timeout_s,
    backends_file,
    degrade_after_s,
    faces_must_be_blurred,
    keep_count,
    ledger_url,
    read_number,
    read_text,
    scratch_gigabytes,
    simulated_gpus,
)
from resources.lake.lake import DEFAULT_LAKE


@dataclass(frozen=True)
class Variable:
    """An environment variable that a person may set. default: in words, what holds without it."""

    name: str
    default: str
    is_secret: bool = False


PICTURES = "EGO_PICTURES"
SERVED, EMBEDDED = "served", "embedded"
GALLERIES = "EGO_GALLERIES"
VARIABLES = (
    Variable("EGO_LAKE", DEFAULT_LAKE),
    Variable("EGO_LEDGER_URL", "SQLite in the lake", is_secret=True),
    Variable("EGO_RAW", ".ego/raw"),
    Variable("EGO_BACKENDS", "no file: the backends that run out of the box"),
    Variable("EGO_WEIGHTS", "~/.cache/ego"),
    Variable(PICTURES, "served, by `ego up` and `ego run`; else embedded"),
    Variable(GALLERIES, "all: a video of each clip"),
    Variable("EGO_FACES", "keep: each export says whether it shows faces"),
    Variable("EGO_REVIEWER", "nobody, or whom a person names at the page"),
    Variable("EGO_SCRATCH", "a folder of this user among the temporary files"),
    Variable("EGO_SCRATCH_GB", "half of what is free there"),
    Variable("EGO_KEEP_VERSIONS", "3"),
    Variable("EGO_MAX_RUNS", "as many as the machine has room for"),
    Variable("EGO_SHARDS_PER_RUN", "1"),
    Variable("EGO_DEGRADE_AFTER_S", "steps wait for a GPU"),
    Variable("EGO_FAKE_GPUS", "the GPUs of this machine"),
    Variable("EGO_LEASE_DIR", "a folder of this user under /tmp"),
    Variable("EGO_S3_TIMEOUT_S", "60"),
    Variable("EGO_ALLOWED_HOSTS", "local ones"),
    Variable("EGO_ALERT_WEBHOOK_URL", "no webhook", is_secret=True),
    Variable("EGO_ALERT_SLACK_URL", "no Slack", is_secret=True),
    Variable("EGO_ALERT_SMTP_PASSWORD", "no password", is_secret=True),
)
_FOLDERS = ("EGO_LAKE", "EGO_SCRATCH", "EGO_WEIGHTS", "EGO_LEASE_DIR", "DAGSTER_HOME")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_ADDRESSES = ("EGO_ALERT_WEBHOOK_URL", "EGO_ALERT_SLACK_URL")


def check_environment() -> None:
    """Raise EnvironmentVariableError for the first variable that makes no sense."""
    if not is_utf8():
        raise EnvironmentVariableError(
            f"PYTHONUTF8 is {read_text('PYTHONUTF8')!r}, and names of files are "
            f"{sys.getfilesystemencoding()} by the locale (LC_ALL, LANG): set PYTHONUTF8 to 1"
        )
    keep_count()
    answer_timeout_s()
    scratch_gigabytes()
    simulated_gpus()
    degrade_after_s()
    shards_per_run()
    max_runs()
    serves_pictures()
    which_galleries()
    faces_must_be_blurred()
    for name in _FOLDERS:
        _check_folder(name)
    for name in _ADDRESSES:
        _check_address(name)
    if url := ledger_url():
        _check_ledger(url)
    if backends_file():
        from ego_assets.models.choice import BackendsFileError, machine_choice

        try:
            machine_choice()
        except BackendsFileError as error:
            raise EnvironmentVariableError(
                f"EGO_BACKENDS names a file that cannot be used: {error}"
            ) from error


def is_utf8() -> bool:
    """Whether Python reads names of files as UTF-8, as databases and tables do."""
    return sys.getfilesystemencoding().replace("-", "").lower() == "utf8"


def shards_per_run() -> int:
    """EGO_SHARDS_PER_RUN: shards of a run of a backfill; 0 for all of them; 1 unless set. Raises
    EnvironmentVariableError."""
    what = "how many shards a run of a backfill takes (0: all)"
    return int(read_number("EGO_SHARDS_PER_RUN", 1, 0, 100_000, whole=True, what=what))


def max_runs() -> int | None:
    """EGO_MAX_RUNS: runs that the daemon has go on at a time; None unless set. Raises
    EnvironmentVariableError."""
    what = "how many runs go on at a time"
    return int(read_number("EGO_MAX_RUNS", 0, 1, 100_000, whole=True, what=what)) or None


def serves_pictures() -> bool:
    """EGO_PICTURES: whether the web server that shows a run's pictures has them from the lake, as
    that of `ego up`; else they go into Dagster's database. Raises EnvironmentVariableError."""
    given = read_text(PICTURES) or EMBEDDED
    if given not in (SERVED, EMBEDDED):
        raise EnvironmentVariableError(
            f"{PICTURES} is {given[:300]!r}: give {SERVED} (for `ego up`) or {EMBEDDED} (for "
            "another web server)"
        )
    return given == SERVED


def which_galleries() -> Literal["all", "failing", "none"]:
    """EGO_GALLERIES: which clips have a video in the gallery of their shard. Raises
    EnvironmentVariableError."""
    match read_text(GALLERIES) or "all":
        case "all" | "failing" | "none" as which:
            return which
        case given:
            raise EnvironmentVariableError(
                f"{GALLERIES} is {given[:300]!r}: give all, failing (a video of clips that fail) "
                "or none (a page without videos)"
            )


def _check_folder(name: str) -> None:
    given = read_text(name)
    if given and (why := fault_of_folder(given, may_be_on_s3=name == "EGO_LAKE")):
        raise EnvironmentVariableError(f"{name} is {given[:300]!r}, {why}: give a folder")


def fault_of_folder(given: str, *, may_be_on_s3: bool = False) -> str:
    """Why a folder cannot be used; empty: it can, whether it is there yet or not."""
    if given.startswith("s3://") and may_be_on_s3:
        return ""
    if _URL.match(given):
        return "which is a URL, not a path"
    try:
        given.encode()
        path = Path(given).expanduser().absolute()
        while not (path.exists() or path.is_symlink()):
            path = path.parent
        return "" if path.is_dir() else f"and {path} is not a folder"
    except UnicodeEncodeError:
        return "which is not UTF-8 text"
    except (OSError, RuntimeError, ValueError) as error:
        return f"which cannot be used ({getattr(error, 'strerror', None) or error})"


def _check_address(name: str) -> None:
    """What it holds is a secret, and not shown."""
    given = read_text(name)
    try:
        parts = urlsplit(given)
        is_right = parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        is_right = False
    if given and not is_right:
        raise EnvironmentVariableError(
            f"{name} holds no address: give one that begins with https:// or http://"
        )


def _check_ledger(url: str) -> None:
    """It may hold a password, and is not shown."""
    import sqlalchemy as sa

    from resources.ledger.tables import SQLITE

    try:
        if url.startswith(SQLITE):
            path = url.removeprefix(SQLITE)
            is_right = path.strip() not in {"", ":memory:"} and not Path(path).is_dir()
        else:
            is_right = url.startswith("postgresql") and bool(sa.make_url(url))
    except (sa.exc.ArgumentError, OSError, ValueError):
        is_right = False
    if not is_right:
        raise EnvironmentVariableError(
            "EGO_LEDGER_URL holds no URL of a database that lasts: give "
            "postgresql://USER@HOST/DATABASE, or sqlite:////absolute/file"
        )
