"""Pixels to rays and back, for every camera model of the contract."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ego_assets.objects.baseline.poses import BaselineObjectPoseEstimator
from ego_assets.objects.settings import ObjectPoseSettings
from ego_assets.operator import Intrinsics
from ego_assets.vision.cameras import (
    lens_of_cameras,
    normalised_points,
    project_points,
    scaled_intrinsics,
)
from samples import load_truth
from tests.support.rendered import render_sample
from tests.support.sample_input import clip_input, intrinsics_of, with_truth

LENSES = [
    Intrinsics("PINHOLE", 500.0, 510.0, 319.5, 179.5),
    Intrinsics("OPENCV", 500.0, 510.0, 319.5, 179.5, (-0.2, 0.05, 0.001, -0.002)),
    Intrinsics("OPENCV", 500.0, 510.0, 319.5, 179.5),
    Intrinsics("OPENCV_FISHEYE", 300.0, 300.0, 319.5, 179.5, (0.03, -0.01, 0.002, 0.0)),
]


@pytest.mark.parametrize("lens", LENSES)
def test_rays_project_to_the_pixels_that_they_came_from(lens: Intrinsics) -> None:
    x, y = np.meshgrid(np.linspace(20, 620, 9), np.linspace(20, 340, 7))
    pixels = np.stack([x.ravel(), y.ravel()], axis=1)
    rays = normalised_points(lens, pixels)
    points = np.column_stack([rays, np.ones(len(rays))]) * 3.0
    np.testing.assert_allclose(project_points(lens, points), pixels, atol=0.02)


@pytest.mark.parametrize("lens", LENSES)
def test_the_principal_point_looks_ahead(lens: Intrinsics) -> None:
    np.testing.assert_allclose(
        normalised_points(lens, np.array([[lens.cx, lens.cy]])), 0.0, atol=1e-9
    )


def test_fisheye_is_the_equidistant_model() -> None:
    lens = Intrinsics("OPENCV_FISHEYE", 300.0, 300.0, 0.0, 0.0, (0.0, 0.0, 0.0, 0.0))
    point = np.array([[np.tan(0.7), 0.0, 1.0]])
    np.testing.assert_allclose(project_points(lens, point), [[210.0, 0.0]], atol=1e-6)


@pytest.mark.parametrize("lens", LENSES)
def test_no_points_give_no_points(lens: Intrinsics) -> None:
    assert normalised_points(lens, np.empty((0, 2))).shape == (0, 2)
    assert project_points(lens, np.empty((0, 3))).shape == (0, 2)


@pytest.mark.parametrize("lens", LENSES)
def test_a_shrunken_picture_sees_the_same_rays(lens: Intrinsics) -> None:
    small = scaled_intrinsics(lens, 0.5, 0.5)
    # The centre of pixel (100, 60) lies half a pixel in, at whatever size.
    full = np.array([[100.0, 60.0]])
    shrunk = (full + 0.5) * 0.5 - 0.5
    np.testing.assert_allclose(
        normalised_points(small, shrunk), normalised_points(lens, full), atol=1e-6
    )
    np.testing.assert_allclose(small.matrix(), lens.matrix(0.5))


def test_what_cameras_place_goes_by_the_lens_that_they_were_found_through(tmp_path: Path) -> None:
    """Object poses of a clip that calibrated itself are those of one whose lens is known."""
    video = render_sample(tmp_path, seed=4, duration_s=3.0)
    truth = load_truth(video)
    known = with_truth(clip_input(video, intrinsics_of(truth), 0, 45), truth)
    guess = dataclasses.replace(known.intrinsics, fx=1.3 * truth.fx, fy=1.3 * truth.fy)
    scene = known.tables["scene_reconstruction"]
    numbers = {f"{n}_px": getattr(known.intrinsics, n) for n in ("fx", "fy", "cx", "cy")}
    said = numbers | {"camera_model": "PINHOLE", "distortion": []}
    poses = []
    for source, lens in (("self_calibrated", guess), ("calibration_file", known.intrinsics)):
        rows = [row | said | {"intrinsics_source": source} for row in scene.to_pylist()]
        tables = {**known.tables, "scene_reconstruction": pa.Table.from_pylist(rows)}
        clip = dataclasses.replace(known, intrinsics=lens, tables=tables)
        assert lens_of_cameras(clip).fx == truth.fx
        estimator = BaselineObjectPoseEstimator(ObjectPoseSettings())
        poses.append(estimator.process(clip, None).tables["object_poses"])
    found, wanted = ([p["camera_from_object_m"] for p in of if p["is_valid"]] for of in poses)
    assert len(wanted) > 5
    np.testing.assert_allclose(found, wanted, atol=1e-6)
