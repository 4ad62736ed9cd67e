"""Fixtures that any test may use: the real data, and sample videos with exact truth."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real videos and ground truth: EGO_REAL_DATA, else ../shared/real, else skip."""
    root = Path(__file__).resolve().parents[1]
    given = os.environ.get("EGO_REAL_DATA")
    folder = Path(given) if given else root.parent / "shared" / "real"
    if not (folder / "videos").is_dir():
        pytest.skip(f"no real data at {folder}: set EGO_REAL_DATA")
    return folder
