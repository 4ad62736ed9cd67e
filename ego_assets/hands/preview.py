"""Draws the joints of hands into frames of a shard."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ego_assets.media.sheets import Rows, frames_sheet
from ego_assets.operator import Frame
from ego_assets.vision import draw


def _paint_hands(frame: Frame, tile: np.ndarray, rows: Rows, video: dict[str, Any]) -> None:
    for row in rows:
        joints = np.array(row["joints_px"]) * frame.scale
        draw.draw_hand(tile, joints, draw.side_color(row["side"]))


def _legend(rows: Rows) -> Iterable[draw.LegendEntry]:
    yield from draw.SIDES
    yield draw.WHITE, "joints; lines lead from the wrist to the fingertips"


hands_sheet = frames_sheet(_paint_hands, _legend)
