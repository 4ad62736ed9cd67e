"""`ego up` as a process: what it says, when it refuses to start, and that it ends as a whole."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from dagster_project.home import open_instance
from ego_assets.intake.shards import find_files, register_files
from resources.lake import Lake
from tests.dagster_project.ui import EGO, START_S, Server, wait_for
from tests.resources.ports import free_port
from tests.support.rendered import small_sample

LAUNCH = """
mutation { launchRun(executionParams: { selector: {
  repositoryLocationName: "ego", repositoryName: "__repository__", pipelineName: "write_report"
}, mode: "default", runConfigData: "{}" }) { __typename } }
"""
WHOLE_GRAPH = LAUNCH.replace("write_report", "whole_graph").replace(
    '"{}"',
    '"{}", executionMetadata: {tags: [{key: "dagster/partition", value: "SHARD"}]}',
)
NO_QUEUE = """
telemetry: {enabled: false}
run_coordinator: {module: dagster._core.run_coordinator, class: DefaultRunCoordinator}
"""
REPORT = "report_asset_materialization/reports"


def ego_up(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([EGO, "up", *options], capture_output=True, text=True, timeout=120)


def test_a_used_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        done = ego_up("--lake", str(tmp_path), "--port", port)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"Error: port {port} of 127.0.0.1 is in use: ")
    assert "ego up --port" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("host", ["203.0.113.7", "no-such-name.invalid"])
def test_an_address_of_another_machine_is_named(tmp_path: Path, host: str) -> None:
    done = ego_up("--lake", str(tmp_path), "--host", host)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"Error: --host {host}: ")


def test_no_lake_is_made_by_a_typo(tmp_path: Path) -> None:
    done = ego_up("--lake", str(tmp_path / "typo"))
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"Error: there is no lake at {tmp_path / 'typo'}: `ego run` makes one"
    ]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["https://ego.example.org", "*"])
def test_only_hosts_can_be_allowed(tmp_path: Path, name: str) -> None:
    done = ego_up("--lake", str(tmp_path), "--allow-host", name)
    assert done.returncode == 2
    assert "is no host" in done.stderr


@contextmanager
def started(log: Path, *options: str, **variables: str) -> Iterator[psutil.Popen]:
    """Start `ego up`, with `log` for what it writes. In the end nothing of it is left."""
    command, environment = [EGO, "up", *options], os.environ | variables
    with log.open("w") as out:
        process = psutil.Popen(command, stdout=out, stderr=out, env=environment)
    try:
        yield process
    finally:
        if process.poll() is None:
            for child in [process, *process.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    child.kill()


def children_with(process: psutil.Popen, words: str) -> Callable[[], list[psutil.Process]]:
    def found() -> list[psutil.Process]:
        assert process.poll() is None
        return [c for c in process.children(recursive=True) if words in " ".join(c.cmdline())]

    return found


@pytest.mark.slow
def test_it_can_be_stopped_while_it_starts(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with started(log, "--lake", str(tmp_path), "--port", str(free_port())) as process:
        wait_for("code server", children_with(process, "code-server"), START_S)
        family = process.children(recursive=True)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        _, alive = psutil.wait_procs(family, timeout=60)
        assert alive == []
    assert "Dagster UI" not in log.read_text()
    assert "Traceback" not in log.read_text()


@pytest.mark.slow
def test_nothing_is_left_if_it_is_killed(tmp_path: Path) -> None:
    """Not the run that is on either: it is interrupted, as by a Ctrl-C."""
    video = small_sample(tmp_path / "raw")
    lake = Lake(tmp_path / "lake")
    register_files(lake, find_files([video]).files)
    home = lake.root / ".dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text(NO_QUEUE)
    port = free_port()
    server = Server(f"http://127.0.0.1:{port}", lake)
    log = tmp_path / "log"
    with started(log, "--lake", str(lake.root), "--port", str(port)) as process:
        wait_for("URL", lambda: server.url in log.read_text(), START_S)
        query = WHOLE_GRAPH.replace("SHARD", lake.shards()[0])
        assert server.ask(query)["launchRun"]["__typename"] == "LaunchRunSuccess"
        wait_for(
            "worker of the run", children_with(process, "resources.processes.forking"), START_S
        )
        family = process.children(recursive=True)
        process.kill()
        _, alive = psutil.wait_procs(family, timeout=60)
        assert alive == []
    with open_instance(lake.location) as instance:
        (run,) = instance.get_runs()
    assert run.is_finished


@pytest.mark.heavy
def test_a_read_only_ui_for_the_network(tmp_path: Path) -> None:
    port = free_port()
    log = tmp_path / "log"
    url = f"http://127.0.0.1:{port}"
    options = ["--lake", str(tmp_path), "--port", str(port), "--host", "0.0.0.0", "--read-only"]

    def get(path: str = "server_info", method: str = "GET", **options: Any) -> requests.Response:
        return requests.request(method, f"{url}/{path}", timeout=30, **options)

    with started(log, *options, EGO_ALLOWED_HOSTS="box.example, other:8443") as process:

        def is_told() -> bool:
            assert process.poll() is None, log.read_text()
            return f"http://0.0.0.0:{port}" in log.read_text()

        wait_for("URL", is_told, START_S)
        assert get().ok  # the URL is told when the UI answers, and not before
        assert get(headers={"Host": "box.example:1234"}).ok
        assert get(headers={"Host": "other:8443"}).ok
        for host in ("other:3000", "evil.example", "0.0.0.0", socket.gethostname() + ".evil"):
            assert get(headers={"Host": host}).status_code == 403
        answer = get("graphql", "POST", json={"query": LAUNCH})
        assert answer.json()["data"]["launchRun"]["__typename"] == "UnauthorizedError"
        assert get(REPORT, "POST").status_code == 401
        assert get("graphql", params={"query": LAUNCH}).status_code == 403
        assert children_with(process, "dagster._daemon")() == []

        (server,) = children_with(process, "dagster_project.web.server")()
        family = process.children(recursive=True)
        server.kill()
        assert process.wait(120) == 1
        _, alive = psutil.wait_procs(family, timeout=60)
        assert alive == []
    assert "Error: the web server ended with status -9" in log.read_text()
    assert "Traceback" not in log.read_text()
