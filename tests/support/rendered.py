"""Sample videos that are rendered once: by whichever test asks first, for all processes and runs.

A second of video costs four seconds of CPU. The cache is `.pytest_cache/d/samples/`, keyed by the
renderer's source and what it is asked for; every caller gets a copy of its own.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

import samples

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".pytest_cache" / "d" / "samples"


@cache
def _of_renderer() -> Path:
    """The folder of what this renderer makes. Removes what another one made."""
    digest = hashlib.sha256(repr((av.__version__, cv2.__version__, np.__version__)).encode())
    for source in sorted(Path(samples.__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    folder = CACHE / digest.hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    for other in CACHE.iterdir():
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    return folder


def small_sample(out_dir: Path, seed: int = 5) -> Path:
    """A second of small video: for tests of the whole graph. Hands and objects are found in that of
    seed 5."""
    return render_sample(out_dir, seed, duration_s=1.0, width=320, height=180)


def render_sample(out_dir: Path, seed: int, name: str | None = None, **options: Any) -> Path:
    """As `samples.render_sample`, from the cache."""
    key = json.dumps({"seed": seed, "name": name} | options, sort_keys=True)
    kept = _of_renderer() / hashlib.sha256(key.encode()).hexdigest()[:16]
    kept.parent.mkdir(parents=True, exist_ok=True)
    with kept.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.is_dir():
            unfinished = kept.with_suffix(".new")
            shutil.rmtree(unfinished, ignore_errors=True)
            samples.render_sample(unfinished, seed, name=name, **options)
            unfinished.rename(kept)
    shutil.copytree(kept, out_dir, dirs_exist_ok=True)
    return next(out_dir / path.name for path in kept.glob("*.mp4"))
