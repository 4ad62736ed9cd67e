"""Peak memory of every stage's workers on a long video without a cut, against the promised limit.

    python benchmarks/long_video_memory.py [--size 1080p] [--minutes 10] [--fps 30] [--video FILE]

A sample of 20 s (the longest clip) is rendered at 1920 x 1080, and enlarged for other sizes. It is
played forwards and backwards in turn up to the wanted length, so that the whole of it is one take.
The whole graph runs over it, and over the first 20 s alone, to show that the length does not
matter. The largest resident set of each stage's workers is compared with 1.5 GiB. The last line is
the ratio of the worst peak to the limit (below 1 passes).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

LIMIT_MIB = 1536
CLIP_S = 20.0
SIZES = {"1080p": (1920, 1080, 10.0), "4k": (3840, 2160, 2.0)}
"""Width, height, and how many minutes are looked at unless told otherwise."""
AT_ONCE = 24
STAGES = (
    "video_manifest",
    "clips",
    "segmentation",
    "hand_poses",
    "scene_reconstruction",
    "object_poses",
    "object_movements",
    "robot_mappings",
)


def frames_there_and_back(source: Path) -> Iterator[Any]:
    """The pictures of the first 20 s of a video, then the same from the last to the first."""
    from ego_assets.media.decode import ClipFrames
    from ego_assets.media.frame_index import index_frames

    index = index_frames(source)
    count = max(1, int((index.pts_s < CLIP_S).sum()))
    yield from (frame.image for frame in ClipFrames(source, 0, count).read())
    for start in reversed(range(0, count, AT_ONCE)):
        frames = ClipFrames(source, start, min(start + AT_ONCE, count)).read()
        yield from reversed([frame.image for frame in frames])


def encode_loop(source: Path, target: Path, width: int, height: int, fps: int) -> None:
    """A video of that size that can be repeated without a cut, and its camera."""
    import av

    with av.open(str(target), "w") as out:
        stream: Any = out.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "superfast", "crf": "22"}
        for number, image in enumerate(frames_there_and_back(source)):
            picture = av.VideoFrame.from_ndarray(image, format="rgb24")
            picture = picture.reformat(width=width, height=height, interpolation="BICUBIC")
            picture.pts, picture.time_base = number, Fraction(1, fps)
            out.mux(stream.encode(picture))
        out.mux(stream.encode())
    sidecar = source.with_suffix(".camera.json")
    if sidecar.exists():
        camera = json.loads(sidecar.read_text())
        scale = width / camera["width"]
        camera |= {"width": width, "height": height}
        camera |= {name: camera[name] * scale for name in ("fx", "fy")}
        camera |= {name: (camera[name] + 0.5) * scale - 0.5 for name in ("cx", "cy")}
        target.with_suffix(".camera.json").write_text(json.dumps(camera))


def repeat_video(source: Path, target: Path, duration_s: float) -> None:
    """Copy the coded frames of `source` again and again, without coding them again."""
    import av

    with av.open(str(target), "w") as out:
        stream: Any = None
        end = offset = 0
        is_full = False
        while not is_full:
            with av.open(str(source)) as container:
                video: Any = container.streams.video[0]
                stream = stream or out.add_stream_from_template(video)
                for packet in container.demux(video):
                    if packet.dts is None:
                        continue
                    last = offset + packet.pts + packet.duration
                    if is_full := last * video.time_base > duration_s:
                        break
                    packet.pts += offset
                    packet.dts += offset
                    packet.stream = stream
                    end = max(end, last)
                    out.mux(packet)
            offset = end
    sidecar = source.with_suffix(".camera.json")
    if sidecar.exists():
        target.with_suffix(".camera.json").write_text(sidecar.read_text())


def run(video: Path, lake: Path, workers: int) -> dict[str, dict[str, float]]:
    """{"peaks_mib": largest resident set of a worker by stage, "seconds": of the whole run}."""
    import dagster as dg

    from dagster_project.home import open_instance
    from dagster_project.runs import run_paths

    began = time.monotonic()
    summary = run_paths([video], lake, workers=workers)
    if not summary.ok:
        sys.exit(f"the run failed: {summary.failures[:3]} {summary.problems[:3]}")
    found = {}
    with open_instance(lake) as instance:
        for stage in STAGES:
            key = "object_masks" if stage == "segmentation" else stage
            event = instance.get_latest_materialization_event(dg.AssetKey(key))
            assert event is not None
            assert event.asset_materialization is not None
            metadata = event.asset_materialization.metadata
            found[stage] = float(str(metadata["peak memory of a worker, MiB"].value))
    return {"peaks_mib": found, "seconds": {"all": time.monotonic() - began}}


def size_of(text: str) -> tuple[int, int, float]:
    """Width, height, minutes of `1080p`, `4k` or `1440x1920`."""
    if text in SIZES:
        return SIZES[text]
    width, _, height = text.partition("x")
    return int(width), int(height), 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--size", type=size_of, default=SIZES["1080p"], help="1080p, 4k or WxH")
    parser.add_argument("--minutes", type=float, help="default: 10, at 4k 2")
    parser.add_argument("--fps", type=int, default=30)
    parser.add_argument("--video", type=Path, help="the first 20 s of it instead of a sample")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    width, height, minutes = arguments.size
    minutes = arguments.minutes or minutes
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = arguments.video
        if source is None:
            from samples import render_sample

            source = render_sample(folder, seed=0, duration_s=CLIP_S, width=1920, height=1080)
        loop, short, long = (folder / f"{n}.mp4" for n in ("loop", "short", "long"))
        encode_loop(source, loop, width, height, arguments.fps)
        repeat_video(loop, short, CLIP_S)
        repeat_video(loop, long, 60 * minutes)
        load = [round(os.getloadavg()[2], 1)]
        results = {
            "short": run(short, folder / "lake_short", arguments.workers),
            "long": run(long, folder / "lake_long", arguments.workers),
        }
        load.append(round(os.getloadavg()[2], 1))
    ratio = max(max(r["peaks_mib"].values()) for r in results.values()) / LIMIT_MIB
    if arguments.json:
        told = {"width": width, "height": height, "fps": arguments.fps, "minutes": minutes}
        told |= {"limit_mib": LIMIT_MIB, "load": load, "ratio": ratio} | results
        print(json.dumps(told))
    else:
        print(f"{width} x {height}, {arguments.fps} frames/s; load {load[0]} to {load[1]}")
        print(f"{'stage':24}{'20 s':>8}{minutes:>6.0f} min   (MiB, largest worker)")
        short_mib, long_mib = (results[n]["peaks_mib"] for n in ("short", "long"))
        for stage in STAGES:
            print(f"{stage:24}{short_mib[stage]:8.0f}{long_mib[stage]:10.0f}")
        print(f"worst peak over the limit of {LIMIT_MIB} MiB: {ratio:.2f}")
    sys.exit(0 if ratio < 1 else 1)


if __name__ == "__main__":
    # Run as a file, only this folder is on the path.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    main()
