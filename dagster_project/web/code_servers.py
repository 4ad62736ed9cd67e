"""Name the code servers of a workspace file: the processes that load code and launch runs.

Each listens on a Unix socket in a folder that only its user may enter. The webserver and the daemon
share them, as under `dagster dev`.
"""

from __future__ import annotations

import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import yaml

from dagster_project.home import ROOT

_TARGETS = {
    "python_module": ("module_name", "--module-name"),
    "python_package": ("package_name", "--package-name"),
    "python_file": ("relative_path", "--python-file"),
    "autoload_defs_module": ("module_name", "--autoload-defs-module-name"),
}
"""{kind of an entry: its key for the target, the option of `dagster code-server start`}."""
_OURS = {
    "module_name": "dagster_project.definitions",
    "attribute": "deployed",
    "location_name": "ego",
}


@dataclass(frozen=True)
class CodeServer:
    """How to start one code server, and the socket on which it will listen."""

    name: str
    python: str
    arguments: list[str]
    path: str

    def answers(self) -> bool:
        """Whether the server accepts connections, which it does when its code is loaded."""
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(self.path) == 0


def plan_code_servers(folder: Path) -> tuple[list[CodeServer], Path]:
    """The code servers of the project's workspace file, and a workspace file that uses them.

    Raises click.ClickException if the workspace file holds something else.
    """
    file = ROOT / "workspace.yaml"
    entries: Any = [{"python_module": _OURS}]
    if file.exists():
        entries = (yaml.safe_load(file.read_text()) or {}).get("load_from") or []
    servers: list[CodeServer] = []
    load_from: list[dict[str, Any]] = []
    for number, entry in enumerate(entries):
        ((kind, given),) = entry.items()
        if kind == "grpc_server":  # a server that somebody else started
            load_from.append(entry)
            continue
        if kind not in _TARGETS:
            raise click.ClickException(f"{file}: {kind} is not one of {', '.join(_TARGETS)}")
        server, about = _code_server(kind, given, file.parent, folder / f"{number}.sock")
        servers.append(server)
        known = {"location_name": server.name, "socket": server.path, "additional_metadata": about}
        load_from.append({"grpc_server": known})
    workspace = folder / "workspace.yaml"
    workspace.write_text(yaml.safe_dump({"load_from": load_from}))
    return servers, workspace


def _code_server(
    kind: str, given: str | dict[str, str], base: Path, path: Path
) -> tuple[CodeServer, dict[str, str]]:
    key, option = _TARGETS[kind]
    about = {key: given} if isinstance(given, str) else dict(given)
    if kind == "python_file":
        about["python_file"] = str(base / about.pop(key))
        about["working_directory"] = str(base / about.get("working_directory", ""))
        key = "python_file"
    attribute = about.get("attribute")
    name = Path(about[key]).name if kind == "python_file" else about[key]
    name = about.pop("location_name", f"{name}:{attribute}" if attribute else name)
    arguments = ["code-server", "start", "--socket", str(path), "--log-level", "warning"]
    arguments += ["--location-name", name, "--inject-env-vars-from-instance", option, about[key]]
    if attribute:
        arguments += ["--attribute", attribute]
    if "working_directory" in about:
        arguments += ["--working-directory", about["working_directory"]]
    if "executable_path" in about:
        arguments.append("--use-python-environment-entry-point")
    python = about.get("executable_path", sys.executable)
    return CodeServer(name, python, arguments, str(path)), about
