"""How fast cuts are found, against bare decoding and against PySceneDetect's own `detect`.

    python benchmarks/scene_detect.py [VIDEO ...] [--rounds 5] [--json]

Without videos, a 1080p H.264 sample of three long takes is made, with cuts inside of GOPs. Each
round times, one after the other on the same file: decoding alone (our decoder and its threads,
doing nothing else), PySceneDetect with the same detector and threshold, our exact search, our fast
search; medians count. Fails unless the exact search has PySceneDetect's cuts and is at least 0.85
times as fast as decoding alone, and the fast search has the exact one's confirmed cuts and is at
least 3 times as fast as PySceneDetect. The last line is these two ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

EXACT_BAR, FAST_BAR = 0.85, 3.0
THRESHOLD = 20.0
TAKE_S, FPS, SIZE = 20, 30, (1920, 1080)
CUTS = [TAKE_S * FPS, 2 * TAKE_S * FPS]


def make_sample(folder: Path) -> Path:
    """Three takes of 20 s: short renderings played to and fro, brought to 1080p."""
    import av

    from ego_assets.media.decode import ClipFrames
    from ego_assets.media.frame_index import index_frames
    from samples import render_sample

    path = folder / "long_takes.mp4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        stream.options = {"preset": "veryfast", "g": "60", "x264-params": "scenecut=0"}
        for take, seed in enumerate((0, 1, 2)):
            short = render_sample(folder, seed, duration_s=2.5, width=640, height=360)
            frames = ClipFrames(short, 0, len(index_frames(short))).read()
            images = [frame.image for frame in frames]
            images += images[::-1]
            for number in range(TAKE_S * FPS):
                picture = av.VideoFrame.from_ndarray(images[number % len(images)], format="rgb24")
                picture = picture.reformat(*SIZE, "yuv420p", interpolation="BICUBIC")
                picture.pts, picture.time_base = take * TAKE_S * FPS + number, Fraction(1, FPS)
                container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def decode_alone(path: Path) -> int:
    """Number of frames."""
    from ego_assets.media.containers import choose_video_stream, open_media

    with open_media(path) as container:
        stream: Any = choose_video_stream(container)
        stream.thread_type = "AUTO"
        return sum(1 for _ in container.decode(stream))


def peer(path: Path) -> list[int]:
    """PySceneDetect's cuts, as the order of the frame."""
    from scenedetect import ContentDetector, detect

    class Counting(ContentDetector):
        def process_frame(self, timecode: Any, frame_img: Any) -> Any:
            times.append(timecode.seconds)
            return super().process_frame(timecode, frame_img)

    times: list[float] = []
    scenes = detect(str(path), Counting(threshold=THRESHOLD, min_scene_len=0))
    return [times.index(start.seconds) for start, _ in scenes[1:]]


def search(path: Path, how: str) -> Any:
    """FoundCuts. The index of the frames is made anew, as for a new file."""
    from ego_assets.media import frame_index
    from ego_assets.videos import cuts
    from ego_assets.videos.settings import ClipSettings

    frame_index._index_frames.cache_clear()
    return cuts.find_cuts(path, ClipSettings(search=how, threshold=THRESHOLD))


def measure(path: Path, rounds: int) -> dict[str, Any]:
    """Median seconds of each side, and what each found."""
    sides: dict[str, Callable[[], Any]] = {
        "decoding alone": lambda: decode_alone(path),
        "PySceneDetect": lambda: peer(path),
        "exact": lambda: search(path, "exact"),
        "fast": lambda: search(path, "fast"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    found: dict[str, Any] = {}
    for _ in range(rounds):
        for name, run in sides.items():
            began = time.perf_counter()
            found[name] = run()
            seconds[name].append(time.perf_counter() - began)
    exact, fast = found["exact"], found["fast"]
    return {
        "video": path.name,
        "frames": found["decoding alone"],
        "seconds": {name: statistics.median(runs) for name, runs in seconds.items()},
        "runs": seconds,
        "proposed": {"PySceneDetect": found["PySceneDetect"], "exact": exact.proposed},
        "cuts": {"exact": exact.cuts, "fast": fast.cuts},
        "fast_decoded_frames": fast.decoded_frames,
        "fast_fallback": fast.fallback,
        "equal": found["PySceneDetect"] == exact.proposed and exact.cuts == fast.cuts,
    }


def show(result: dict[str, Any]) -> None:
    print(f"{result['video']}: {result['frames']} frames")
    for name, seconds in result["seconds"].items():
        print(f"  {name:15s} {result['frames'] / seconds:7.0f} frames/s")
    for name, proposed in result["proposed"].items():
        print(f"  proposed by {name}: {proposed}")
    for name, cuts in result["cuts"].items():
        print(f"  confirmed, {name}: {cuts}")
    why = result["fast_fallback"]
    print(f"  fast decoded {result['fast_decoded_frames']} frames{f' ({why})' if why else ''}")


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    model = next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), "")
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} x {model or platform.machine()}, load {load:.1f} at the end"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("videos", type=Path, nargs="*")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        videos = options.videos or [make_sample(Path(folder))]
        results = [measure(path, options.rounds) for path in videos]
    if not options.videos:
        results[0]["equal"] &= results[0]["cuts"]["exact"] == CUTS
    total = {n: sum(r["seconds"][n] for r in results) for n in results[0]["seconds"]}
    exact = total["decoding alone"] / total["exact"]
    fast = total["PySceneDetect"] / total["fast"]
    equal = all(r["equal"] for r in results)
    if options.json:
        ratios = {"exact_over_decoding": exact, "fast_over_pyscenedetect": fast}
        print(json.dumps({"machine": machine(), "videos": results, "equal_cuts": equal} | ratios))
    else:
        for result in results:
            show(result)
        print(f"machine: {machine()}")
        print(f"cuts are {'equal' if equal else 'NOT EQUAL'}")
        print(
            f"speed of exact over decoding alone: {exact:.2f} (at least {EXACT_BAR:g}); "
            f"of fast over PySceneDetect: {fast:.2f} (at least {FAST_BAR:g})"
        )
    return 0 if equal and exact >= EXACT_BAR and fast >= FAST_BAR else 1


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    sys.exit(main())
