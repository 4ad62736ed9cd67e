"""A lake of made episodes, whose raw videos have pictures that carry their number."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from click.testing import CliRunner

from dagster_project.cli.program import main
from ego_assets.catalog import TABLES
from resources.lake import Lake
from resources.lake.provenance import Provenance
from tests.exports.bars import picture_of
from tests.exports.lerobot_reader import DataSet, read

sys.path.insert(0, str(Path(__file__).parents[1] / "episodes"))
from made_footage import FPS, SHARD, MadeVideo, cut

__all__ = ["SHARD", "Made", "MadeVideo", "add_shard", "make"]
ROBOT = ("thumb", "index")


def write_numbered(path: Path, count: int, fps: int, size: tuple[int, int]) -> None:
    """A video whose pictures carry their number."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, fps)
        for n in range(count):
            frame = av.VideoFrame.from_ndarray(picture_of(n, *size), format="rgb24")
            frame.pts, frame.time_base = n, Fraction(1, fps)
            container.mux(stream.encode(frame.reformat(format="yuv420p")))
        container.mux(stream.encode())


def provenance(item: str) -> Provenance:
    return Provenance(
        run_id="r",
        attempt=1,
        stage="s",
        operator="o",
        operator_version="1",
        weights_hash="",
        input_hash="i",
        fingerprint=f"f-{item}",
        settings="{}",
        code_version="c",
        created_at="2026-01-01",
        host="h",
        packages="{}",
    )


@dataclass
class Made:
    lake: Lake
    folder: Path
    tables: dict[str, list[dict[str, Any]]]

    def export(self, *options: str, ok: bool = True) -> Any:
        out = self.folder / "out"
        asked = ["export", "lerobot", "--lake", str(self.lake.root), "--out", str(out), "--json"]
        done = CliRunner().invoke(main, [*asked, *options], catch_exceptions=False)
        assert (done.exit_code == 0) is ok, done.output
        return json.loads(done.stdout) if ok else done.output

    def data(self) -> DataSet:
        return read(self.folder / "out")


def make(folder: Path, *videos: MadeVideo, **settings: Any) -> Made:
    """A lake of one shard with episodes of numbered videos, robots' joints among its tables."""
    made = Made(Lake(folder / "lake"), folder, {})
    add_shard(made, SHARD, *videos, **settings)
    return made


def add_shard(
    made: Made,
    shard: str,
    *videos: MadeVideo,
    size: tuple[int, int] = (192, 108),
    fps: int = 30,
    mapped: Callable[[dict[str, Any]], list[dict[str, Any]]] = lambda row: [row],
    **settings: Any,
) -> None:
    """Add a shard, whose videos have this size and rate. mapped: rows of `robot_mappings` in place
    of one."""
    made.lake.write_shard(shard, {"videos": []})
    rows = cut(*videos, **{"validation_share": 0.0} | settings)
    manifest = []
    for video in videos:
        path = made.folder / f"{video.video_id}.mp4"
        write_numbered(path, video.count, fps, size)
        width, height = size
        manifest.append(
            video.manifest() | {"uri": str(path), "width_px": width, "height_px": height}
        )
    joints = [row for one in robots(rows) for row in mapped(one)]
    rows = rows | {"video_manifest": manifest, "robot_mappings": joints}
    for table, mine in rows.items():
        item = "unit" if table != "video_manifest" else shard
        filled = [dict.fromkeys(TABLES[table].arrow_schema().names) | row for row in mine]
        for row in filled:
            row |= {"shard": shard} if "shard" in row else {}
            row |= {k: row[k] * FPS / fps for k in row if k.endswith("pts_s") and row[k]}
        made.lake.publish(table, shard, item, TABLES[table].from_rows(filled), provenance(item))
        made.tables.setdefault(table, []).extend(filled)


def robots(made: dict[str, list[dict[str, Any]]]) -> Any:
    """Joints that tell their frame, of every hand pose but some."""
    for row in made["episode_hands"]:
        if row["track_id"] is None or row["frame_index"] % 50 == 7:
            continue
        yield {
            "video_id": row["video_id"],
            "shard": SHARD,
            "clip_id": row["clip_id"],
            "frame_index": row["frame_index"],
            "pts_s": row["pts_s"],
            "is_context": False,
            "track_id": row["track_id"],
            "side": row["side"],
            "robot": "two_joints",
            "method": "vector",
            "joint_names": list(ROBOT),
            "joint_positions": [row["frame_index"] / 1000, 0.5],
            "camera_from_wrist_m": [0.0] * 3,
            "camera_from_wrist_xyzw": [0.0, 0.0, 0.0, 1.0],
            "fingertip_names": [],
            "fingertip_error_m": [],
            "mean_fingertip_error_m": 0.0,
            "solver_status": "converged",
            "within_limits": True,
            "backend": "made",
            "quality_tier": "baseline",
        }
