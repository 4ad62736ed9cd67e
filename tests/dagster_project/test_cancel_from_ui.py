"""A run that is launched and terminated as the UI does it, by the webserver's own API."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import executor_jobs
import pytest
import requests
from test_dagster_dev import LAUNCH, STATUS
from test_executor import endless, is_running, wait_for

from resources.devices.leases import LeaseBook
from tests.resources.ports import free_port

TERMINATE = """
mutation Terminate($id: String!) {
  terminateRun(runId: $id) { __typename ... on PythonError { message } }
}
"""
NO_DAEMON = """
telemetry: {enabled: false}
run_coordinator: {module: dagster._core.run_coordinator, class: DefaultRunCoordinator}
"""


class Webserver:
    def __init__(self, home: Path) -> None:
        home.mkdir()
        (home / "dagster.yaml").write_text(NO_DAEMON)
        self.log = home / "log"
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [str(Path(sys.executable).with_name("dagster-webserver")), "-p", str(port)]
        with self.log.open("w") as out:
            self.process = subprocess.Popen(
                [*command, "-f", executor_jobs.__file__, "-a", "for_the_ui"],
                cwd=Path(executor_jobs.__file__).parent,
                env=os.environ | {"DAGSTER_HOME": str(home)},
                stdout=out,
                stderr=out,
            )

    def is_up(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        try:
            return requests.get(f"{self.url}/server_info", timeout=5).ok
        except requests.RequestException:
            return False

    def ask(self, query: str, **variables: Any) -> Any:
        body = {"query": query, "variables": variables}
        answer = requests.post(f"{self.url}/graphql", json=body, timeout=60).json()
        assert "errors" not in answer, answer["errors"]
        (found,) = answer["data"].values()
        return found


@pytest.fixture
def webserver(tmp_path: Path) -> Iterator[Webserver]:
    server = Webserver(tmp_path / "home")
    try:
        wait_for(server.is_up)
        yield server
    finally:
        server.process.terminate()
        server.process.wait(60)


@pytest.mark.slow
def test_a_step_stuck_in_native_code_is_cancelled(webserver: Webserver, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    params = {
        "selector": {
            "repositoryLocationName": "executor_jobs.py:for_the_ui",
            "repositoryName": "for_the_ui",
            "pipelineName": "endless",
        },
        "runConfigData": endless(mark, "stuck")
        | {"execution": {"config": {"gpus": 4, "cancel_grace_s": 0.5}}},
    }
    launched = webserver.ask(LAUNCH, params=params)
    assert launched["__typename"] == "LaunchRunSuccess", launched
    run_id = launched["run"]["runId"]
    wait_for(mark.exists)
    assert [c.run_id for c in LeaseBook().holders()] == [run_id]
    ended = webserver.ask(TERMINATE, id=run_id)
    assert ended["__typename"] == "TerminateRunSuccess", ended
    wait_for(lambda: webserver.ask(STATUS, id=run_id)["status"] not in ("STARTED", "CANCELING"))
    assert webserver.ask(STATUS, id=run_id)["status"] == "CANCELED"
    assert not any(is_running(pid) for pid in json.loads(mark.read_text()))
    assert LeaseBook().claims() == []
