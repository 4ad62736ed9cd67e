"""Writes the page of the data contract: `python -m ego_assets.contract_page` prints it."""

from __future__ import annotations

import sys

from ego_assets.catalog import TABLES
from resources.lake.table import Column

HEAD = """# The data contract

This page is made from the `tables.py` of each room by `make docs`; a test fails when it is stale.
The same definition gives the Parquet types, the check that blocks what does not fit,
and the column lists in the Dagster UI.

Metres, radians, seconds, pixels. The camera frame is OpenCV's (x right, y down, z forward).
Quaternions are xyzw. A pose `a_from_b` maps points in frame b to frame a. Boxes are x_min,
y_min, x_max, y_max in pixels of the upright, full-size picture. A frame is addressed by
`frame_index` (presentation order in the video) and by `pts_s`. Masks are COCO RLE (compressed,
column-major). Hands have 21 joints in MANO order, left and right from the wearer's view.

The leading overlap of a clip (`is_context`) has rows in the clip before it as well: drop them
to have each frame once.
"""


def contract_page() -> str:
    """Markdown of every table."""
    parts = [HEAD]
    for name, model in TABLES.items():
        parts.append(f"## {name}\n\n{(model.__doc__ or '').strip()}\n")
        parts.append(f"Key within a shard: {', '.join(f'`{k}`' for k in model.key)}.\n")
        lines = ["| column | type | null | unit | meaning |", "|---|---|---|---|---|"]
        lines += [_line(c) for c in model.columns()]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _line(column: Column) -> str:
    null = "yes" if column.nullable else ""
    limits = _limits(column)
    meaning = f"{column.description}{limits}".replace("|", "\\|")
    return f"| `{column.name}` | {column.type} | {null} | {column.unit} | {meaning} |"


def _limits(column: Column) -> str:
    if listed := column.choices or column.one_of:
        return f" ({', '.join(listed)})"
    if column.minimum is not None and column.maximum is not None:
        return f" ({column.minimum:g} to {column.maximum:g})"
    if column.minimum is not None:
        return f" (at least {column.minimum:g})"
    return ""


if __name__ == "__main__":
    sys.stdout.write(contract_page())
