"""How fast pictures reach models, from standard-range, HDR and interlaced video, against bare PyAV.

    python benchmarks/decode.py [--seconds 4] [--rounds 3] [--json]

Makes the same moving pictures in 1080p three times: HEVC of 8 bits, HEVC of 10 bits in PQ, and
interlaced H.264. Each round reads every file, one after the other, by PyAV to rgb24 in full size
as a loop over `decode` does it, and by `ClipFrames` in full size and at 640 pixels, the size that
most operators ask for; medians count. The last line is the speed of HDR over that of standard
range at 640 pixels (at least 0.5 passes). In full size PyAV itself, which leaves the colours
wrong, is about half as fast with 10 bits as with 8.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

BAR = 0.5
SIZE, FPS, SIDE_PX = (1920, 1080), 30, 640
X265 = "log-level=none:bframes=0:frame-threads=1"
PQ_TAGS = "colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"
KINDS: dict[str, tuple[str, str, dict[str, str]]] = {
    "standard range": ("libx265", "yuv420p", {"x265-params": X265}),
    "HDR": ("libx265", "yuv420p10le", {"x265-params": f"{X265}:{PQ_TAGS}"}),
    "interlaced": ("libx264", "yuv420p", {"x264-params": "tff=1", "flags": "+ildct+ilme"}),
}


def write_video(path: Path, frames: int, codec: str, layout: str, options: dict[str, str]) -> None:
    """Coloured blocks with some grain, which move: worth decoding."""
    import av
    import numpy as np

    random = np.random.default_rng(0)
    blocks = random.integers(20, 180, (SIZE[1] // 40, SIZE[0] // 40, 3), np.uint8)
    picture = np.kron(blocks, np.ones((40, 40, 1), np.uint8))
    picture += random.integers(0, 12, picture.shape, np.uint8)
    with av.open(str(path), "w") as container:
        preset = {"preset": "ultrafast", "crf": "23", "g": "60"}
        stream: Any = container.add_stream(codec, rate=FPS, options=preset | options)
        stream.width, stream.height = SIZE
        stream.pix_fmt = layout
        for number in range(frames):
            moved = np.ascontiguousarray(np.roll(picture, 6 * number, axis=1))
            shown = av.VideoFrame.from_ndarray(moved, format="rgb24").reformat(format=layout)
            shown.pts, shown.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(shown))
        container.mux(stream.encode())


def bare(path: Path) -> int:
    import av

    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        return sum(1 for f in container.decode(video=0) if f.to_ndarray(format="rgb24").size)


def ours(path: Path, max_side_px: int | None) -> int:
    from ego_assets.media.decode import ClipFrames
    from ego_assets.media.frame_index import index_frames

    frames = ClipFrames(path, 0, len(index_frames(path)))
    return sum(1 for _ in frames.read(max_side_px=max_side_px))


SIDES: dict[str, Callable[[Path], int]] = {
    "PyAV": bare,
    "full size": lambda path: ours(path, None),
    f"{SIDE_PX} px": lambda path: ours(path, SIDE_PX),
}


def measure(videos: dict[str, Path], frames: int, rounds: int) -> dict[str, dict[str, float]]:
    """{kind of video: {side: frames a second}}, medians. Raises RuntimeError for a lost frame."""
    runs: dict[str, dict[str, list[float]]] = {k: {s: [] for s in SIDES} for k in videos}
    for _ in range(rounds):
        for kind, path in videos.items():
            for side, read in SIDES.items():
                began = time.perf_counter()
                if (found := read(path)) != frames:
                    raise RuntimeError(f"{kind}, {side}: {found} of {frames} frames")
                runs[kind][side].append(frames / (time.perf_counter() - began))
    return {
        kind: {side: statistics.median(speeds) for side, speeds in sides.items()}
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
        for kind, path in videos.items():
            write_video(path, frames, *KINDS[kind])
        speeds = measure(videos, frames, options.rounds)
    over_sdr = {s: speeds["HDR"][s] / speeds["standard range"][s] for s in SIDES}
    ratio = over_sdr[f"{SIDE_PX} px"]
    if options.json:
        print(json.dumps({"frames_per_s": speeds, "hdr_over_sdr": over_sdr, "ratio": ratio}))
    else:
        for kind, sides in speeds.items():
            of_bare = ", ".join(
                f"{side} {speed:.0f} ({speed / sides['PyAV']:.2f} of it)"
                for side, speed in sides.items()
                if side != "PyAV"
            )
            print(f"{kind:15} frames/s: PyAV {sides['PyAV']:.0f}, {of_bare}")
        print(", ".join(f"{s} {r:.2f}" for s, r in over_sdr.items()), "of standard range for HDR")
        print(f"HDR over standard range at {SIDE_PX} px: {ratio:.2f} (at least {BAR:g})")
    return 0 if ratio >= BAR else 1


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    sys.exit(main())
