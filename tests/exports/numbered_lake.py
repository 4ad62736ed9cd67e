"""A lake with episodes whose pictures carry their frame index, robots' joints among its tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from ego_assets.catalog import TABLES
from resources.lake import Lake
from resources.lake.provenance import Provenance
from resources.lake.table import SCHEMA_VERSION
from tests.episodes.made_footage import SHARD, MadeVideo, cut
from tests.exports.bars import picture_of
from tests.exports.lerobot_reader import DataSet, read

ROBOT = ("thumb", "index")
LENS: dict[str, Any] = {
    "camera_model": "PINHOLE",
    "fx_px": 150.0,
    "fy_px": 151.0,
    "cx_px": 95.5,
    "cy_px": 53.5,
}
GOLDEN = Lake(Path(__file__).parents[1] / "golden" / f"lake_schema_{SCHEMA_VERSION}")


FISHEYE: dict[str, Any] = {
    "camera_model": "OPENCV_FISHEYE",
    "fx_px": 100.0,
    "fy_px": 100.5,
    "cx_px": 94.0,
    "cy_px": 55.0,
    "distortion": [0.03125, -0.0078125, 0.0, 0.0],  # as float32 has them
    "intrinsics_source": "calibration_file",
}


def write_numbered(
    path: Path,
    count: int,
    fps: int = 30,
    keyframes: int = 250,
    size: tuple[int, int] = (192, 108),
) -> None:
    """A video whose pictures carry their number, with a keyframe every so many."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"g": str(keyframes)})
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
class NumberedLake:
    lake: Lake
    folder: Path
    tables: dict[str, list[dict[str, Any]]]

    def export(self, *options: str, ok: bool = True, to: str = "lerobot") -> Any:
        from click.testing import CliRunner

        from dagster_project.cli.program import main

        out = self.folder / "out"
        asked = ["export", to, "--lake", str(self.lake.root), "--out", str(out), "--json"]
        done = CliRunner().invoke(main, [*asked, *options], catch_exceptions=False)
        assert (done.exit_code == 0) is ok, done.output
        return json.loads(done.stdout) if ok else done.output

    def data(self) -> DataSet:
        return read(self.folder / "out")


def make(
    folder: Path,
    *videos: MadeVideo,
    shards: int = 1,
    write: Callable[[Path, int], object] = write_numbered,
    size: tuple[int, int] = (192, 108),
    more: dict[str, list[dict[str, Any]]] | None = None,
    lens: dict[str, Any] = LENS,
    **settings: Any,
) -> NumberedLake:
    """A lake with episodes of videos, which are dealt out to shards one after another.

    write: makes a video of so many frames, of this size; more: rows of other tables; lens: columns
    of the camera.
    """
    names = [f"20261130-{n:04d}" for n in range(shards)]
    shard_of = {video.video_id: names[n % shards] for n, video in enumerate(videos)}
    folder.mkdir(parents=True, exist_ok=True)
    lake = Lake(folder / "lake")
    made = cut(*videos, validation_share=0.0, **settings)
    manifest = []
    for video in videos:
        path = folder / f"{video.video_id}.mp4"
        write(path, video.count)
        sizes = {"width_px": size[0], "height_px": size[1]}
        manifest.append(video.manifest() | {"uri": str(path)} | sizes | lens)
    rows = made | {"video_manifest": manifest, "robot_mappings": list(robots(made))}
    rows["hand_poses"] = [pose for video in videos for pose in poses_of(video)]
    rows |= more or {}
    for mine in rows.values():
        for row in mine:
            row["shard"] = shard_of[row["video_id"]]
    for shard in names:
        lake.write_shard(shard, {"videos": []})
        for table, mine in rows.items():
            item = "unit" if table != "video_manifest" else shard
            here = [row for row in mine if row["shard"] == shard]
            filled = [dict.fromkeys(TABLES[table].arrow_schema().names) | row for row in here]
            lake.publish(table, shard, item, TABLES[table].from_rows(filled), provenance(item))
    return NumberedLake(lake, folder, rows)


def add_rows(made: NumberedLake, table: str, rows: list[dict[str, Any]]) -> None:
    """Publish rows of a table of clips; what they lack is that of another lake."""
    other = GOLDEN.read(table, "20260101-0000").to_pylist()[0]
    filled = [other | row for row in rows]
    shard = made.lake.shards()[0]
    made.lake.publish(table, shard, "unit", TABLES[table].from_rows(filled), provenance("unit"))


def withdraw(made: NumberedLake) -> None:
    """Let the lake have no episodes any more, as a run does when consent is withdrawn."""
    nothing, origin = TABLES["episodes"].from_rows([]), provenance("unit")
    for shard in made.lake.shards():
        made.lake.publish("episodes", shard, "unit", nothing, replace(origin, token=1))


def poses_of(video: MadeVideo) -> Iterator[dict[str, Any]]:
    """Rows of hand_poses, as the camera `LENS` sees them."""
    for row in video.rows()["hand_poses"]:
        x, y, z = np.array(row["joints_camera_m"]).T
        u = x / z * LENS["fx_px"] + LENS["cx_px"]
        v = y / z * LENS["fy_px"] + LENS["cy_px"]
        yield row | {
            "video_id": video.video_id,
            "shard": SHARD,
            "joints_px": np.stack([u, v], axis=1).tolist(),
            "box": [float(n) for n in (u.min(), v.min(), u.max(), v.max())],
            "backend": "made",
            "quality_tier": "baseline",
        }


def robots(made: dict[str, list[dict[str, Any]]]) -> Any:
    """Joints that tell their frame, of every hand pose but some: not there, or not valid."""
    for row in made["episode_hands"]:
        if row["track_id"] is None or row["frame_index"] % 100 == 7:
            continue
        is_valid = row["frame_index"] % 100 != 57
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
            "joint_positions": [row["frame_index"] / 1000, 0.5] if is_valid else [9.0, 9.0],
            "is_valid": is_valid if row["frame_index"] % 2 else None,  # as of an older release
            "invalid_reason": None if is_valid else "misses the fingertips",
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
