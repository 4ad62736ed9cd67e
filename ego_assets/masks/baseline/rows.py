"""Rows of masks: the columns that every mask has, and the rows of what was followed at work size.

Not here: how hands and objects are found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ego_assets.masks.baseline.carry import Thing
from ego_assets.operator import ClipInput, Rows
from ego_assets.vision.mask_scaling import CodedMask, encode_enlarged
from ego_assets.vision.patches import Patch
from ego_assets.vision.threads import each


def mask_columns(coded: CodedMask, height: int, width: int) -> dict[str, Any]:
    """Return the columns of a mask of a picture of `height` and `width` pixels."""
    return {
        "box": coded.box,
        "area_px": coded.area,
        "height_px": height,
        "width_px": width,
        "rle": coded.counts,
    }


def mask_rows(
    clip: ClipInput,
    things: Sequence[Thing],
    pts_s: Mapping[int, float],
    backend: str,
    quality_tier: str,
) -> dict[str, Rows]:
    """Return the rows of `object_masks` and `hand_masks`; a mask that vanishes has none."""
    rows: dict[str, Rows] = {"object_masks": [], "hand_masks": []}
    take = clip.clip["take_id"]
    height, width = clip.frames.height, clip.frames.width
    shown = [
        (thing, frame, mask) for thing in things for frame, mask in sorted(thing.masks.items())
    ]

    def encode(one: tuple[Thing, int, Patch]) -> CodedMask | None:
        return encode_enlarged(one[2].whole(), height, width)

    for (thing, frame, _), coded in zip(shown, each(encode, shown), strict=True):
        if coded is None:
            continue
        row = clip.row(frame, pts_s[frame]) | {
            "track_id": f"{take}-{thing.kind}{thing.number:03d}",
            "label": "hand" if thing.kind == "h" else "object",
            "score": thing.score[frame],
            **mask_columns(coded, height, width),
            "backend": backend,
            "quality_tier": quality_tier,
        }
        if thing.kind == "h":
            row |= {"side": thing.side, "is_wearer": thing.is_wearer}
        rows["hand_masks" if thing.kind == "h" else "object_masks"].append(row)
    return rows
