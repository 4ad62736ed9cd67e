"""Starts `ego`, or says what to install where only the reading part is installed.

The console script points here. Imports nothing but the standard library until that is known.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

NEEDED = ("dagster", "click", "rich", "polars", "sqlalchemy", "scipy", "cv2", "torch", "pycolmap")


def main() -> None:
    """Run the command line of the platform."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        sys.exit(
            f"ego: the platform is not installed ({missing[0]} is missing); this environment can "
            "only read lakes (ego_assets.reading). Run: pip install 'ego-assets[platform]'"
        )
    from dagster_project.cli import main as command_line

    command_line()
