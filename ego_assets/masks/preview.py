"""Draws boxes and masks into frames of a shard."""

from __future__ import annotations

from typing import Any

import numpy as np

from ego_assets.media.sheets import Rows, frames_sheet
from ego_assets.operator import Frame
from ego_assets.vision import draw
from ego_assets.vision.mask_scaling import decode_area


def _paint_detections(frame: Frame, tile: np.ndarray, rows: Rows, video: dict[str, Any]) -> None:
    for row in rows:
        color = draw.side_color(row["side"]) if row["side"] else draw.color_of(row["label"])
        draw.draw_box(tile, np.array(row["box"]) * frame.scale, color)


def _paint_masks(frame: Frame, tile: np.ndarray, rows: Rows, video: dict[str, Any]) -> None:
    for row in rows:
        size = (tile.shape[0], tile.shape[1])
        mask = decode_area(row["rle"], row["height_px"], row["width_px"], size)
        color = draw.side_color(row["side"]) if "side" in row else draw.color_of(row["track_id"])
        draw.overlay_mask(tile, mask, color)
        draw.draw_box(tile, np.array(row["box"]) * frame.scale, color)


detections_sheet = frames_sheet(_paint_detections)
masks_sheet = frames_sheet(_paint_masks)
