"""How sure a self-calibrated focal length is: the jackknife over points against true lenses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from ego_assets.scene.colmap.reconstructor import PycolmapReconstructor
from ego_assets.scene.colmap.take_alignment import Anchors
from ego_assets.scene.settings import ReconstructSettings
from tests.support.plane_scene import LENS, Scene, clip_of, head_motion, room

GUESS = dataclasses.replace(LENS, fx=345.0, fy=345.0, source="assumed_fov")


def way(seed: int) -> Callable[[int], np.ndarray]:
    return lambda frame: head_motion(frame, seed=seed)


@cache
def found(seed: int, noise: float = 2.0, guess: Any = GUESS) -> tuple[dict[str, Any], Any]:
    scene = Scene(room(seed), way(seed), noise=noise)
    operator = PycolmapReconstructor(ReconstructSettings())
    output = operator.process(clip_of(scene, intrinsics=guess), None)
    return output.tables["scene_reconstruction"][0], output.carried


def test_true_focal_lengths_lie_within_a_few_deviations() -> None:
    rows = [found(seed)[0] for seed in (4, 6)]
    assert {row["intrinsics_source"] for row in rows} == {"self_calibrated"}
    off = [abs(row["fx_px"] - LENS.fx) / row["focal_std_px"] for row in rows]
    assert max(off) < 3
    # Sure to some per cent, and not more than a map of so few pictures can be.
    assert all(0.019 * row["fx_px"] < row["focal_std_px"] < 0.05 * row["fx_px"] for row in rows)


def test_noise_makes_it_less_sure() -> None:
    assert found(4, noise=14.0)[0]["focal_std_px"] > 1.1 * found(4)[0]["focal_std_px"]


def test_a_known_lens_has_none_and_the_next_clip_of_a_take_has_that_of_the_first() -> None:
    assert found(4, guess=LENS)[0]["focal_std_px"] is None
    row, carried = found(4)
    anchors = Anchors.from_carried(carried)
    assert anchors is not None
    assert anchors.intrinsics.focal_std_px == row["focal_std_px"]
