"""The tutorial trains on a lake as its README says, and leaves weights that can be read."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import torch

from tests.episodes.made_footage import MadeVideo
from tests.exports.numbered_lake import make

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "examples" / "train_a_policy" / "train.py"


def train(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_the_loss_falls_and_the_weights_are_saved(tmp_path: Path) -> None:
    videos = [MadeVideo(count=90, video_id=f"{n:016x}") for n in range(2)]
    lake = make(tmp_path, *videos).lake.location
    out = tmp_path / "policy.pt"
    done = train("--lake", lake, "--steps", "30", "--workers", "1", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "2 episodes, 6.0 s" in done.stdout
    losses = [float(n) for n in re.findall(r"loss ([\d.]+)", done.stdout)]
    assert len(losses) == 3 and losses[-1] < 0.8 * losses[0], done.stdout
    weights = torch.load(out, weights_only=True)
    assert weights["action_mean"].shape == (48,)
    assert all(torch.isfinite(w).all() for w in weights.values())


def test_a_lake_that_is_not_there_is_said(tmp_path: Path) -> None:
    done = train("--lake", str(tmp_path / "nothing"))
    assert done.returncode and "there is no lake at" in done.stderr
