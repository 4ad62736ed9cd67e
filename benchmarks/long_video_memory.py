"""Peak memory of every stage's workers on a long 1080p video, against the promised limit.

Renders a sample of 20 s (the longest clip) at 1920 x 1080, repeats its coded frames up to the
wanted length, runs the whole graph, and compares the largest resident set of each stage's workers
with 1.5 GiB. The same is done with the short video, to show that the length does not matter. The
last line is the ratio of the worst peak to the limit (below 1 passes).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import av
import dagster as dg

from dagster_project.home import open_instance
from dagster_project.run_graph import run_paths
from samples import render_sample

LIMIT_MIB = 1536
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


def repeat_video(source: Path, target: Path, duration_s: float) -> None:
    """Copy the coded frames of `source` again and again, without coding anew."""
    with av.open(str(source)) as once:
        length_s = float(once.duration or 0) / 1e6
    rounds = max(1, round(duration_s / length_s))
    with av.open(str(target), "w") as out:
        stream = None
        offset = 0
        for _ in range(rounds):
            with av.open(str(source)) as container:
                video = container.streams.video[0]
                if stream is None:
                    stream = out.add_stream_from_template(video)
                end = offset
                for packet in container.demux(video):
                    if packet.dts is None:
                        continue
                    packet.pts = (packet.pts or 0) + offset
                    packet.dts += offset
                    end = max(end, packet.pts + (packet.duration or 0))
                    packet.stream = stream
                    out.mux(packet)
                offset = end
    sidecar = source.with_suffix(".camera.json")
    target.with_suffix(".camera.json").write_text(sidecar.read_text())


def peaks_mib(video: Path, lake: Path, workers: int) -> dict[str, float]:
    """Largest resident set of a worker, by stage."""
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
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        short = render_sample(folder, seed=0, duration_s=20.0, width=1920, height=1080)
        long = folder / "long.mp4"
        repeat_video(short, long, 60 * arguments.minutes)
        results = {
            "short": peaks_mib(short, folder / "lake_short", arguments.workers),
            "long": peaks_mib(long, folder / "lake_long", arguments.workers),
        }
    ratio = max(results["long"].values()) / LIMIT_MIB
    if arguments.json:
        print(json.dumps({"limit_mib": LIMIT_MIB, "peaks_mib": results, "ratio": ratio}))
    else:
        print(f"{'stage':24}{'20 s':>8}{arguments.minutes:>6.0f} min   (MiB, largest worker)")
        for stage in STAGES:
            print(f"{stage:24}{results['short'][stage]:8.0f}{results['long'][stage]:10.0f}")
        print(f"worst peak over the limit of {LIMIT_MIB} MiB: {ratio:.2f}")
    sys.exit(0 if ratio < 1 else 1)


if __name__ == "__main__":
    main()
