"""How fast pictures reach models, from all kinds of video, against bare PyAV.

    python benchmarks/decode.py [--seconds 4] [--rounds 3] [--json]

Makes the same moving pictures several times: in 1080p as HEVC of 8 bits, HEVC of 10 bits in PQ,
interlaced H.264, and H.264 with a single keyframe, of which only the last quarter is read; in 4K as
HEVC of 8 bits and as HEVC of 10 bits in PQ, a quarter as long. Each round reads every file, one
after the other, by PyAV to rgb24 in full size as a loop over `decode` does it, and by `ClipFrames`
in full size and at 640 pixels, the size that most operators ask for; medians count. The last lines
are the speed of HDR over that of standard range (at 640 pixels at least 0.5 passes). In full size
PyAV itself, which leaves the colours wrong, is about half as fast with 10 bits as with 8.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

BAR = 0.5
FPS, SIDE_PX = 30, 640
HD, UHD = (1920, 1080), (3840, 2160)
X265 = "log-level=none:bframes=0:frame-threads=1"
PQ_TAGS = "colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"


@dataclass(frozen=True)
class Kind:
    """share: of the pictures, that are made; read_from: the share of these that is passed over."""

    codec: str
    layout: str
    options: dict[str, str]
    size: tuple[int, int] = HD
    share: float = 1.0
    read_from: float = 0.0


PLAIN, PQ = {"x265-params": X265}, {"x265-params": f"{X265}:{PQ_TAGS}"}
KINDS = {
    "standard range": Kind("libx265", "yuv420p", PLAIN),
    "HDR": Kind("libx265", "yuv420p10le", PQ),
    "interlaced": Kind("libx264", "yuv420p", {"x264-params": "tff=1", "flags": "+ildct+ilme"}),
    "long GOP": Kind("libx264", "yuv420p", {"g": "9999", "sc_threshold": "0"}, read_from=0.75),
    "4K": Kind("libx265", "yuv420p", PLAIN, UHD, share=0.25),
    "4K HDR": Kind("libx265", "yuv420p10le", PQ, UHD, share=0.25),
}
OVER = {"HDR": "standard range", "4K HDR": "4K"}


def write_video(path: Path, frames: int, kind: Kind) -> None:
    """Coloured blocks with some grain, which move: worth decoding."""
    import av
    import numpy as np

    random = np.random.default_rng(0)
    width, height = kind.size
    blocks = random.integers(20, 180, (height // 40, width // 40, 3), np.uint8)
    picture = np.kron(blocks, np.ones((40, 40, 1), np.uint8))
    picture += random.integers(0, 12, picture.shape, np.uint8)
    with av.open(str(path), "w") as container:
        preset = {"preset": "ultrafast", "crf": "23", "g": "60"}
        stream: Any = container.add_stream(kind.codec, rate=FPS, options=preset | kind.options)
        stream.width, stream.height = kind.size
        stream.pix_fmt = kind.layout
        for number in range(frames):
            moved = np.ascontiguousarray(np.roll(picture, 6 * number, axis=1))
            shown = av.VideoFrame.from_ndarray(moved, format="rgb24").reformat(format=kind.layout)
            shown.pts, shown.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(shown))
        container.mux(stream.encode())


def bare(path: Path, first: int) -> int:
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        if first:
            container.seek(round(first / FPS / stream.time_base), stream=stream)
        wanted = (f for f in container.decode(video=0) if round(f.time * FPS) >= first)
        return sum(1 for f in wanted if f.to_ndarray(format="rgb24").size)


def ours(path: Path, first: int, max_side_px: int | None) -> int:
    from ego_assets.media.decode import ClipFrames
    from ego_assets.media.frame_index import index_frames

    frames = ClipFrames(path, first, len(index_frames(path)))
    return sum(1 for _ in frames.read(max_side_px=max_side_px))


Speed = tuple[float, float]
SIDES: dict[str, Callable[[Path, int], int]] = {
    "PyAV": bare,
    "full size": lambda path, first: ours(path, first, None),
    f"{SIDE_PX} px": lambda path, first: ours(path, first, SIDE_PX),
}


def measure(
    videos: dict[str, Path], counts: dict[str, int], rounds: int
) -> dict[str, dict[str, Speed]]:
    """{kind of video: {side: (frames a second, CPU milliseconds a frame of all threads)}}, medians.
    counts: frames of each. Raises RuntimeError for a lost frame."""
    runs: dict[str, dict[str, list[Speed]]] = {k: {s: [] for s in SIDES} for k in videos}
    for _ in range(rounds):
        for kind, path in videos.items():
            first = int(counts[kind] * KINDS[kind].read_from)
            frames = counts[kind] - first
            for side, read in SIDES.items():
                began, worked = time.perf_counter(), time.process_time()
                if (found := read(path, first)) != frames:
                    raise RuntimeError(f"{kind}, {side}: {found} of {frames} frames")
                speed = frames / (time.perf_counter() - began)
                runs[kind][side].append((speed, 1e3 * (time.process_time() - worked) / frames))
    return {
        kind: {
            side: (statistics.median(s for s, _ in found), statistics.median(c for _, c in found))
            for side, found in sides.items()
        }
        for kind, sides in runs.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    frames = round(options.seconds * FPS)
    with tempfile.TemporaryDirectory(prefix="ego-decode-") as folder:
        videos = {kind: Path(folder) / f"{number}.mp4" for number, kind in enumerate(KINDS)}
        counts = {kind: round(frames * KINDS[kind].share) for kind in videos}
        for kind, path in videos.items():
            write_video(path, counts[kind], KINDS[kind])
        measured = measure(videos, counts, options.rounds)
    speeds = {kind: {s: each[0] for s, each in sides.items()} for kind, sides in measured.items()}
    over = {k: {s: speeds[k][s] / speeds[of][s] for s in SIDES} for k, of in OVER.items()}
    ratio = over["HDR"][f"{SIDE_PX} px"]
    if options.json:
        print(
            json.dumps(
                {
                    "frames_per_s": speeds,
                    "measured": measured,
                    "over_standard_range": over,
                    "ratio": ratio,
                }
            )
        )
    else:
        for kind, sides in speeds.items():
            of_bare = ", ".join(
                f"{side} {speed:.0f} ({speed / sides['PyAV']:.2f} of it)"
                for side, speed in sides.items()
                if side != "PyAV"
            )
            cpu = ", ".join(f"{side} {each[1]:.1f}" for side, each in measured[kind].items())
            print(f"{kind:15} frames/s: PyAV {sides['PyAV']:.0f}, {of_bare}; CPU ms: {cpu}")
        for kind, ratios in over.items():
            told = ", ".join(f"{side} {r:.2f}" for side, r in ratios.items())
            print(f"{kind} over {OVER[kind]}: {told}")
        print(f"HDR over standard range at {SIDE_PX} px: {ratio:.2f} (at least {BAR:g})")
    return 0 if ratio >= BAR else 1


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    sys.exit(main())
