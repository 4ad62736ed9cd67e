"""The comparison of retargeting solvers: it leaves nothing behind."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest

from benchmarks.retarget import stock, targets_of
from ego_assets.robots.robot_hands import find_robot, known_robots
from ego_assets.robots.solver import HandSolver


def test_dex_retargeting_as_it_comes_leaves_no_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    spec = find_robot(known_robots(None)[0], None)
    urdf, _ = spec.urdf("right")
    model = HandSolver(spec, urdf, "vector")
    solve = stock(spec, urdf, "vector", model)
    assert np.isfinite(solve(targets_of(model, 1, 0)[0])).all()
    assert not list(tmp_path.iterdir())
