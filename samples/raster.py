"""A small software renderer: textured planes and shaded capsules with a depth buffer.

Inverse depth is affine in the picture for a plane, and its texture coordinates are a homography, so
a plane costs one warp. Capsules are met by rays in their bounding boxes.
"""

from __future__ import annotations

import cv2
import numpy as np

from samples.scene import Plane

TAPER_M = 0.0025
LIGHT = np.array([-0.35, -0.85, -0.4]) / np.linalg.norm([-0.35, -0.85, -0.4])


class Canvas:
    """Picture, inverse depth and identity of every pixel, for one camera."""

    def __init__(self, matrix: np.ndarray, width: int, height: int) -> None:
        self.matrix = matrix
        self.inverse = np.linalg.inv(matrix)
        self.width, self.height = width, height
        self.image = np.zeros((height, width, 3), np.uint8)
        self.near = np.zeros((height, width), np.float32)
        self.ids = np.zeros((height, width), np.uint8)
        columns, rows = np.meshgrid(np.arange(width), np.arange(height))
        self.columns, self.rows = columns.astype(np.float32), rows.astype(np.float32)
        x = (self.columns - matrix[0, 2]) / matrix[0, 0]
        y = (self.rows - matrix[1, 2]) / matrix[1, 1]
        rays = np.stack([x, y, np.ones_like(x)], axis=-1)
        self.rays = (rays / np.linalg.norm(rays, axis=-1, keepdims=True)).astype(np.float32)

    def clear(self) -> None:
        self.image[:] = 30
        self.near[:] = 1e-3
        self.ids[:] = 0

    def draw_plane(self, plane: Plane, camera_from_world: np.ndarray, identity: int) -> None:
        rotation, translation = camera_from_world[:3, :3], camera_from_world[:3, 3]
        origin = rotation @ plane.origin + translation
        u_axis, v_axis = rotation @ plane.u_axis, rotation @ plane.v_axis
        box = self._bounds(origin, u_axis, v_axis)
        if box is None:
            return
        left, top, right, bottom = box
        height, width = plane.image.shape[:2]
        # pixel ~ K (origin + u u_axis + v v_axis); u, v in texels
        texel = np.column_stack([u_axis / width, v_axis / height, origin])
        to_picture = self.matrix @ texel
        if abs(np.linalg.det(to_picture)) < 1e-12:
            return
        shift = np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1.0]])
        size = (right - left, bottom - top)
        normal = np.cross(u_axis, v_axis)
        inverse_depth = (normal @ self.inverse) / (normal @ origin)
        view = np.s_[top:bottom, left:right]
        near = (
            inverse_depth[0] * self.columns[view]
            + inverse_depth[1] * self.rows[view]
            + np.float32(inverse_depth[2])
        ).astype(np.float32)
        visible = near > self.near[view]
        if not visible.any():
            return
        matrix = shift @ to_picture
        warped = cv2.warpPerspective(
            plane.image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        visible &= self._inside(matrix, size, width, height)
        cv2.copyTo(warped, visible.view(np.uint8), self.image[view])
        np.copyto(self.near[view], near, where=visible)
        self.ids[view][visible] = identity

    def _inside(
        self, matrix: np.ndarray, size: tuple[int, int], width: int, height: int
    ) -> np.ndarray:
        """Pixels whose texel lies on the plane's rectangle."""
        back = np.linalg.inv(matrix).astype(np.float32)
        x, y = self.columns[: size[1], : size[0]], self.rows[: size[1], : size[0]]
        w = back[2, 0] * x + back[2, 1] * y + back[2, 2]
        w = np.where(w == 0, np.float32(1e-12), w)
        u = (back[0, 0] * x + back[0, 1] * y + back[0, 2]) / w
        v = (back[1, 0] * x + back[1, 1] * y + back[1, 2]) / w
        inside: np.ndarray = (u >= 0) & (u < width) & (v >= 0) & (v < height)
        return inside

    def _bounds(
        self, origin: np.ndarray, u_axis: np.ndarray, v_axis: np.ndarray
    ) -> tuple[int, int, int, int] | None:
        """Pixel box of the rectangle, or the whole picture where it reaches behind the camera."""
        corners = np.array([origin, origin + u_axis, origin + v_axis, origin + u_axis + v_axis])
        if (corners[:, 2] < 0.02).all():
            return None
        if (corners[:, 2] < 0.02).any():
            return 0, 0, self.width, self.height
        pixels = corners @ self.matrix.T
        flat = pixels[:, :2] / pixels[:, 2:]
        left, top = np.maximum(np.floor(flat.min(axis=0)), 0).astype(int)
        right, bottom = np.minimum(np.ceil(flat.max(axis=0)) + 1, [self.width, self.height]).astype(
            int
        )
        return (left, top, right, bottom) if right > left and bottom > top else None

    def draw_capsule(
        self,
        start: np.ndarray,
        end: np.ndarray,
        radii: tuple[float, float],
        color: np.ndarray,
        identity: int,
        light: np.ndarray,
    ) -> None:
        """A round cone between two points in camera coordinates, as two capsules if it tapers."""
        if abs(radii[0] - radii[1]) < TAPER_M:
            self._capsule(start, end, sum(radii) / 2, color, identity, light)
            return
        middle = (start + end) / 2
        mean = sum(radii) / 2
        self._capsule(start, middle, (radii[0] + mean) / 2, color, identity, light)
        self._capsule(middle, end, (radii[1] + mean) / 2, color, identity, light)

    def _capsule(
        self,
        start: np.ndarray,
        end: np.ndarray,
        radius: float,
        color: np.ndarray,
        identity: int,
        light: np.ndarray,
    ) -> None:
        if min(start[2], end[2]) < 0.05 + radius:
            return
        ends = np.array([start, end])
        pixels = ends @ self.matrix.T
        flat = pixels[:, :2] / pixels[:, 2:]
        reach = 1.3 * radius * self.matrix[0, 0] / (ends[:, 2] - radius)
        left, top = np.floor((flat - reach[:, None]).min(axis=0)).astype(int)
        right, bottom = np.ceil((flat + reach[:, None]).max(axis=0)).astype(int) + 1
        left, top = max(left, 0), max(top, 0)
        right, bottom = min(right, self.width), min(bottom, self.height)
        if right <= left or bottom <= top:
            return
        view = np.s_[top:bottom, left:right]
        rays = self.rays[view]
        hit, depth, normal = _meet_capsule(rays, start, end, radius)
        near = np.where(hit, 1.0 / np.maximum(depth * rays[..., 2], 1e-6), 0).astype(np.float32)
        visible = hit & (near > self.near[view])
        if not visible.any():
            return
        facing = np.clip(normal[visible] @ light, 0, 1)
        rim = np.clip(-(normal[visible] * rays[visible]).sum(axis=1), 0, 1)
        shade = 0.48 + 0.42 * facing + 0.18 * rim
        self.image[view][visible] = np.clip(color * shade[:, None], 0, 255).astype(np.uint8)
        self.near[view][visible] = near[visible]
        self.ids[view][visible] = identity


def _meet_capsule(
    rays: np.ndarray, start: np.ndarray, end: np.ndarray, radius: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(hit, distance, normal) of rays from the origin and a capsule.

    Source: the closed-form ray-capsule intersection published by I. Quilez.
    """
    axis = end - start
    to_start = -start
    axis_axis = float(axis @ axis)
    axis_ray = rays @ axis
    axis_to = float(axis @ to_start)
    ray_to = rays @ to_start
    to_to = float(to_start @ to_start)
    a = axis_axis - axis_ray**2
    b = axis_axis * ray_to - axis_to * axis_ray
    c = axis_axis * to_to - axis_to**2 - radius**2 * axis_axis
    h = b * b - a * c
    safe = np.maximum(a, 1e-12)
    body = (-b - np.sqrt(np.maximum(h, 0))) / safe
    along = axis_to + body * axis_ray
    on_body = (h >= 0) & (along > 0) & (along < axis_axis)
    at_start = along <= 0
    centre_ray = np.where(at_start, ray_to, rays @ (-end))
    centre_to = np.where(at_start, to_to, float(end @ end))
    d = centre_ray**2 - (centre_to - radius**2)
    cap = -centre_ray - np.sqrt(np.maximum(d, 0))
    hit = on_body | (d > 0)
    distance = np.where(on_body, body, cap)
    points = rays * distance[..., None]
    share = np.clip(((points - start) @ axis) / axis_axis, 0, 1)
    normal = (points - (start + share[..., None] * axis)) / radius
    return hit & (distance > 0), distance, normal
