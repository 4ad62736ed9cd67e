"""How the entries of a workspace file become code servers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from dagster_project.web import code_servers
from dagster_project.web.code_servers import CodeServer, plan_code_servers


def plan(
    monkeypatch: pytest.MonkeyPatch, root: Path, *entries: Any
) -> tuple[list[CodeServer], list[dict[str, Any]]]:
    if entries:
        (root / "workspace.yaml").write_text(yaml.safe_dump({"load_from": list(entries)}))
    monkeypatch.setattr(code_servers, "ROOT", root)
    folder = root / "sockets"
    folder.mkdir()
    servers, workspace = plan_code_servers(folder)
    return servers, yaml.safe_load(workspace.read_text())["load_from"]


def test_the_projects_own_workspace_file_is_what_is_used_without_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    own, _ = plan_code_servers(elsewhere)
    installed, load_from = plan(monkeypatch, tmp_path)
    assert [s.name for s in own] == [s.name for s in installed] == ["ego"]
    assert own[0].arguments[4:] == installed[0].arguments[4:]
    assert load_from[0]["grpc_server"]["socket"] == installed[0].path
    assert not installed[0].answers()


@pytest.mark.parametrize(
    ("entry", "name", "options"),
    [
        ({"python_module": "a.b"}, "a.b", ["--module-name", "a.b"]),
        (
            {"python_module": {"module_name": "a", "attribute": "defs", "location_name": "x"}},
            "x",
            ["--module-name", "a", "--attribute", "defs"],
        ),
        ({"python_package": {"package_name": "p"}}, "p", ["--package-name", "p"]),
        (
            {"python_file": {"relative_path": "jobs.py", "attribute": "defs"}},
            "jobs.py:defs",
            ["--python-file", "ROOT/jobs.py", "--attribute", "defs", "--working-directory", "ROOT"],
        ),
        (
            {"autoload_defs_module": {"module_name": "m"}},
            "m",
            ["--autoload-defs-module-name", "m"],
        ),
    ],
)
def test_an_entry_is_a_code_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, entry: Any, name: str, options: list[str]
) -> None:
    (server,), (used,) = plan(monkeypatch, tmp_path, entry)
    assert server.name == used["grpc_server"]["location_name"] == name
    assert server.python == sys.executable
    given = server.arguments[server.arguments.index("--inject-env-vars-from-instance") + 1 :]
    assert given == [o.replace("ROOT", str(tmp_path)) for o in options]


def test_a_code_server_may_have_an_environment_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given = {"module_name": "a", "executable_path": "/opt/other/bin/python"}
    (server,), _ = plan(monkeypatch, tmp_path, {"python_module": given})
    assert server.python == "/opt/other/bin/python"
    assert server.arguments[-1] == "--use-python-environment-entry-point"


def test_a_server_of_somebody_else_is_only_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    theirs = {"grpc_server": {"host": "code.example", "port": 4266, "location_name": "theirs"}}
    servers, load_from = plan(monkeypatch, tmp_path, theirs, {"python_module": "a"})
    assert [s.name for s in servers] == ["a"]
    assert load_from[0] == theirs


def test_what_is_not_known_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(click.ClickException, match=r"workspace\.yaml: notebook is not one of"):
        plan(monkeypatch, tmp_path, {"notebook": "a"})
