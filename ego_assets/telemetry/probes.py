"""Telemetry: could all of it be read, does it measure gravity, does gravity fit the cameras?

Here: probes of `telemetry`, `telemetry_sources` and `gravity`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.compute as pc

from ego_assets.arrays import array_of
from ego_assets.quality.finding import Evidence, Finding, Offender, Units, judge, probe
from ego_assets.telemetry.gravity import GRAVITY_MPS2
from ego_assets.telemetry.settings import TelemetryProbeSettings

_NAMED = 3
"""Sources that the sentence of a check names; the others are in its list."""


@probe(
    "telemetry_sources",
    reads=("video_id", "source", "place", "fault_count", "faults"),
    others={"video_manifest": ("video_id", "uri", "accepted")},
)
def telemetry_is_whole(evidence: Evidence, settings: TelemetryProbeSettings) -> Finding:
    """Telemetry is what its format says, all of it. What is not is left out, and told here."""
    manifest = evidence.tables["video_manifest"]
    accepted = manifest.filter(pc.field("accepted")).to_pylist()
    names = {r["video_id"]: Path(r["uri"]).name for r in accepted}
    rows = evidence.rows.to_pylist()
    faulty = sorted((r for r in rows if r["fault_count"]), key=lambda r: -r["fault_count"])
    words = []
    for row in faulty[:_NAMED]:
        where = f"{names.get(row['video_id'], row['video_id'])}, {row['source']} ({row['place']})"
        more = f" and {row['fault_count'] - 1} more" if row["fault_count"] > 1 else ""
        words.append(f"{where}: {(row['faults'] or ['unknown'])[0]}{more}")
    if len(faulty) > _NAMED:
        words.append(f"and {len(faulty) - _NAMED} more sources")
    offenders = (Offender(f"{r['video_id']} {r['source']}", None, r["fault_count"]) for r in faulty)
    good = "all telemetry could be read" if rows else "not judged: there is no telemetry"
    return Finding(
        name="",
        passed=not faulty,
        value=float(faulty[0]["fault_count"] if faulty else 0) if rows else None,
        threshold=0.0,
        unit="faults",
        sentence="; ".join(words) or good,
        looked_at=len(rows),
        beyond=len(faulty),
        worst=tuple(offenders)[:20],
    )


@probe("telemetry", reads=("video_id", "source", "accel_mps2", "sensor_accel_mps2"))
def accelerometers_feel_gravity(evidence: Evidence, settings: TelemetryProbeSettings) -> Finding:
    """Over a whole video, accelerations are as long as gravity: in other units, or with gravity
    taken out, they are not."""
    rows = evidence.rows
    lengths = [
        np.linalg.norm(array_of(rows[name]), axis=1) if rows.num_rows else np.empty(0)
        for name in ("accel_mps2", "sensor_accel_mps2")
    ]
    length = np.where(np.isnan(lengths[0]), lengths[1], lengths[0]).astype(np.float64)
    found = (
        pl.DataFrame(rows.select(["video_id", "source"]))
        .with_columns(length=pl.Series(length).fill_nan(None))
        .drop_nulls()
        .group_by("video_id", "source")
        .agg(pl.col("length").median())
        .sort("video_id", "source")
    )
    where = [f"{video} {source}" for video, source, _ in found.iter_rows()]
    return judge(
        Units.of(where, (found["length"] - GRAVITY_MPS2).abs()),
        settings.max_still_norm_error_mps2,
        "m/s² from 9.81",
        "sources whose accelerations are of another length than gravity",
        0.0,
    )


@probe("gravity", reads=("clip_id", "world_id", "world_spread_deg"))
def gravity_agrees_with_cameras(evidence: Evidence, settings: TelemetryProbeSettings) -> Finding:
    """In a world, gravity has one direction, whatever frame says it: else the sensor's axes, its
    clock or the cameras' rotations are wrong. All clips of such a world are named."""
    rows = pl.DataFrame(evidence.rows.select(["clip_id", "world_id", "world_spread_deg"]))
    found = rows.drop_nulls().unique(["world_id", "clip_id"]).sort("clip_id")
    return judge(
        Units.of(found["clip_id"], found["world_spread_deg"]),
        settings.max_gravity_spread_deg,
        "degrees",
        "clips of worlds in which gravity has several directions",
        settings.tolerated_share,
    )


PROBES = (*telemetry_is_whole, *accelerometers_feel_gravity, *gravity_agrees_with_cameras)
