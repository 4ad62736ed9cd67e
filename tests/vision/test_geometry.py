"""Quaternions, poses and similarity fits."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ego_assets.vision.geometry import (
    invert_pose,
    matrix_from_quaternion,
    mean_rotation,
    pose_matrix,
    quaternion_from_matrix,
    rotation_angle_deg,
    transform_points,
    umeyama,
)


def rotations(count: int, seed: int = 0) -> np.ndarray:
    return Rotation.random(count, rng=np.random.default_rng(seed)).as_matrix()


def test_quaternions_are_those_of_scipy_with_w_not_negative() -> None:
    turns = rotations(200)
    found = quaternion_from_matrix(turns)
    assert (found[:, 3] >= 0).all()
    np.testing.assert_allclose(found, Rotation.from_matrix(turns).as_quat(canonical=True))
    np.testing.assert_allclose(matrix_from_quaternion(found), turns, atol=1e-12)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_half_turns_have_one_spelling(axis: int) -> None:
    turn = -np.eye(3)
    turn[axis, axis] = 1.0
    found = quaternion_from_matrix(turn)
    np.testing.assert_allclose(found, np.eye(4)[axis], atol=1e-12)


def test_shapes_follow_the_leading_axes() -> None:
    turns = rotations(6).reshape(2, 3, 3, 3)
    assert quaternion_from_matrix(turns).shape == (2, 3, 4)
    assert quaternion_from_matrix(turns[0, 0]).shape == (4,)
    assert matrix_from_quaternion(np.array([0, 0, 0, 2.0])).shape == (3, 3)


def test_a_quaternion_of_zero_length_is_refused() -> None:
    with pytest.raises(ValueError, match="zero length"):
        matrix_from_quaternion(np.zeros((3, 4)))


def test_an_inverted_pose_undoes_the_pose() -> None:
    poses = pose_matrix(rotations(5), np.arange(15.0).reshape(5, 3))
    np.testing.assert_allclose(invert_pose(poses) @ poses, np.tile(np.eye(4), (5, 1, 1)), atol=1e-9)
    points = np.random.default_rng(1).normal(size=(7, 3))
    there = transform_points(poses[2], points)
    np.testing.assert_allclose(there[3], (poses[2] @ [*points[3], 1])[:3])
    np.testing.assert_allclose(transform_points(invert_pose(poses[2]), there), points, atol=1e-9)


@pytest.mark.parametrize("angle_deg", [0.0, 1e-6, 0.01, 30.0, 179.0, 180.0])
def test_angles_are_exact_from_tiny_to_a_half_turn(angle_deg: float) -> None:
    axis = np.array([0.6, 0.0, 0.8])
    turned = Rotation.from_rotvec(np.radians(angle_deg) * axis).as_matrix()
    first = rotations(1)[0]
    assert rotation_angle_deg(first, first @ turned) == pytest.approx(angle_deg, abs=1e-7, rel=1e-6)


@pytest.mark.parametrize("with_scale", [True, False])
def test_umeyama_finds_the_similarity(with_scale: bool) -> None:
    source = np.random.default_rng(2).normal(size=(30, 3))
    turn, shift, factor = rotations(1, 3)[0], np.array([1.0, -2.0, 0.5]), 2.5 if with_scale else 1.0
    target = factor * source @ turn.T + shift
    scale, rotation, translation = umeyama(source, target, with_scale)
    assert scale == pytest.approx(factor)
    np.testing.assert_allclose(rotation, turn, atol=1e-9)
    np.testing.assert_allclose(translation, shift, atol=1e-9)


def test_umeyama_never_mirrors() -> None:
    source = np.random.default_rng(4).normal(size=(30, 3))
    assert np.linalg.det(umeyama(source, source * [1, 1, -1])[1]) == pytest.approx(1.0)


def test_umeyama_refuses_what_it_cannot_fit() -> None:
    with pytest.raises(ValueError, match="shapes"):
        umeyama(np.zeros((3, 3)), np.zeros((4, 3)))
    with pytest.raises(ValueError, match="not finite"):
        umeyama(np.full((3, 3), np.nan), np.zeros((3, 3)))


def test_umeyama_of_a_single_point_keeps_the_scale() -> None:
    scale, _, translation = umeyama(np.zeros((1, 3)), np.ones((1, 3)))
    assert scale == 1.0
    np.testing.assert_allclose(translation, 1.0)


def test_the_mean_rotation_lies_between() -> None:
    base = rotations(1, 5)[0]
    spread = Rotation.from_rotvec([[0.1, 0, 0], [-0.1, 0, 0], [0, 0.2, 0], [0, -0.2, 0]])
    assert rotation_angle_deg(mean_rotation(base @ spread.as_matrix()), base) < 1e-6
