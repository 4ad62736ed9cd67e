"""How fast a training loop gets its samples, against bare decoding and against LeRobotDataset.

    python benchmarks/loader.py [--seconds 8] [--videos 4] [--rounds 3] [--workers 2]
                                [--lerobot-python PYTHON] [--json]

Makes a lake with an episode in each of a few 1080p videos (H.264, a keyframe every 60 frames). Each
round reads all of its frames, one side after the other and each in a process of its own: by PyAV
with as many threads as it likes, shrunk to 640 pixels, as a loop over `decode` does it; and by
`EpisodeStream`, shuffled, a picture and 16 actions a sample, in batches from workers. With a
Python that has LeRobot (`--lerobot-python`, or the variable EGO_LEROBOT_PYTHON), the same samples
come by `LeRobotDataset`, shuffled, from `ego export lerobot` of that lake, which has them in 640
pixels already; without, that is left out, and the output says so.

Medians of samples a second count, from the first wish to the last sample: starting workers is part
of it, imports are not. Memory is the peak of all processes of a side, shared pages counted once.
The last line is the speed over that of bare decoding (at least 0.8 passes), and over that of
LeRobotDataset (at least 1.0).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BAR_OF_BARE, BAR_OF_LEROBOT = 0.8, 1.0
SIZE, FPS, SIDE_PX, ACTIONS, BATCH = (1920, 1080), 30, 640, 16, 32
PSS_EVERY_S = 0.2
X264 = ("libx264", "yuv420p", {"x264-params": "log-level=none"})
Side = Callable[[Path, int], Iterator[int]]
"""Gets ready at the first step; then gives the number of samples in each batch."""


def bare(folder: Path, workers: int) -> Iterator[int]:
    import av

    yield 0
    for path in sorted(folder.glob("*.mp4")):
        with av.open(str(path)) as container:
            container.streams.video[0].thread_type = "AUTO"
            for frame in container.decode(video=0):
                height = frame.height * SIDE_PX // frame.width
                small = frame.reformat(SIDE_PX, height, "rgb24", interpolation="AREA")
                yield int(small.to_ndarray().size > 0)


def ours(folder: Path, workers: int) -> Iterator[int]:
    import ego_assets as ego
    from ego_assets.training import EpisodeLoader, EpisodeStream, WindowSettings

    windows = WindowSettings(action=ACTIONS, size=(SIDE_PX * SIZE[1] // SIZE[0], SIDE_PX))
    stream = EpisodeStream(ego.open(folder / "lake"), windows, buffer=128, lanes=2)
    loader = EpisodeLoader(stream, batch_size=BATCH, num_workers=workers)
    yield 0
    for batch in loader:
        yield len(batch["observation.images.ego"])


def lerobot(folder: Path, workers: int) -> Iterator[int]:
    from lerobot.datasets import LeRobotDataset
    from lerobot.utils.collate import lerobot_collate_fn
    from torch.utils.data import DataLoader

    ahead = {"action": [n / FPS for n in range(ACTIONS)]}
    found = LeRobotDataset(
        "local/loader", root=folder / "export", delta_timestamps=ahead, return_uint8=True
    )
    reading = {"num_workers": workers, "collate_fn": lerobot_collate_fn}
    loader = DataLoader(found, batch_size=BATCH, shuffle=True, **reading)
    yield 0
    for batch in loader:
        yield len(batch["observation.images.ego"])


SIDES: dict[str, Side] = {"bare decoding": bare, "EpisodeStream": ours, "LeRobotDataset": lerobot}


def read_all(side: str, folder: Path, workers: int) -> None:
    """What the process of a side does: prints how many samples came in how many seconds."""
    batches = SIDES[side](folder, workers)
    next(batches)
    began = time.perf_counter()
    count = sum(batches)
    print(json.dumps({"samples": count, "seconds": time.perf_counter() - began}))


def measure(
    side: str, folder: Path, options: argparse.Namespace, frames: int
) -> tuple[float, float]:
    """(samples a second, MiB at most) of a side in a process of its own."""
    python, variables = sys.executable, os.environ | {"PYTHONPATH": str(ROOT)}
    if side == "LeRobotDataset":
        from tests.exports.reader_environment import variables as variables_of

        python, variables = options.lerobot_python, variables_of(Path(options.lerobot_python))
    variables |= {"HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    command = [python, str(Path(__file__).resolve()), "--side", side, "--folder", str(folder)]
    process = subprocess.Popen(
        [*command, "--workers", str(options.workers)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=variables,
    )
    peak = [0.0]
    watch = threading.Thread(target=watch_memory, args=(process, peak))
    watch.start()
    said, errors = process.communicate()
    watch.join()
    if process.returncode:
        raise RuntimeError(f"{side}: {errors[-2000:]}")
    found = json.loads(said.splitlines()[-1])
    if found["samples"] != frames:
        raise RuntimeError(f"{side}: {found['samples']} of {frames} samples")
    return found["samples"] / found["seconds"], peak[0]


def watch_memory(process: subprocess.Popen[str], peak: list[float]) -> None:
    """Raises `peak` to the MiB of a process and its children, until it ends."""
    import psutil

    while process.poll() is None:
        try:
            root = psutil.Process(process.pid)
            tree = [root, *root.children(recursive=True)]
            peak[0] = max(peak[0], sum(p.memory_full_info().pss for p in tree) / 2**20)
        except psutil.Error:
            pass  # one of them has just ended
        time.sleep(PSS_EVERY_S)


def make_data(folder: Path, options: argparse.Namespace) -> int:
    """A lake and an export of it in `folder`. Returns the frames of its episodes."""
    from benchmarks.decode import Kind, write_video
    from ego_assets.exports.lake_export import export_episodes
    from ego_assets.exports.lerobot.settings import LeRobotSettings
    from ego_assets.exports.settings import ContentSettings
    from tests.episodes.made_footage import MadeVideo
    from tests.exports.numbered_lake import make

    count = round(options.seconds * FPS)
    first = folder / "encoded" / "first.mp4"
    first.parent.mkdir()
    write_video(first, count, Kind(*X264))
    videos = [MadeVideo(count=count, video_id=f"{n:016x}") for n in range(options.videos)]
    made = make(folder, *videos, write=lambda path, _: shutil.copy(first, path), size=SIZE)
    if options.lerobot_python:
        form = LeRobotSettings(max_side_px=SIDE_PX)
        export_episodes("lerobot", made.lake, folder / "export", ContentSettings(), form)
    return count * options.videos


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each video")
    parser.add_argument("--videos", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--lerobot-python",
        default=os.environ.get("EGO_LEROBOT_PYTHON", ""),
        help="a Python that has LeRobot",
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side", choices=list(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        read_all(options.side, options.folder, options.workers)
        return 0
    sides = [side for side in SIDES if side != "LeRobotDataset" or options.lerobot_python]
    runs: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory(prefix="ego-loader-") as folder:
        frames = make_data(Path(folder), options)
        for _ in range(options.rounds):
            for side in sides:
                runs[side].append(measure(side, Path(folder), options, frames))
    speeds = {side: statistics.median(s for s, _ in runs[side]) for side in sides}
    memory = {side: max(m for _, m in runs[side]) for side in sides}
    return report(speeds, memory, frames, options.json)


def report(speeds: dict[str, float], memory: dict[str, float], frames: int, as_json: bool) -> int:
    others = {"bare decoding": BAR_OF_BARE, "LeRobotDataset": BAR_OF_LEROBOT}
    ratios = {side: speeds["EpisodeStream"] / speeds[side] for side in others if side in speeds}
    found: dict[str, Any] = {"samples": frames, "samples_per_s": speeds, "peak_mib": memory}
    if as_json:
        print(json.dumps(found | {"ratios": ratios}))
    else:
        for side, speed in speeds.items():
            print(f"{side:15} {speed:6.0f} samples/s, {memory[side]:6.0f} MiB at most")
        if "LeRobotDataset" not in speeds:
            print("LeRobotDataset was left out: give --lerobot-python or EGO_LEROBOT_PYTHON")
        words = [f"{ratios[s]:.2f} of {s} (at least {others[s]:g})" for s in ratios]
        print(f"EpisodeStream: {', '.join(words)}")
    return 0 if all(ratio >= others[side] for side, ratio in ratios.items()) else 1


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
