"""What a command needs of the process that it runs in: text, a temporary folder, the environment.

What is wrong there is said before anything is done. Not here: commands.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper

from dagster_project.web.hosts import parse_allowed
from ego_assets.environment import PICTURES, SERVED, check_environment, is_utf8
from resources.environment import EnvironmentVariableError, read_text
from resources.processes.temp_folder import shorten_temp_folder

UTF8 = "PYTHONUTF8"
ALLOWED_HOSTS = "EGO_ALLOWED_HOSTS"


def prepare_text() -> None:
    """Make any name of a file readable and printable, whatever the locale.

    Without UTF-8 (LC_ALL=C with PYTHONUTF8=0, an old locale) Python cannot pass names of files on
    to databases and tables: then this process starts again with it, and so does what it starts.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal may know ASCII alone
    if is_utf8() or os.environ.get(UTF8) == "1":
        return
    os.environ[UTF8] = "1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def prepare() -> None:
    """Raise ValueError if the environment makes no sense."""
    shorten_temp_folder()
    check_environment()
    try:
        parse_allowed(read_text(ALLOWED_HOSTS))
    except ValueError as error:
        raise EnvironmentVariableError(f"{ALLOWED_HOSTS}: {error}") from error


@contextmanager
def pictures_served() -> Iterator[None]:
    """Have the runs keep their pictures where `ego up` serves them, unless a person says else."""
    before = os.environ.get(PICTURES)
    os.environ[PICTURES] = before or SERVED
    try:
        yield
    finally:
        if before is None:
            del os.environ[PICTURES]  # empty, it would be a choice, which `ego up` leaves alone
        else:
            os.environ[PICTURES] = before
