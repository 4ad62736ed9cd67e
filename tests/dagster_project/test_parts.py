"""The parts of `ego up` end with it, and it does not wait for what has ended."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from resources.processes.with_parent import GRACE_S

ROOT = Path(__file__).resolve().parents[2]
INIT = "import ctypes; assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0\n"
"""Whoever says so gets the orphans of its descendants, as the first process of a container does."""
STOP = """
import time
from dagster_project.web.parts import Parts
with Parts() as parts:
    parts.start("part", "leaves")
    while parts.status("part") is None:
        time.sleep(0.05)
    began = time.monotonic()
print(time.monotonic() - began)
"""
LIKE_INIT = (
    "import subprocess, sys\nsubprocess.run([sys.executable, '-c', sys.argv[1]], check=True)"
)


@pytest.mark.parametrize("init", ["ours", "another that reaps nothing"])
def test_it_does_not_wait_for_orphans_that_nobody_reaps(tmp_path: Path, init: str) -> None:
    (tmp_path / "leaves.py").write_text("import subprocess\nsubprocess.Popen(['sleep', '600'])\n")
    code = [INIT + STOP] if init == "ours" else [INIT + LIKE_INIT, STOP]
    told = subprocess.run(
        [sys.executable, "-c", *code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert float(told.stdout) < GRACE_S / 2
