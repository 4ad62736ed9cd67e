"""A Postgres server of the tests' own: real, on a free port, gone with the test."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.resources.ports import free_port

_names = itertools.count()


def _binaries() -> Path | None:
    if shutil.which("initdb") and shutil.which("pg_ctl"):
        return Path(shutil.which("initdb") or "").resolve().parent
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


@dataclass
class Postgres:
    """`url` is of its administrator; `new_database` gives the URL of an empty database."""

    folder: Path
    binaries: Path
    port: int
    user: str | None = field(default=None)

    @staticmethod
    @contextmanager
    def started() -> Iterator[Postgres]:
        """A running server; skips the test if Postgres is not installed."""
        binaries = _binaries()
        if binaries is None:
            pytest.skip("no Postgres here: install Debian's package postgresql")
        port = free_port()
        # Postgres refuses to run as root, and pytest closes its folders to everybody else, again
        # and again.
        user = "nobody" if os.geteuid() == 0 else None
        folder = Path(tempfile.mkdtemp(prefix="ego-postgres-"))
        if user:
            shutil.chown(folder, user)
        server = Postgres(folder / "data", binaries, port, user)
        server.call("initdb", "-D", str(server.folder), "-U", "ego", "--auth=trust", "-N")
        server.control("start")
        try:
            yield server
        finally:
            server.control("stop", "-m", "immediate")
            shutil.rmtree(folder)

    def call(self, program: str, *arguments: str) -> None:
        command = [str(self.binaries / program), *arguments]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
        options = {"user": self.user, "group": pwd.getpwnam(self.user).pw_gid} if self.user else {}
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=120,
            cwd="/",
            env=environment,
            **options,  # type: ignore[call-overload]
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"

    def control(self, verb: str, *arguments: str) -> None:
        options = f"-p {self.port} -k {self.folder.parent} -c listen_addresses=127.0.0.1"
        options += " -c fsync=off"  # it is killed, the machine is not
        log = str(self.folder.parent / "log")
        self.call(
            "pg_ctl",
            verb,
            "-w",
            "-t",
            "110",
            "-D",
            str(self.folder),
            "-l",
            log,
            "-o",
            options,
            *arguments,
        )

    def restart(self) -> None:
        self.control("restart", "-m", "immediate")

    def new_database(self) -> str:
        name = f"ego{next(_names)}"
        admin = f"postgresql+psycopg2://ego@127.0.0.1:{self.port}/postgres"
        engine = sa.create_engine(admin, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return f"postgresql://ego@127.0.0.1:{self.port}/{name}"
