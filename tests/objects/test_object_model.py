"""A camera that stands still gives objects no depth, and no time is spent on looking for it."""

from __future__ import annotations

import numpy as np
import pytest

from ego_assets.objects.baseline import model

FRAMES = list(range(60))


def seen_by(cameras: dict[int, np.ndarray]) -> model.Observations:
    """Forty points that lie still, as cameras (camera_from_world) see them."""
    points = np.random.default_rng(0).uniform([-0.3, -0.3, 1.0], [0.3, 0.3, 1.6], (40, 3))
    found = {}
    for frame, pose in cameras.items():
        local = points @ pose[:3, :3].T + pose[:3, 3]
        found[frame] = dict(enumerate(local[:, :2] / local[:, 2:]))
    return found


def test_a_still_camera_starts_no_object(monkeypatch: pytest.MonkeyPatch) -> None:
    cameras = {f: np.eye(4) for f in FRAMES}
    asked = []
    monkeypatch.setattr(model, "triangulate", lambda views: asked.append(views))
    assert model.static_start(seen_by(cameras), cameras, FRAMES, 1e-3) is None
    assert not asked


def test_a_camera_that_moves_starts_one() -> None:
    cameras = {}
    for frame in FRAMES:
        cameras[frame] = np.eye(4)
        cameras[frame][0, 3] = 0.01 * frame
    found = model.static_start(seen_by(cameras), cameras, FRAMES, 1e-3)
    assert found is not None
    assert len(found[1]) >= 10
