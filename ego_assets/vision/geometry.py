"""Rigid geometry that several operators share: quaternions, poses, similarity fits.

Here: pure numpy on small arrays. Not here: cameras and projection (`reconstruct`), images, I/O.
Quaternions are unit, `xyzw`, with w >= 0 so that one rotation has one spelling.
"""

from __future__ import annotations

import numpy as np


def quaternion_from_matrix(rotation: np.ndarray) -> np.ndarray:
    """(..., 3, 3) rotation matrices to (..., 4) unit quaternions xyzw with w >= 0.

    Takes the largest eigenvector of the symmetric matrix of Bar-Itzhack (2000), which also
    gives the nearest quaternion when `rotation` is slightly off orthogonal.
    """
    m = np.asarray(rotation, dtype=np.float64)
    k = np.empty((*m.shape[:-2], 4, 4))
    xx, xy, xz = m[..., 0, 0], m[..., 0, 1], m[..., 0, 2]
    yx, yy, yz = m[..., 1, 0], m[..., 1, 1], m[..., 1, 2]
    zx, zy, zz = m[..., 2, 0], m[..., 2, 1], m[..., 2, 2]
    k[..., 0, 0] = xx - yy - zz
    k[..., 1, 1] = yy - xx - zz
    k[..., 2, 2] = zz - xx - yy
    k[..., 3, 3] = xx + yy + zz
    k[..., 0, 1] = k[..., 1, 0] = yx + xy
    k[..., 0, 2] = k[..., 2, 0] = zx + xz
    k[..., 1, 2] = k[..., 2, 1] = zy + yz
    k[..., 0, 3] = k[..., 3, 0] = zy - yz
    k[..., 1, 3] = k[..., 3, 1] = xz - zx
    k[..., 2, 3] = k[..., 3, 2] = yx - xy
    q = np.linalg.eigh(k)[1][..., :, 3]
    # Half turns have w = 0: the first part that is not zero decides the sign.
    weight = np.where(np.abs(q[..., [3, 0, 1, 2]]) > 1e-12, q[..., [3, 0, 1, 2]], 0.0)
    first = np.argmax(weight != 0.0, axis=-1)
    sign = np.sign(np.take_along_axis(weight, first[..., None], axis=-1))
    return q * np.where(sign == 0.0, 1.0, sign)


def matrix_from_quaternion(xyzw: np.ndarray) -> np.ndarray:
    """(..., 4) quaternions xyzw (normalised here) to (..., 3, 3) rotation matrices.

    Raises ValueError for a quaternion of zero length.
    """
    q = np.asarray(xyzw, dtype=np.float64)
    length = np.linalg.norm(q, axis=-1, keepdims=True)
    if np.any(length < 1e-12):
        raise ValueError("matrix_from_quaternion: quaternion of zero length; drop invalid rows")
    x, y, z, w = np.moveaxis(q / length, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def pose_matrix(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """(..., 3, 3) and (..., 3) to (..., 4, 4): `a_from_b` maps points of b into a."""
    rotation = np.asarray(rotation, dtype=np.float64)
    pose = np.zeros((*rotation.shape[:-2], 4, 4))
    pose[..., :3, :3] = rotation
    pose[..., :3, 3] = translation
    pose[..., 3, 3] = 1.0
    return pose


def invert_pose(pose: np.ndarray) -> np.ndarray:
    """Inverse of (..., 4, 4) rigid poses: `b_from_a` of `a_from_b`."""
    pose = np.asarray(pose, dtype=np.float64)
    turned = np.swapaxes(pose[..., :3, :3], -1, -2)
    return pose_matrix(turned, -np.einsum("...ij,...j->...i", turned, pose[..., :3, 3]))


def transform_points(pose: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (..., N, 3) of frame b into frame a by `a_from_b` (..., 4, 4)."""
    turned = np.asarray(points) @ np.swapaxes(pose[..., :3, :3], -1, -2)
    moved: np.ndarray = turned + pose[..., None, :3, 3]
    return moved


def rotation_angle_deg(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Angle in degrees between rotation matrices (..., 3, 3); shape (...)."""
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    # The chord is exact for small angles, where the arc cosine of the trace is not.
    chord = np.linalg.norm(first - second, axis=(-2, -1)) / (2.0 * np.sqrt(2.0))
    angles: np.ndarray = np.degrees(2.0 * np.arcsin(np.clip(chord, 0.0, 1.0)))
    return angles


def umeyama(
    source: np.ndarray, target: np.ndarray, with_scale: bool = True
) -> tuple[float, np.ndarray, np.ndarray]:
    """Least-squares similarity: target ≈ s R source + t, for (N, 3) point sets.

    Umeyama, "Least-squares estimation of transformation parameters between two point
    patterns", 1991. Collinear points leave the turn about their line open: the caller judges.
    Raises ValueError for fewer than one point, unequal shapes or values that are not finite.
    """
    source, target = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if source.shape != target.shape or source.ndim != 2 or not len(source):
        raise ValueError(f"umeyama: shapes {source.shape} and {target.shape}; both must be (N, 3)")
    if not (np.isfinite(source).all() and np.isfinite(target).all()):
        raise ValueError("umeyama: points that are not finite; drop them first")
    centre_a, centre_b = source.mean(axis=0), target.mean(axis=0)
    a, b = source - centre_a, target - centre_b
    u, singular, vt = np.linalg.svd(b.T @ a / len(a))
    sign = np.ones(3)
    if np.linalg.det(u) * np.linalg.det(vt) < 0:
        sign[2] = -1.0
    rotation = u @ np.diag(sign) @ vt
    variance = float(np.mean(np.sum(a * a, axis=1)))
    scale = float(singular @ sign) / variance if with_scale and variance > 1e-18 else 1.0
    return scale, rotation, centre_b - scale * rotation @ centre_a


def mean_rotation(rotations: np.ndarray) -> np.ndarray:
    """Chordal mean of (N, 3, 3) rotations: the rotation nearest to their sum."""
    u, _, vt = np.linalg.svd(np.sum(np.asarray(rotations, dtype=np.float64), axis=0))
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt)) or 1.0])
    rotation: np.ndarray = (u * sign) @ vt
    return rotation
