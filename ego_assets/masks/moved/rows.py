"""Rows of masks: the columns that every mask has, and the rows of objects.

Not here: how hands and objects are found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ego_assets.masks.moved.carry import Thing
from ego_assets.masks.moved.holds import Hold
from ego_assets.operator import ClipInput, Rows
from ego_assets.vision.mask_scaling import CodedMask, encode_enlarged
from ego_assets.vision.patches import Patch
from ego_assets.vision.threads import each

BACKEND = TIER = "baseline"
"""What rows of objects say, whatever finds the hands beside them."""


def mask_columns(coded: CodedMask, height: int, width: int) -> dict[str, Any]:
    """Return the columns of a mask of a picture of `height` and `width` pixels."""
    return {
        "box": coded.box,
        "area_px": coded.area,
        "height_px": height,
        "width_px": width,
        "rle": coded.counts,
    }


def object_rows(clip: ClipInput, things: Sequence[Thing], pts_s: Mapping[int, float]) -> Rows:
    """Return the rows of `object_masks`; a mask that vanishes has none."""
    rows: Rows = []
    take = clip.clip["take_id"]
    height, width = clip.frames.height, clip.frames.width
    shown = [
        (thing, frame, mask) for thing in things for frame, mask in sorted(thing.masks.items())
    ]

    def encode(one: tuple[Thing, int, Patch]) -> CodedMask | None:
        return encode_enlarged(one[2].whole(), height, width)

    for (thing, frame, _), coded in zip(shown, each(encode, shown), strict=True):
        if coded is not None:
            row = {
                "track_id": f"{take}-o{thing.number:03d}",
                "label": "object",
                "score": thing.score[frame],
                **mask_columns(coded, height, width),
                "backend": BACKEND,
                "quality_tier": TIER,
            }
            rows.append(clip.row(frame, pts_s[frame]) | row)
    return rows


def hold_rows(
    clip: ClipInput, holds: Sequence[Hold], shape: tuple[int, int], pts_s: Mapping[int, float]
) -> Rows:
    """Return what `detections` say of what was seen in a hand, at work size `shape`, but for their
    numbers in the frame."""
    scale = clip.frames.width / shape[1]
    return [
        clip.row(hold.frame, pts_s[hold.frame])
        | {
            "label": "object",
            "side": None,
            "score": float(np.clip(hold.cut.clear, 0, 1)),
            "box": [v * scale for v in hold.cut.mask.box],
            "backend": BACKEND,
            "quality_tier": TIER,
        }
        for hold in holds
    ]
