"""The benchmark of the loader makes its data, and each side of it reads all frames."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from benchmarks.loader import SIDES, make_data


def test_each_side_reads_all_frames(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    frames = make_data(tmp_path, Namespace(seconds=2.0, videos=2, lerobot_python=""))
    assert frames == 120
    for side in ("bare decoding", "EpisodeStream"):
        assert sum(SIDES[side](tmp_path, 0)) == frames, side
