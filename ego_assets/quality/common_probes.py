"""Any table: are the values there, are they of this world, do adjacent clips agree?

Here: probes that many tables have. Not here: the contract, which blocks (`Table.violations`).
"""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from ego_assets.catalog import TABLES
from ego_assets.quality.finding import (
    Evidence,
    Finding,
    Probe,
    Units,
    clips_of,
    judge,
    probe,
)
from ego_assets.quality.seam import SEAM_UNITS, seam_errors
from ego_assets.quality.settings import ProbeSettings

RANGES: dict[str, tuple[float, float]] = {
    "duration_s": (0.0, 3600.0),
    "average_rate_fps": (5.0, 240.0),
    "width_px": (64, 8192),
    "height_px": (64, 8192),
    "fx_px": (50.0, 20_000.0),
    "fy_px": (50.0, 20_000.0),
    "reprojection_error_px": (0.0, 10.0),
    "camera_from_hand_m": (-3.0, 3.0),
    "joints_camera_m": (-3.0, 3.0),
    "joints_px": (-4096.0, 12_288.0),
    "camera_from_wrist_m": (-3.0, 3.0),
    "joint_positions": (-6.3, 6.3),
    "mean_fingertip_error_m": (0.0, 0.2),
}
"""Column → what a value can be in this world. Wider than what is good: other probes ask that."""
_BY_DESIGN = {
    *("mano_pose", "mano_betas", "audio_rate_hz", "audio_channels", "distortion"),
    *("scale_spread", "scale_samples"),
}
"""Null wherever a backend, a camera or a world has no such thing: that is no failure."""
_SEAM_COLUMNS = {
    "object_masks": ("track_id", "rle", "height_px", "width_px"),
    "hand_masks": ("track_id", "rle", "height_px", "width_px"),
    "hand_poses": ("track_id", "is_valid", "joints_px"),
    "scene_reconstruction": ("is_valid", "world_from_camera_xyzw"),
    "object_poses": ("track_id", "is_valid", "object_frame", "camera_from_object_m"),
}
_CLIPS = ("clip_id", "take_id", "index_in_take", "start_frame", "end_frame")


_INPUTS = {
    "object_poses": "object_masks",
    "object_movements": "object_masks",
    "robot_mappings": "hand_poses",
}
"""Table → what each of its rows is made from, where its own probes ask nothing of empty clips."""


def _is_number(kind: pa.DataType) -> bool:
    while pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    return pa.types.is_floating(kind) or pa.types.is_integer(kind)


def measured_columns(table: str) -> list[str]:
    """Columns of numbers that may be null where a measurement failed."""
    return [
        c.name
        for c in TABLES[table].columns()
        if c.nullable and c.name not in _BY_DESIGN and _is_number(c.type)
    ]


def ranged_columns(table: str) -> list[str]:
    """Columns with a plausible range."""
    return [c.name for c in TABLES[table].columns() if c.name in RANGES]


def values_are_there(evidence: Evidence, settings: ProbeSettings) -> Finding:
    """Measured columns are not mostly null."""
    rows, names = evidence.rows, measured_columns(evidence.table)
    shares = [rows[n].null_count / rows.num_rows for n in names] if rows.num_rows else []
    return judge(
        Units.of(names[: len(shares)], shares),
        settings.max_null_share,
        "of the rows null",
        "columns",
        0.0,
    )


def values_are_plausible(evidence: Evidence, settings: ProbeSettings) -> Finding:
    """Values are of this world: frame rates, focal lengths, hands within metres."""
    shares: dict[str, float] = {}
    numbers: dict[str, float] = {}
    for name in ranged_columns(evidence.table):
        values = pc.drop_null(evidence.rows[name])
        while pa.types.is_list(values.type) or pa.types.is_fixed_size_list(values.type):
            values = pc.list_flatten(values)
        if not len(values):
            continue
        low, high = RANGES[name]
        inside = pc.and_(pc.greater_equal(values, low), pc.less_equal(values, high))
        shares[name] = 1.0 - float(pc.mean(inside).as_py())
        bounds = pc.min_max(values).as_py()
        numbers |= {f"{name} least": float(bounds["min"]), f"{name} most": float(bounds["max"])}
    return judge(
        Units.of(shares, shares.values()),
        settings.max_implausible_share,
        "of the values",
        "columns with implausible values",
        0.0,
        numbers=numbers,
    )


def clips_agree_at_their_seams(evidence: Evidence, settings: ProbeSettings) -> Finding:
    """Adjacent clips say the same of the frames that both have: an accuracy without truth."""
    clips = pl.DataFrame(evidence.tables["clips"])
    shared = clips.filter(pl.len().over("take_id") > 1).sort("take_id", "index_in_take")
    where, frames, values = [], [], []
    for _, take in shared.group_by("take_id", maintain_order=True):
        for before, after in zip(take.rows(named=True), take.rows(named=True)[1:], strict=False):
            pair = pc.field("clip_id").isin([before["clip_id"], after["clip_id"]])
            common = pair & (pc.field("frame_index") >= after["start_frame"])
            common &= pc.field("frame_index") < before["end_frame"]
            both = pl.DataFrame([before, after], schema=clips.schema).to_arrow()
            errors = seam_errors(evidence.table, evidence.rows.filter(common), both)
            if len(errors):
                where.append(after["clip_id"])
                frames.append(after["start_frame"])
                values.append(float(errors.mean()))
    limit = {
        "object_masks": settings.max_mask_seam,
        "hand_masks": settings.max_mask_seam,
        "hand_poses": settings.max_hand_seam_px,
        "scene_reconstruction": settings.max_camera_seam_deg,
        "object_poses": settings.max_object_seam,
    }[evidence.table]
    return judge(
        Units(where, frames, np.array(values, np.float64)),
        limit,
        SEAM_UNITS[evidence.table],
        "seams at which clips disagree",
        settings.tolerated_share,
        numbers={"mean seam error": float(np.mean(values))} if values else None,
    )


def clips_have_rows(evidence: Evidence, settings: ProbeSettings) -> Finding:
    """A clip whose input has rows (hand poses: valid ones) has rows in this table, too. What is
    empty passes every other question."""
    clips = clips_of(evidence.tables[_INPUTS[evidence.table]])
    has = set(evidence.rows["clip_id"].unique().to_pylist())
    return judge(
        Units.of(clips, [float(c not in has) for c in clips]),
        0.5,
        "(1: it has none)",
        "clips without a row",
        settings.max_unanswered_clip_share,
    )


def _probes() -> tuple[Probe, ...]:
    made: list[Probe] = []
    for table in TABLES:
        if measured_columns(table):
            made += probe(table, reads=measured_columns(table))(values_are_there)
        if ranged_columns(table):
            made += probe(table, reads=ranged_columns(table))(values_are_plausible)
    for table, given in _INPUTS.items():
        needs = [c.name for c in TABLES[given].columns() if c.name in {"clip_id", "is_valid"}]
        made += probe(table, reads=("clip_id",), others={given: needs})(clips_have_rows)
    for table, columns in _SEAM_COLUMNS.items():
        reads = ("clip_id", "frame_index", *columns)
        made += probe(table, reads=reads, others={"clips": _CLIPS})(clips_agree_at_their_seams)
    return tuple(made)


PROBES = _probes()
