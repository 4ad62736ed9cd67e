"""Draws boxes and masks into frames of a shard."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ego_assets.media.sheets import Rows, frames_sheet
from ego_assets.operator import Frame
from ego_assets.vision import draw
from ego_assets.vision.mask_scaling import decode_area


def _color(row: dict[str, Any]) -> tuple[int, int, int]:
    """Hands by side; of objects, a mask by its track and a detection by its label."""
    if row.get("side"):
        return draw.side_color(row["side"])
    if row["label"] == "hand":
        return draw.WHITE
    return draw.color_of(row.get("track_id") or row["label"])


def _name(tile: np.ndarray, box: np.ndarray, row: dict[str, Any], words: str) -> None:
    draw.draw_label(tile, words, box[0], box[1] - draw.LINE_PX, _color(row))


def _paint_detections(frame: Frame, tile: np.ndarray, rows: Rows, video: dict[str, Any]) -> None:
    for row in rows:
        box = np.array(row["box"]) * frame.scale
        draw.draw_box(tile, box, _color(row))
        _name(tile, box, row, f"{row['label']} {row['score']:.2f}")


def _paint_masks(frame: Frame, tile: np.ndarray, rows: Rows, video: dict[str, Any]) -> None:
    for row in rows:
        size = (tile.shape[0], tile.shape[1])
        mask = decode_area(row["rle"], row["height_px"], row["width_px"], size)
        draw.overlay_mask(tile, mask, _color(row))
    for row in rows:  # above all masks
        box = np.array(row["box"]) * frame.scale
        draw.draw_box(tile, box, _color(row))
        _name(tile, box, row, f"{row['label']} {draw.short_track(row['track_id'])}")


def _legend_of_detections(rows: Rows) -> Iterable[draw.LegendEntry]:
    if any(row["side"] for row in rows):
        yield from draw.SIDES
    labels = {row["label"]: row for row in rows if not row["side"]}
    yield from ((_color(row), label) for label, row in sorted(labels.items())[:12])
    yield None, "box: what was seen, with its label and score"


def _legend_of_masks(rows: Rows) -> Iterable[draw.LegendEntry]:
    if any("side" in row for row in rows):
        yield from draw.SIDES
    else:
        tracks = {row["track_id"]: row for row in rows}
        for track, row in sorted(tracks.items())[:12]:
            yield draw.color_of(track), f"{row['label']} {draw.short_track(track)}"
    yield None, "tint and outline: the mask; box: what bounds it, with label and track"


detections_sheet = frames_sheet(_paint_detections, _legend_of_detections)
masks_sheet = frames_sheet(_paint_masks, _legend_of_masks)
