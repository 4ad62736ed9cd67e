"""Start the code servers, the webserver and the daemon of a lake, and stop them together.

This is what `dagster dev` does, with our webserver in place of Dagster's. Two more things differ:
the URL is told when the UI answers, and nothing is left behind, however this process ends.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import click

from dagster_project.home import open_instance
from dagster_project.web.code_servers import CodeServer, plan_code_servers
from dagster_project.web.hosts import Authority
from dagster_project.web.listener import Listener
from dagster_project.web.parts import Parts
from ego_assets.environment import PICTURES, SERVED
from ego_assets.graph.partitions import SHARDS
from resources.lake import Lake
from resources.processes.owned_folders import sweep, temporary_folder_of_a_program
from resources.raw.scratch import default_root

_LOOK_S = 0.2
_RESTART_S = 5
_WEB_SERVER, _DAEMON = "web server", "daemon"


def serve(
    lake: Lake, listener: Listener, allowed: Sequence[Authority], *, read_only: bool = False
) -> int:
    """Serve the UI of a lake until Ctrl-C or SIGTERM. Returns the exit status.

    A read-only UI has no daemon: it is one beside that of the people who work with the lake.
    """
    # A background job of a shell inherits an ignored SIGINT, and then nothing would stop it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with open_instance(lake.location) as instance:
            instance.add_dynamic_partitions(SHARDS, lake.shards())
        os.environ |= {"EGO_LAKE": lake.location, "DAGSTER_IS_DEV_CLI": "1", "DAGSTER_verbose": ""}
        os.environ.setdefault("EGO_SCRATCH", str(default_root()))
        os.environ.setdefault(PICTURES, SERVED)
        sweep()  # what killed ones have left
        with temporary_folder_of_a_program() as temporary, Parts() as parts:
            os.environ |= temporary
            servers, workspace = plan_code_servers(Path(temporary["TMPDIR"]))
            _start_code_servers(parts, servers)
            _start_web_server(parts, lake, listener, workspace, allowed, read_only)
            if not read_only:
                parts.start(_DAEMON, "dagster._daemon", "run", "--workspace", str(workspace))
            return _watch(parts, servers, lake, listener)
    except KeyboardInterrupt:
        return 0


def _start_code_servers(parts: Parts, servers: Sequence[CodeServer]) -> None:
    for server in servers:
        _start_code_server(parts, server)
    while not all(server.answers() for server in servers):
        for server in servers:
            if (status := parts.status(server.name)) is not None:
                raise click.ClickException(
                    f"the code server {server.name} ended with status {status}; its log is above"
                )
        time.sleep(_LOOK_S)


def _start_code_server(parts: Parts, server: CodeServer) -> None:
    parts.start(server.name, "dagster", *server.arguments, python=server.python)


def _start_web_server(
    parts: Parts,
    lake: Lake,
    listener: Listener,
    workspace: Path,
    allowed: Sequence[Authority],
    read_only: bool,
) -> None:
    listener.listen()
    descriptors = [one.fileno() for one in listener.sockets]
    arguments = ["--workspace", str(workspace), "--lake", lake.location]
    if read_only:
        arguments.append("--read-only")
    for name in (*listener.names, *allowed):
        arguments += ["--allow-host", str(name)]
    for descriptor in descriptors:
        arguments += ["--listen-on", str(descriptor)]
    parts.start(_WEB_SERVER, "dagster_project.web.server", *arguments, keep=descriptors)
    listener.close()


def _watch(parts: Parts, servers: Sequence[CodeServer], lake: Lake, listener: Listener) -> int:
    """Say where the UI is as soon as it answers. Returns when the webserver or daemon has ended."""
    is_told = False
    restarted = time.monotonic()
    while True:
        for name in (_WEB_SERVER, _DAEMON):
            if (status := parts.status(name)) is not None:
                words = f"the {name} ended with status {status}; its log is above. All is stopped."
                click.echo(f"Error: {words}", err=True)
                return 1
        for server in servers:
            status = parts.status(server.name)
            if status is not None and time.monotonic() - restarted > _RESTART_S:
                click.echo(f"The code server {server.name} ended: it is started again.", err=True)
                _start_code_server(parts, server)
                restarted = time.monotonic()
        if not is_told and listener.answers():
            click.echo(f"Dagster UI of {lake.location}: {listener.url}", err=True)
            is_told = True
        time.sleep(_LOOK_S)
