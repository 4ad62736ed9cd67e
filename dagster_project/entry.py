"""Starts `ego`, or says what to install where only the reading part is installed.

The console script points here. Imports nothing but the standard library until that is known.
"""

from __future__ import annotations

import gc
import sys
from importlib.util import find_spec

NEEDED = ("dagster", "click", "rich", "polars", "sqlalchemy", "scipy", "cv2", "torch", "pycolmap")
OBJECTS_PER_COLLECTION = 20_000
"""Python's 700 make a command a fifth slower: modules are many objects, and no garbage."""


def main() -> None:
    """Run the command line of the platform."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        sys.exit(
            f"ego: the platform is not installed ({missing[0]} is missing); this environment can "
            "only read lakes (ego_assets.reading). Run: pip install 'ego-assets[platform]'"
        )
    gc.set_threshold(OBJECTS_PER_COLLECTION)
    from dagster_project.cli import main as command_line

    command_line()
