"""A wheel has what `ego up` shows at `/guide`."""

from __future__ import annotations

import tomllib
from pathlib import Path

from dagster_project.web.guide import INSTALLED, guide_of

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def test_every_page_and_picture_of_the_guide_is_installed() -> None:
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    places = {
        found: Path(place).relative_to(INSTALLED) / found.name
        for place, patterns in tool["data-files"].items()
        for pattern in patterns
        for found in ROOT.glob(pattern)
    }
    answer = guide_of(DOCS)
    names = {path: path.relative_to(DOCS) for path in DOCS.rglob("*") if path.is_file()}
    served = {path: name for path, name in names.items() if answer(name.as_posix())}
    assert {name.parent.name for name in served.values()} == {"", "adr", "pictures"}
    assert served.items() <= places.items()
