"""A Postgres server of the tests' own: real, on a free port, gone with the test."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import sqlalchemy as sa

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
    def started(folder: Path) -> Iterator[Postgres]:
        """A running server; skips the test if Postgres is not installed."""
        binaries = _binaries()
        if binaries is None:
            pytest.skip("no Postgres here: install Debian's package postgresql")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        # Postgres refuses to run as root.
        user = "nobody" if os.geteuid() == 0 else None
        server = Postgres(folder / "data", binaries, port, user)
        if user:
            for parent in (folder, *folder.parents):
                if parent.name.startswith("pytest-"):
                    parent.chmod(0o755)
            shutil.chown(folder, user)
        server.call("initdb", "-D", str(server.folder), "-U", "ego", "--auth=trust", "-N")
        server.control("start")
        try:
            yield server
        finally:
            server.control("stop", "-m", "immediate")

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
        log = str(self.folder.parent / "log")
        self.call(
            "pg_ctl", verb, "-w", "-D", str(self.folder), "-l", log, "-o", options, *arguments
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
