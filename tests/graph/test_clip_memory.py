"""What the segmenter keeps of a clip that is full of detail, and moves in every part."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
FRAMES = 60
KEPT_MIB = 90.0
"""20 MiB of pictures, and the same again for all masks and what else is kept of the frames; the
rest is what the decoder and OpenCV hold. With masks as pictures it was over 150."""

MEASURE = """
import sys
from pathlib import Path
from tests.support.sample_input import clip_input
from ego_assets.masks.settings import SegmentSettings
from ego_assets.masks.landmarks.segmenter import LandmarksSegmenter
from ego_assets.vision.threads import limit_threads
from ego_assets.operator import Intrinsics

def resident():
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) / 1024

limit_threads(1)
segmenter = LandmarksSegmenter(SegmentSettings())
lens = Intrinsics("PINHOLE", 400, 400, 240, 135)
warm = clip_input(Path(sys.argv[1]), lens, 0, 12)
segmenter.process(warm, None)
before = resident()
segmenter.process(clip_input(Path(sys.argv[1]), lens), None)
print(resident() - before)
"""


def detailed_video(path: Path) -> Path:
    """Skin-coloured cloths of all sizes that move about over a ground that moves as well."""
    rng = np.random.default_rng(5)
    ground = rng.integers(0, 255, (300, 520, 3)).astype(np.uint8)
    places = rng.uniform((40, 30), (440, 240), (24, 2))
    speeds = rng.uniform(-4, 4, (24, 2))
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 480, 270, "yuv420p"
        stream.options = {"preset": "ultrafast", "crf": "18"}
        for frame in range(FRAMES):
            shift = frame % 20
            picture = ground[shift : 270 + shift, shift : 480 + shift].copy()
            for number, (place, speed) in enumerate(zip(places, speeds, strict=True)):
                x, y = (place + speed * (frame % 40)).astype(int)
                color = (200 + number % 4 * 10, 150 - number, 120 - number)
                cv2.ellipse(
                    picture, (int(x), int(y)), (20 + number, 16), 9 * number, 0, 360, color, -1
                )
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        out.mux(stream.encode())
    return path


def test_masks_of_a_clip_take_no_more_than_its_pictures(tmp_path: Path, hand_nets: Path) -> None:
    video = detailed_video(tmp_path / "detail.mp4")
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, str(video)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    assert 5 < float(run.stdout) < KEPT_MIB, "pictures are kept, and little else"
