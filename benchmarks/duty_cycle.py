"""How busy a stage keeps its devices, from the first kernel to the last, against static sharding.

The devices and the stage times are simulated (as of an H100 and SAM 2: see `simulated_device`);
the queues, the ledger and the lake are real. A heavy-tailed mix of videos, 480p to 4K, 30 s to
2 min, goes through a stage of this project: workers pull takes, the longest first, three lanes a
device. The other side is what a team has without it: the videos dealt out in equal numbers, one
process a device, one clip after the other. Also with 2 and 8 devices. Before that, one device and
one lane (a model whose memory fills the device, with a large state): each clip published before the
next one is computed, and behind it. The last line is the busy share of 4 devices, and over that of
static sharding; it fails under 0.95.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np

from benchmarks.simulated_device import (
    KERNEL_S_PER_FRAME,
    SPEED_VARIABLE,
    SimulatedOperator,
    time_scale,
)
from ego_assets.catalog import TABLES
from ego_assets.engine.plan import StageSpec
from ego_assets.engine.runner import run_stage
from resources.lake import Lake, Provenance
from resources.ledger import Ledger

BAR = 0.95
SHARD = "20260101-0000"
FPS = 30
CLIP_S = 20
VIDEOS_PER_DEVICE = 24
HEIGHTS = (480, 720, 1080, 2160)
WEIGHTS = (20, 30, 40, 10)
BACKEND = "benchmarks.simulated_device:SimulatedOperator"
TEMPORAL = "benchmarks.simulated_device:TemporalOperator"
ONE_LANE_VIDEOS = 12
BYTES_IN_FLIGHT = 256 * 2**20
"""Of a worker, as the preset for such machines has it."""


def write_frames(path: Path, count: int) -> None:
    """A video of tiny pictures: nobody looks at them, but the frames must be there."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        picture = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8))
        for number in range(count):
            picture.pts = number
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def make_videos(count: int, seed: int) -> list[tuple[int, float]]:
    """[(height in px, seconds)]: most are short and small, a few cost ten times as much."""
    dice = random.Random(seed)
    return [
        (
            dice.choices(HEIGHTS, WEIGHTS)[0],
            30 + min(90.0, dice.lognormvariate(2.5, 1.0)),
        )
        for _ in range(count)
    ]


def make_lake(folder: Path, path: Path, videos: Sequence[tuple[int, float]]) -> StageSpec:
    """A lake with these videos, cut into clips of 20 s that are one take each."""
    lake = Lake(folder)
    names: dict[str, Any] = dict.fromkeys(Provenance.__dataclass_fields__, "x")
    origin = Provenance(**names | {"attempt": 1, "token": 1})
    rows, clips = [], []
    for number, (height, duration_s) in enumerate(videos):
        video_id = f"{number:016x}"
        own = folder / "raw" / f"{number}.mp4"
        own.parent.mkdir(parents=True, exist_ok=True)
        own.symlink_to(path)
        blank = dict.fromkeys(TABLES["video_manifest"].model_fields)
        rows.append(
            blank
            | {
                "video_id": video_id,
                "shard": SHARD,
                "uri": str(own),
                "byte_size": 1,
                "sha256": f"{number:064x}",
                "accepted": True,
                "width_px": height * 16 // 9,
                "height_px": height,
                "frame_count": round(duration_s * FPS),
                "average_rate_fps": float(FPS),
                "duration_s": duration_s,
                "camera_model": "PINHOLE",
                "fx_px": 1.0,
                "fy_px": 1.0,
                "cx_px": 1.0,
                "cy_px": 1.0,
                "intrinsics_source": "assumed_fov",
            }
        )
        starts = list(range(0, round(duration_s * FPS), CLIP_S * FPS))
        for index, start in enumerate(starts):
            end = min(start + CLIP_S * FPS, round(duration_s * FPS))
            clips.append(
                dict.fromkeys(TABLES["clips"].model_fields)
                | {
                    "video_id": video_id,
                    "shard": SHARD,
                    "clip_id": f"{video_id}-{index:04d}",
                    "clip_index": index,
                    "take_id": f"{video_id}-t000",
                    "index_in_take": index,
                    "start_frame": start,
                    "end_frame": end,
                    "start_pts_s": start / FPS,
                    "end_pts_s": end / FPS,
                    "context_frames": 0,
                    "split_reason": "length" if index else "start",
                    "estimated_cost": height * height * 16 / 9 / 1e6 * (end - start),
                }
            )
    for table, content in (("video_manifest", rows), ("clips", clips)):
        lake.publish(table, SHARD, "all", TABLES[table].from_rows(content), origin)
    lake.write_shard(SHARD, {"files": []})
    return StageSpec(
        name="object_movements",
        item="clip",
        tables=("object_movements",),
        settings={},
        lake_root=lake.location,
        ledger_url=Ledger.beside(lake.root).url,
        shard=SHARD,
        run_id="bench",
        operator="movement_estimator",
        backend=BACKEND,
        operator_version="1",
    )


def busy_share(folder: Path, devices: int) -> float:
    """Time in kernels over all time of all devices, from the first kernel to the last one's end."""
    spans = [json.loads(x) for p in folder.glob("*.jsonl") for x in p.read_text().splitlines()]
    first, last = min(s[0] for s in spans), max(s[1] for s in spans)
    return sum(end - start for start, end in spans) / (devices * (last - first))


def run_one(spec: StageSpec, device: str) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = device
    report = run_stage(replace(spec, devices=(device,)), workers=1)
    assert not report.failures, report.failures[:3]


def measure(devices: int, seed: int, frames: Path, folder: Path) -> dict[str, float]:
    """The busy share of our stage, and of static sharding, over the same videos."""
    videos = make_videos(VIDEOS_PER_DEVICE * devices, seed)
    names = tuple(str(n) for n in range(devices))
    found: dict[str, float] = {}
    log = folder / f"log{devices}"
    log.mkdir()
    os.environ["EGO_SIMULATED_LOG"] = str(log)
    spec = make_lake(folder / f"lake{devices}", frames, videos)
    spec = replace(
        spec,
        lanes=SimulatedOperator.lanes,
        devices=names,
        publish_behind=True,
        bytes_in_flight=BYTES_IN_FLIGHT,
    )
    began = time.monotonic()
    report = run_stage(spec, workers=devices)
    found["seconds"] = time.monotonic() - began
    assert not report.failures, report.failures[:3]
    found["clips"] = report.done
    found["busy"] = busy_share(log, devices)
    found["kernel_s"] = sum(
        time_scale() * KERNEL_S_PER_FRAME[height] * round(duration_s * FPS)
        for height, duration_s in videos
    )
    static = folder / f"static{devices}"
    static.mkdir()
    os.environ["EGO_SIMULATED_LOG"] = str(static)
    spawn = multiprocessing.get_context("spawn")
    began = time.monotonic()
    processes = []
    for name in names:
        mine = make_lake(static / f"lake{name}", frames, videos[int(name) :: devices])
        processes.append(spawn.Process(target=run_one, args=(mine, name)))
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    found["static_seconds"] = time.monotonic() - began
    found["static_busy"] = busy_share(static, devices)
    return found


def measure_one_lane(seed: int, frames: Path, folder: Path) -> dict[str, float]:
    """The busy share of one device with one lane, without and with publishing behind the model."""
    videos = make_videos(ONE_LANE_VIDEOS, seed)
    found: dict[str, float] = {}
    for name, behind in (("in_turn", False), ("behind", True)):
        log = folder / f"log_{name}"
        log.mkdir()
        os.environ["EGO_SIMULATED_LOG"] = str(log)
        spec = make_lake(folder / f"lake_{name}", frames, videos)
        spec = replace(spec, backend=TEMPORAL, devices=("0",), publish_behind=behind)
        began = time.monotonic()
        report = run_stage(replace(spec, bytes_in_flight=BYTES_IN_FLIGHT), workers=1)
        assert not report.failures, report.failures[:3]
        found[f"{name}_seconds"] = time.monotonic() - began
        found[f"{name}_busy"] = busy_share(log, 1)
        found["clips"] = report.done
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, nargs="*", default=[2, 4, 8])
    parser.add_argument(
        "--speed", type=float, default=40, help="so many times faster than the real devices"
    )
    parser.add_argument("--one-lane-speed", type=float, default=8, help="as --speed, of one lane")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory(prefix="ego-duty-") as name:
        frames = Path(name) / "frames.mp4"
        write_frames(frames, 120 * FPS)
        os.environ[SPEED_VARIABLE] = str(arguments.one_lane_speed)
        one_lane = measure_one_lane(arguments.seed, frames, Path(name))
        os.environ[SPEED_VARIABLE] = str(arguments.speed)
        for devices in arguments.devices:
            results[devices] = measure(devices, arguments.seed, frames, Path(name))
    judged = results.get(4) or next(iter(results.values()))
    ratio = judged["busy"] / judged["static_busy"]
    if arguments.json:
        print(json.dumps({"bar": BAR, "one_lane": one_lane, "devices": results, "ratio": ratio}))
    else:
        print(
            f"one lane, {one_lane['clips']:.0f} clips: busy {one_lane['behind_busy']:.3f} in "
            f"{one_lane['behind_seconds']:.1f} s, each published before the next "
            f"{one_lane['in_turn_busy']:.3f} in {one_lane['in_turn_seconds']:.1f} s"
        )
        for devices, found in results.items():
            print(
                f"{devices} devices, {found['clips']:.0f} clips: busy {found['busy']:.3f} in "
                f"{found['seconds']:.1f} s, static sharding {found['static_busy']:.3f} in "
                f"{found['static_seconds']:.1f} s"
            )
        print(f"busy share {judged['busy']:.3f}, {ratio:.2f} x that of static sharding")
    sys.exit(0 if judged["busy"] >= BAR else 1)


if __name__ == "__main__":
    main()
