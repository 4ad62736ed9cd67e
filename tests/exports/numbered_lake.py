"""A lake with episodes whose pictures carry their frame index, robots' joints among its tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from ego_assets.catalog import TABLES
from resources.lake import Lake
from resources.lake.provenance import Provenance
from tests.episodes.made_footage import SHARD, MadeVideo, cut
from tests.exports.bars import picture_of

ROBOT = ("thumb", "index")
GOLDEN = Lake(Path(__file__).parents[1] / "golden" / "lake_schema_2")


def write_numbered(path: Path, count: int, fps: int = 30, keyframes: int = 250) -> None:
    """A video whose pictures carry their number, with a keyframe every so many."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"g": str(keyframes)})
        stream.width, stream.height, stream.pix_fmt = 192, 108, "yuv420p"
        stream.codec_context.time_base = Fraction(1, fps)
        for n in range(count):
            frame = av.VideoFrame.from_ndarray(picture_of(n), format="rgb24")
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


def make(
    folder: Path,
    *videos: MadeVideo,
    shards: int = 1,
    write: Callable[[Path, int], object] = write_numbered,
    size: tuple[int, int] = (192, 108),
    **settings: Any,
) -> NumberedLake:
    """A lake with episodes of videos, which are dealt out to shards one after another.

    write: makes a video of so many frames, of this size.
    """
    names = [f"20261130-{n:04d}" for n in range(shards)]
    shard_of = {video.video_id: names[n % shards] for n, video in enumerate(videos)}
    lake = Lake(folder / "lake")
    made = cut(*videos, validation_share=0.0, **settings)
    manifest = []
    for video in videos:
        path = folder / f"{video.video_id}.mp4"
        write(path, video.count)
        sizes = {"width_px": size[0], "height_px": size[1]}
        manifest.append(video.manifest() | {"uri": str(path)} | sizes)
    rows = made | {"video_manifest": manifest, "robot_mappings": list(robots(made))}
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
