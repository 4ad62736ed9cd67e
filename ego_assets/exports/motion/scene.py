"""The lens that the scene of a take was reconstructed through, if it is not that of its video."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow.compute as pc

from ego_assets.operator import LENS
from ego_assets.reading import LakeReader


def scene_cameras(reader: LakeReader, shard: str) -> Mapping[str, Mapping[str, Any]]:
    """{take: lens columns and `focal_std_px` of its scene}, of the takes of a shard that calibrated
    themselves. Clips of a take keep the lens of the first one."""
    columns = ["clip_id", "frame_index", *LENS, "focal_std_px"]
    rows = reader.table("scene_reconstruction", columns=columns, shards=[shard])
    rows = rows.filter(pc.field("intrinsics_source") == "self_calibrated")
    if not rows.num_rows:
        return {}
    clips = reader.table("clips", columns=["clip_id", "take_id"], shards=[shard])
    take_of = dict(zip(*(clips[c].to_pylist() for c in ("clip_id", "take_id")), strict=True))
    rows = rows.sort_by([("frame_index", "descending")])
    last = {take_of.get(clip): n for n, clip in enumerate(rows["clip_id"].to_pylist())}
    first_rows = rows.select([*LENS, "focal_std_px"]).take(list(last.values())).to_pylist()
    return {take: row for take, row in zip(last, first_rows, strict=True) if take}
