"""Serve Dagster's UI behind the guard. `ego up` starts this as a process.

The guard is in the webserver's own process: a proxy in front of it would leave a second port open,
and a web page could ask there.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from importlib.metadata import version

import click
import uvicorn
from dagster import DagsterInstance
from dagster_webserver.cli import (
    DEFAULT_DB_STATEMENT_TIMEOUT,
    DEFAULT_POOL_MAX_OVERFLOW,
    DEFAULT_POOL_RECYCLE,
    WorkspaceOpts,
    WorkspaceProcessContext,
    configure_loggers,
    create_app_from_workspace_process_context,
    workspace_opts_to_load_target,
)

from dagster_project.web.beside import Beside, galleries_of, pictures_of
from dagster_project.web.guard import Guard
from dagster_project.web.guide import docs_folder, guide_of
from dagster_project.web.hosts import parse_allowed
from dagster_project.web.review import ReviewPages
from ego_assets.galleries.files import URL as GALLERIES_URL
from ego_assets.graph.metadata import GUIDE_URL
from ego_assets.media.pictures import URL as PICTURES_URL
from ego_assets.media.pictures import Pictures
from resources.environment import reviewer
from resources.lake import Lake
from resources.processes.owned_folders import temporary_folder

_POLL_MS = 2000
_CLOSING_S = 20


@click.command()
@click.option("--workspace", required=True)
@click.option("--lake", required=True)
@click.option("--listen-on", "descriptors", type=int, multiple=True, required=True)
@click.option("--allow-host", "allowed", multiple=True, required=True)
@click.option("--read-only", is_flag=True)
def main(
    workspace: str,
    lake: str,
    descriptors: tuple[int, ...],
    allowed: tuple[str, ...],
    read_only: bool,
) -> None:
    """Serve the code locations of a workspace file, a lake's pictures, and the page on which people
    judge its episodes, on sockets that listen already."""
    configure_loggers()
    hosts = parse_allowed(" ".join(allowed))
    with DagsterInstance.get() as instance:
        instance.optimize_for_webserver(
            DEFAULT_DB_STATEMENT_TIMEOUT, DEFAULT_POOL_RECYCLE, DEFAULT_POOL_MAX_OVERFLOW
        )
        with (
            temporary_folder() as folder,
            WorkspaceProcessContext(
                instance,
                workspace_load_target=workspace_opts_to_load_target(
                    WorkspaceOpts(workspace=[workspace])
                ),
                version=version("dagster-webserver"),
                read_only=read_only,
                code_server_log_level="WARNING",
            ) as context,
        ):
            app = create_app_from_workspace_process_context(context, live_data_poll_rate=_POLL_MS)
            pages = ReviewPages(app, Lake(lake), folder, reviewer=reviewer(), read_only=read_only)
            pictures = pictures_of(Pictures(Lake(lake)))
            answers = {
                PICTURES_URL: pictures,
                GALLERIES_URL: galleries_of(Lake(lake)),
                GUIDE_URL: guide_of(docs_folder()),
            }
            config = uvicorn.Config(
                Guard(Beside(pages, answers), hosts),
                log_level="warning",
                # X-Forwarded-* are what a client says: nothing here needs them.
                proxy_headers=False,
                timeout_graceful_shutdown=_CLOSING_S,
            )
            sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
            with suppress(KeyboardInterrupt):  # raised once more when all is closed
                uvicorn.Server(config).run(sockets)


if __name__ == "__main__":
    main()
