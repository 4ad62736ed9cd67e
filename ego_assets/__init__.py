"""First-person video into robot-learning data.

`open` reads a lake. Everything else is in the rooms, and importing this alone loads nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from ego_assets.reading import LakeReader

__all__ = ["open"]


def open(root: str | Path) -> LakeReader:
    """Open a lake for reading: a folder, or `s3://bucket/prefix`. See `open_lake`."""
    from ego_assets.reading import open_lake

    return open_lake(root)
