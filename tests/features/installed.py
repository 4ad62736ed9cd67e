"""The examples as a person installs them: packages with entry points, found by every process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def install(folder: Path, *examples: str) -> dict[str, str]:
    """Put examples into a folder as pip does, without building a wheel; the environment of
    processes that have them."""
    folder.mkdir(parents=True, exist_ok=True)
    for example in examples:
        source = ROOT / "examples" / example
        project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
        for package in source.iterdir():
            if (package / "__init__.py").exists():
                shutil.copytree(package, folder / package.name)
        info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        )
        groups = [
            f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
            for group, points in project["entry-points"].items()
        ]
        (info / "entry_points.txt").write_text("\n".join(groups))
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}


def python(environment: dict[str, str], code: str, *arguments: Any) -> str:
    """What a program prints that has them."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def ego(environment: dict[str, str], *arguments: Any) -> str:
    """What a command prints."""
    return python(environment, "from dagster_project.cli import main; main()", *arguments)


COMMANDS = """
import json, os, sys
from click.testing import CliRunner
from dagster_project.cli import main
said = []
for variables, arguments in json.loads(sys.argv[1]):
    os.environ.update(variables)
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, (arguments, done.output, done.exception)
    said.append(done.stdout)
print(json.dumps(said))
"""


def ego_each(
    environment: dict[str, str], *commands: tuple[dict[str, str], tuple[Any, ...]]
) -> list[str]:
    """What commands print, each with variables that stay: all in one process, since most of what a
    process costs is to begin."""
    given = [(variables, [*map(str, arguments)]) for variables, arguments in commands]
    return list(json.loads(python(environment, COMMANDS, json.dumps(given))))
