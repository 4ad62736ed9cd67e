"""Memory of the stage pipeline when its consumer is fifty times as slow as the decoder.

Reads a 1080p video through `ClipFrames` with a budget of bytes in flight, in a process of its own,
and watches its resident memory while the consumer takes its time; beside it, in the same run, a
prefetching reader without a limit. The last line is what ours grew by after the consumer's first
frames, over the budget (below 0.25 passes); it fails as well if more than the budget is ever held.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import queue
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import av
import numpy as np
import psutil

from ego_assets.media.decode import ClipFrames
from ego_assets.media.frame_index import index_frames

BUDGET_BYTES = 128 * 2**20
SLOWER = 50
BAR = 0.25
FIRST_FRAMES = 3
"""Of the consumer; in their time, on a busy machine too, the decoder can fill the budget."""
WIDTH, HEIGHT, FRAMES = 1920, 1080, 900


def write_video(path: Path) -> None:
    """Noise that moves: worth decoding."""
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
    picture = np.kron(noise, np.ones((8, 8, 1), np.uint8))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=30, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(FRAMES):
            turned = np.ascontiguousarray(np.roll(picture, 7 * number, axis=1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(turned)))
        container.mux(stream.encode())


def ours(path: Path) -> Iterator[object]:
    return ClipFrames(path, 0, FRAMES, max_bytes_in_flight=BUDGET_BYTES).read()


def unbounded(path: Path) -> Iterator[object]:
    """What `for frame in prefetch(decode())` does with a queue that nobody bounded."""
    ahead: queue.Queue[object] = queue.Queue()

    def fill() -> None:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                ahead.put(frame.to_ndarray(format="rgb24"))

    threading.Thread(target=fill, daemon=True).start()
    while True:
        yield ahead.get()


def consume(kind: str, path: Path, seconds: float, pause_s: float, said: Connection) -> None:
    """Take frames slowly, and say how much memory there is, every tenth of a second."""
    process = psutil.Process()
    index_frames(path)
    before = process.memory_info().rss
    series: list[tuple[int, int]] = []
    taken = 0
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            series.append((taken, process.memory_info().rss - before))

    watcher = threading.Thread(target=watch)
    watcher.start()
    deadline = time.monotonic() + seconds
    for _ in (ours if kind == "ours" else unbounded)(path):
        taken += 1
        time.sleep(pause_s)
        if time.monotonic() > deadline:
            break
    over.set()
    watcher.join()
    said.send((taken, series))


def measure(kind: str, path: Path, seconds: float, pause_s: float) -> dict[str, float]:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=consume, args=(kind, path, seconds, pause_s, sender))
    process.start()
    taken, series = receiver.recv()
    process.terminate()
    process.join()
    settled = [rss for count, rss in series if count > FIRST_FRAMES]
    return {
        "frames": taken,
        "peak_mib": max(rss for _, rss in series) / 2**20,
        "growth_mib": (max(settled) - settled[0]) / 2**20,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ego-pipeline-") as name:
        path = Path(name) / "video.mp4"
        write_video(path)
        began = time.monotonic()
        count = sum(1 for _ in ours(path))
        pause_s = SLOWER * (time.monotonic() - began) / count
        found = {
            kind: measure(kind, path, arguments.seconds, pause_s) for kind in ("ours", "unbounded")
        }
    budget_mib = BUDGET_BYTES / 2**20
    ratio = found["ours"]["growth_mib"] / budget_mib
    # The decoder has pictures of its own (reference frames, one a thread) besides.
    within = found["ours"]["peak_mib"] < 2 * budget_mib
    if arguments.json:
        print(json.dumps({"budget_mib": budget_mib, "pause_s": pause_s, **found, "ratio": ratio}))
    else:
        for kind, figures in found.items():
            print(
                f"{kind:10} took {figures['frames']:.0f} frames, one every {pause_s:.2f} s: peak "
                f"{figures['peak_mib']:.0f} MiB, growth {figures['growth_mib']:.0f} MiB"
            )
        print(f"growth over the budget of {budget_mib:.0f} MiB: {ratio:.2f}")
    sys.exit(0 if ratio < BAR and within else 1)


if __name__ == "__main__":
    main()
