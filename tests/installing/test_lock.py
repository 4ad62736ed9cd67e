"""The lock file fits what pyproject.toml asks for, and never brings CUDA."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
GROUPS = {"core": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
LINES = (ROOT / "requirements.lock").read_text().splitlines()
PINS = dict(line.split("==") for line in LINES if not line.startswith("#"))
HEAVY = {"torch", "dagster", "pycolmap", "pin", "dex-retargeting", "scipy", "polars"}


def test_every_requirement_is_locked_within_its_range() -> None:
    asked = [Requirement(line) for group in GROUPS.values() for line in group]
    for requirement in asked:
        name = canonicalize_name(requirement.name)
        if name != "ego-assets":
            assert requirement.specifier.contains(PINS[name]), f"{requirement}: run `make lock`"


def test_no_machine_downloads_cuda_because_of_the_lock() -> None:
    assert not [name for name in PINS if re.match(r"(nvidia-(?!ml-py)|cuda|triton)", name)]
    assert "+" not in PINS["torch"], "its build is for .ci/install_torch to choose"


def test_one_opencv_is_installed() -> None:
    assert [name for name in PINS if name.startswith("opencv")] == ["opencv-python-headless"]


def test_reading_asks_for_little() -> None:
    core = {canonicalize_name(Requirement(line).name) for line in GROUPS["core"]}
    assert not core & HEAVY
    assert "opencv-python-headless" not in core
    assert not [line for line in GROUPS["core"] if "==" in line], "a training stack has its own"


def test_click_is_one_whose_choice_is_generic() -> None:
    """`click.Choice[str]` is evaluated when the command line is imported."""
    (click,) = (r for line in GROUPS["platform"] if (r := Requirement(line)).name == "click")
    assert not click.specifier.contains("8.1.8")
