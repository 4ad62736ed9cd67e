"""Maps are solved on a GPU where pycolmap, the lease and the size of the map allow it."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pycolmap
import pytest

from ego_assets.operator import Intrinsics
from ego_assets.scene.colmap import mapping
from ego_assets.scene.colmap import reconstructor as reconstruct
from ego_assets.scene.colmap.mapping import build_map, solver_device
from ego_assets.scene.colmap.point_tracks import TrackTable
from ego_assets.scene.colmap.witnesses import Witnesses
from ego_assets.scene.settings import ReconstructSettings

LENS = Intrinsics("PINHOLE", 300.0, 300.0, 159.5, 119.5)
VIEWS = 6


@pytest.fixture(scope="module")
def tracks() -> TrackTable:
    """120 points before a camera that goes 0.5 m to the right; each seen in each picture."""
    rng = np.random.default_rng(0)
    points = rng.uniform((-1, -0.7, 2.0), (1, 0.7, 4.0), (120, 3))
    seen = [points - (0.1 * view, 0, 0) for view in range(VIEWS)]
    xy = np.concatenate([300 * p[:, :2] / p[:, 2:] + (159.5, 119.5) for p in seen])
    return TrackTable(
        frame_index=np.arange(VIEWS),
        pts_s=np.arange(VIEWS) / 10,
        starts=np.arange(VIEWS + 1) * len(points),
        track=np.tile(np.arange(len(points)), VIEWS),
        xy=xy.astype(np.float32),
        colours=np.zeros((len(points), 3), np.uint8),
        size=(320, 240),
    )


@pytest.mark.parametrize(
    ("has_cuda", "visible", "pictures", "wanted"),
    [
        (True, "2", 50, "gpu"),
        (True, "GPU-1a2b", 80, "gpu"),
        (True, "0", 49, "cpu"),  # COLMAP would not use it
        (True, "", 80, "cpu"),  # the step has no GPU, or goes on without one
        (True, None, 80, "cpu"),  # nobody leased one
        (True, "-1", 80, "cpu"),
        (False, "0", 80, "cpu"),
    ],
)
def test_a_gpu_takes_a_build_a_lease_and_a_large_map(
    monkeypatch: pytest.MonkeyPatch, has_cuda: bool, visible: str | None, pictures: int, wanted: str
) -> None:
    monkeypatch.setattr(pycolmap, "has_cuda", has_cuda)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert solver_device(pycolmap, pictures) == wanted


@pytest.mark.parametrize("mapper", ["incremental", "global"])
@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_what_was_decided_is_what_the_mapper_is_told(
    tracks: TrackTable, monkeypatch: pytest.MonkeyPatch, mapper: Any, device: str
) -> None:
    """The real mapper runs either way: without CUDA in it, it says so and takes the CPU."""
    told: list[Any] = []

    def spy(name: str) -> None:
        plain = getattr(pycolmap, name)

        def call(database: Any, images: Any, folder: Any, options: Any) -> Any:
            told.append(options)
            return plain(database, images, folder, options)

        monkeypatch.setattr(pycolmap, name, call)

    spy("incremental_mapping")
    spy("global_mapping")
    monkeypatch.setattr(pycolmap, "has_cuda", device == "gpu")
    monkeypatch.setattr(mapping, "_GPU_PICTURES", VIEWS)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    settings = ReconstructSettings(mapper=mapper)
    found = build_map(tracks, list(range(VIEWS)), LENS, False, settings)
    assert found.device == device
    assert len(found.points) > 60
    steps = [np.linalg.norm(found.poses[i + 1][:3, 3] - found.poses[i][:3, 3]) for i in range(5)]
    assert max(steps) < 1.05 * min(steps), "even steps, as it was"
    if mapper == "incremental":
        asked = [(o.ba_use_gpu, o.ba_gpu_index) for o in told]
    else:
        parts = (told[0].mapper.global_positioning, told[0].mapper.bundle_adjustment.ceres)
        asked = [(o.use_gpu, o.gpu_index) for o in parts]
    assert set(asked) == {(device == "gpu", "0")}, "the first of those that are visible"


def test_a_clip_says_what_it_was_mapped_on(
    tracks: TrackTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = reconstruct.build_map
    monkeypatch.setattr(
        reconstruct, "build_map", lambda *a: dataclasses.replace(plain(*a), device="gpu")
    )
    monkeypatch.setattr(reconstruct, "checked_keyframes", lambda *_: list(range(VIEWS)))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-7,3")
    operator = reconstruct.PycolmapReconstructor(ReconstructSettings())
    notes: dict[str, Any] = {}
    clip: Any = SimpleNamespace(clip_id="c")
    operator._solve(clip, tracks, Witnesses(), LENS, LENS, None, notes)
    assert notes["mapped on"] == "gpu"
    assert json.loads(notes["accelerator"]) == {"gpu": "GPU-7", "used_by": "pycolmap"}
