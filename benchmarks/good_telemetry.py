"""Telemetry and gravity of a rendered sample, as a sensor without a flaw measures them.

Here: rows that belong to the cameras of a shard. Not here: faults in them (`planted_faults`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.graph_run import SHARD
from ego_assets.catalog import TABLES
from ego_assets.operator import TablesInput
from ego_assets.telemetry.gravity_rows import GravityFinder
from ego_assets.telemetry.settings import GravitySettings
from ego_assets.vision.geometry import matrix_from_quaternion

Rows = list[dict[str, Any]]
_UP_MPS2 = np.array([0.0, -9.81, 0.0])
"""In the world of samples, whose y points down."""


def good_telemetry(shard: dict[str, Rows]) -> dict[str, Rows]:
    """An accelerometer that is read once a frame and feels gravity alone, and what follows."""
    cameras = [r for r in shard["scene_reconstruction"] if r["is_valid"] and not r["is_context"]]
    of = {"video_id": cameras[0]["video_id"], "shard": SHARD, "source": "gpmd"}
    blank = dict.fromkeys(TABLES["telemetry"].model_fields)
    samples = []
    for number, row in enumerate(sorted(cameras, key=lambda r: int(r["frame_index"]))):
        turn = matrix_from_quaternion(np.array(row["world_from_camera_xyzw"]))
        felt = {"accel_mps2": (turn.T @ _UP_MPS2).tolist(), "gyro_radps": None}
        samples.append(blank | of | {"sample_index": number, "pts_s": row["pts_s"]} | felt)
    times = [row["pts_s"] for row in samples]
    source = of | {"place": "stream 3", "device": None, "axes": "camera", "gps": "none"}
    source |= {"sample_count": len(times), "outside_count": 0, "gyro_rate_hz": None}
    source |= {"first_pts_s": times[0], "last_pts_s": times[-1], "accel_rate_hz": 30.0}
    source |= {"fault_count": 0, "faults": []}
    tables = {
        "telemetry": TABLES["telemetry"].from_rows(samples),
        "scene_reconstruction": TABLES["scene_reconstruction"].from_rows(
            shard["scene_reconstruction"]
        ),
    }
    made = GravityFinder(GravitySettings()).process(TablesInput(SHARD, {SHARD: tables}))
    rows = made.tables["gravity"]
    gravity: Rows = rows.to_pylist() if isinstance(rows, pa.Table) else rows
    return {"telemetry": samples, "telemetry_sources": [source], "gravity": gravity}
