"""How much two clips of a take disagree about the masks of the frames that both have."""

from __future__ import annotations

from ego_assets.quality.seam import Frames, Row, Seam
from ego_assets.vision.patches import Patch
from ego_assets.vision.rle import decode_crop


def _masks(first: Frames, second: Frames) -> list[float]:
    found = []
    for index in first:
        for track in first[index].keys() | second[index].keys():
            a, b = first[index].get(track), second[index].get(track)
            found.append(1.0 if a is None or b is None else 1.0 - _iou(a, b))
    return found


def _iou(a: Row, b: Row) -> float:
    crops = (decode_crop(r["rle"], r["height_px"], r["width_px"]) for r in (a, b))
    first, second = (Patch.of(c.pixels, (c.left, c.top), c.shape) for c in crops)
    return first.iou(second) if first.shape == second.shape else 0.0


MASKS = Seam("(1 - IoU)", ("rle", "height_px", "width_px"), _masks, "max_mask_seam")
