"""Draws what sensors of a shard measured over time, and gravity as the frames of a video see it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ego_assets.arrays import array_of
from ego_assets.media.sheets import Picture
from ego_assets.telemetry.tables import TelemetrySample
from ego_assets.vision import plots
from resources.lake import Lake
from resources.raw.reader import RawReader

MOST_POINTS = 2000


def samples_plot(lake: Lake, table: str, shard: str, raw: RawReader) -> Picture | None:
    """Accelerations and turns of the video with the most samples. Positions are private."""
    names = TelemetrySample.arrow_schema().names
    wanted = [n for n in names if not n.startswith("gps_")]
    rows = lake.read(table, shard, columns=wanted)
    if not rows.num_rows:
        return None
    mine, title = _largest(rows)
    panels = {}
    for name, unit in (("accel_mps2", "m/s²"), ("gyro_radps", "rad/s")):
        for column in (name, f"sensor_{name}"):
            known = mine.filter(pc.is_valid(mine[column]))
            if known.num_rows:
                panels[f"{column.removesuffix('_mps2').removesuffix('_radps')} [{unit}]"] = (
                    _thinned(known["pts_s"].to_numpy(), array_of(known[column]))
                )
    if not panels:
        return None
    return "image/png", plots.plot_vectors(panels, f"{title} (x, y, z)")


def sources_plot(lake: Lake, table: str, shard: str, raw: RawReader) -> Picture | None:
    """How many samples of each kind of source there are, and how many of its videos have faults."""
    rows = lake.read(table, shard, columns=["source", "axes", "sample_count", "fault_count"])
    counts: dict[str, float] = {}
    for row in rows.to_pylist():
        name = f"{row['source']}, axes of the {row['axes']}"
        counts[name] = counts.get(name, 0.0) + row["sample_count"]
    if not counts:
        return None
    faulty = pc.sum(pc.greater(rows["fault_count"], 0)).as_py()
    title = f"{table} of shard {shard}: {rows.num_rows} sources, {faulty} with faults"
    return "image/png", plots.plot_shares(counts, "samples", title)


def gravity_plot(lake: Lake, table: str, shard: str, raw: RawReader) -> Picture | None:
    """Gravity in the camera frame, of the video with the most frames."""
    rows = lake.read(table, shard)
    if not rows.num_rows:
        return None
    mine, title = _largest(rows)
    series = _thinned(mine["pts_s"].to_numpy(), array_of(mine["gravity_camera"]))
    spread = mine["world_spread_deg"].drop_null()
    if len(spread):
        title += f"; in its worlds to {pc.max(spread).as_py():.1f} degrees"
    return "image/png", plots.plot_vectors({"gravity in the camera frame": series}, title)


def _largest(rows: pa.Table) -> tuple[pa.Table, str]:
    counts = pc.value_counts(rows["video_id"]).to_pylist()
    video: str = max(counts, key=lambda c: (c["counts"], c["values"]))["values"]
    mine = rows.filter(pc.field("video_id") == video)
    sources = ", ".join(sorted(set(mine["source"].to_pylist())))
    return mine.sort_by("pts_s"), f"{video}: {sources}"


def _thinned(times: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    step = -(-len(times) // MOST_POINTS)
    return times[::step], values[::step]
