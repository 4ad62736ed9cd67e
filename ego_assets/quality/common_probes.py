"""Any table: are the values there, are they of this world, do adjacent clips agree?

Here: probes that many tables have. Not here: the contract, which blocks (`Table.violations`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from ego_assets import catalog
from ego_assets.feature import TableInfo
from ego_assets.quality.finding import (
    Evidence,
    Finding,
    Probe,
    Units,
    clips_of,
    judge,
    probe,
)
from ego_assets.quality.seam import seam_errors, seam_of
from ego_assets.quality.settings import ProbeSettings
from resources.lake.table import TABLES, Column

_CLIPS = ("clip_id", "take_id", "index_in_take", "start_frame", "end_frame")


def _is_number(kind: pa.DataType) -> bool:
    while pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def measured_columns(table: str) -> list[str]:
    """Columns of numbers that may be null where a measurement failed."""
    return [
        c.name
        for c in TABLES[table].columns()
        if c.nullable and not c.may_be_absent and _is_number(c.type)
    ]


def ranged_columns(table: str) -> list[Column]:
    """Columns with a plausible range."""
    return [c for c in TABLES[table].columns() if c.plausible is not None]


def values_are_there(evidence: Evidence, settings: ProbeSettings) -> Finding:
    """Measured columns are not mostly null."""
    rows, names = evidence.rows, measured_columns(evidence.table)
    shares = {n: rows[n].null_count / rows.num_rows for n in names} if rows.num_rows else {}
    nulls = {n: pc.index(rows[n].is_null(), True).as_py() for n in shares}
    return judge(
        _columns(shares, {n: _place(rows, at) for n, at in nulls.items()}),
        settings.max_null_share,
        "of the rows null",
        "columns",
        0.0,
    )


def values_are_plausible(evidence: Evidence, settings: ProbeSettings) -> Finding:
    """Values are of this world: frame rates, focal lengths, hands within metres."""
    shares: dict[str, float] = {}
    numbers: dict[str, float] = {}
    places: dict[str, tuple[str, int | None]] = {}
    for column in ranged_columns(evidence.table):
        name, plausible = column.name, column.plausible
        assert plausible is not None
        values = pc.drop_null(evidence.rows[name])
        lists = []
        while pa.types.is_list(values.type) or pa.types.is_fixed_size_list(values.type):
            lists.append(values)
            values = pc.list_flatten(values)
        if not len(values):
            continue
        inside = pc.and_(
            pc.greater_equal(values, plausible.low), pc.less_equal(values, plausible.high)
        )
        shares[name] = 1.0 - float(pc.mean(inside).as_py())
        odd = pc.index(inside, False).as_py()
        if odd >= 0:
            for outer in reversed(lists):
                ends = np.cumsum(pc.list_value_length(outer))
                odd = np.searchsorted(ends, odd, side="right")
            odd = int(np.flatnonzero(evidence.rows[name].is_valid())[odd])
        places[name] = _place(evidence.rows, odd)
        bounds = pc.min_max(values).as_py()
        numbers |= {f"{name} least": float(bounds["min"]), f"{name} most": float(bounds["max"])}
    return judge(
        _columns(shares, places),
        settings.max_implausible_share,
        "of the values",
        "columns with implausible values",
        0.0,
        numbers=numbers,
    )


def _place(rows: pa.Table, at: int) -> tuple[str, int | None]:
    """(clip or video, frame) of a row; at: -1 if there is none."""
    if at < 0:
        return "", None
    names = [n for n in ("clip_id", "video_id", "frame_index") if n in rows.column_names]
    row = {name: rows[name][at].as_py() for name in names}
    return row.get("clip_id") or row.get("video_id") or "", row.get("frame_index")


def _columns(values: Mapping[str, float], places: Mapping[str, tuple[str, int | None]]) -> Units:
    """Columns, each with where to look for what is odd in it."""
    frames = [places[name][1] for name in values]
    at = [places[name][0] for name in values]
    return Units(list(values), frames, np.array(list(values.values()), np.float64), at)


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
    seam = seam_of(evidence.table)
    assert seam is not None  # the probe is made for tables with one
    return judge(
        Units(where, frames, np.array(values, np.float64)),
        getattr(settings, seam.limit),
        seam.unit,
        "seams at which clips disagree",
        settings.tolerated_share,
        numbers={"mean seam error": float(np.mean(values))} if values else None,
    )


def clips_have_rows(evidence: Evidence, settings: ProbeSettings) -> Finding:
    """A clip whose input has rows (hand poses: valid ones) has rows in this table, too. What is
    empty passes every other question."""
    clips = clips_of(evidence.tables[catalog.info(evidence.table).rows_of])
    has = set(evidence.rows["clip_id"].unique().to_pylist())
    return judge(
        Units.of(clips, [float(c not in has) for c in clips]),
        0.5,
        "(1: it has none)",
        "clips without a row",
        settings.max_unanswered_clip_share,
    )


def common_probes(info: TableInfo) -> tuple[Probe, ...]:
    """The probes that a table has by its columns and its declaration."""
    table = info.name
    made: list[Probe] = []
    places = _optional(table, "video_id", "clip_id", "frame_index")
    if measured := measured_columns(table):
        made += probe(table, reads=_once(places, measured))(values_are_there)
    if ranged := [c.name for c in ranged_columns(table)]:
        made += probe(table, reads=_once(places, ranged))(values_are_plausible)
    if info.rows_of:
        given = TABLES[info.rows_of].model_fields
        needs = [name for name in ("clip_id", "is_valid") if name in given]
        made += probe(table, reads=("clip_id",), others={info.rows_of: needs})(clips_have_rows)
    if (seam := seam_of(table)) is not None:
        reads = ("clip_id", "frame_index", *_optional(table, "track_id"), *seam.columns)
        made += probe(table, reads=reads, others={"clips": _CLIPS})(clips_agree_at_their_seams)
    return tuple(made)


def _once(*names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(chain(*names)))


def _optional(table: str, *columns: str) -> list[str]:
    return [c for c in columns if c in TABLES[table].model_fields]
