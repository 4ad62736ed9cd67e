"""A synthetic room of textured rectangles with exact cameras, for tests of the reconstruction.

Here: a ray caster that is a `FrameSource`, and the clip rows around it. Not here: tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from ego_assets.operator import ClipInput, Frame, Intrinsics
from ego_assets.vision.cameras import normalised_points, scaled_intrinsics
from ego_assets.vision.geometry import pose_matrix
from ego_assets.vision.rle import encode_mask

SIZE = (384, 216)
FPS = 30.0
LENS = Intrinsics("PINHOLE", 300.0, 300.0, 191.5, 107.5, source="calibration_file")


@dataclass(frozen=True)
class Patch:
    """A rectangle: corner + a u + b v for a, b in [0, 1]; `texture` (h, w, 3) uint8.

    In the world, or, when `follows`, in the frame that `follows(frame)` (4, 4) places in it.
    """

    corner: np.ndarray
    u: np.ndarray
    v: np.ndarray
    texture: np.ndarray
    follows: Callable[[int], np.ndarray] | None = None


def texture(seed: int, contrast: float = 1.0, cells: int = 24) -> np.ndarray:
    """(256, 256, 3) uint8: random cells over blurred noise."""
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(
        rng.uniform(60, 200, (cells, cells, 3)).astype(np.float32),
        (256, 256),
        interpolation=cv2.INTER_NEAREST,
    )
    fine = cv2.GaussianBlur(rng.normal(0, 60, (256, 256, 3)).astype(np.float32), (0, 0), 1.5)
    return np.clip(128 + contrast * (coarse + fine - 128), 0, 255).astype(np.uint8)


def room(seed: int = 0, contrast: float = 1.0) -> list[Patch]:
    """Floor, walls and boxes around z = 1..4 m, y down."""
    rng = np.random.default_rng(seed)

    def patch(n: int, corner: Sequence[float], u: Sequence[float], v: Sequence[float]) -> Patch:
        paint = texture(1000 * seed + n, contrast, cells=12 + 4 * (n % 4))
        return Patch(np.array(corner, float), np.array(u, float), np.array(v, float), paint)

    patches = [
        patch(0, (-4, 1, -1), (8, 0, 0), (0, 0, 6)),
        patch(1, (-4, -3, 4), (8, 0, 0), (0, 5, 0)),
        patch(2, (-3, -3, -1), (0, 0, 6), (0, 5, 0)),
        patch(3, (3, -3, -1), (0, 0, 6), (0, 5, 0)),
    ]
    for n in range(5):
        x, z, w = rng.uniform(-1.5, 1.2), rng.uniform(1.4, 3.0), rng.uniform(0.3, 0.7)
        top = rng.uniform(0.1, 0.6)
        patches.append(patch(10 + 3 * n, (x, top, z), (w, 0, 0), (0, 1 - top, 0)))
        patches.append(patch(11 + 3 * n, (x, top, z), (w, 0, 0), (0, 0, w)))
        patches.append(patch(12 + 3 * n, (x, top, z), (0, 0, w), (0, 1 - top, 0)))
    return patches


def head_motion(frame: int, sway_m: float = 0.25, seed: int = 0) -> np.ndarray:
    """world_from_camera (4, 4): a head that looks around and sways by about `sway_m`."""
    phase = np.random.default_rng(seed).uniform(0, 2 * np.pi, 6)
    t = frame / FPS
    rates = np.array([0.31, 0.23, 0.17, 0.29, 0.37, 0.13]) * 2 * np.pi
    waves = np.sin(rates * t + phase)
    turn = np.radians([5.0, 9.0, 3.0]) * waves[3:]
    turn[0] -= np.radians(12.0)
    rotation = cv2.Rodrigues(turn)[0]
    return pose_matrix(rotation, waves[:3] * (sway_m, 0.4 * sway_m, 0.7 * sway_m))


@dataclass
class Scene:
    """A FrameSource of rendered pictures; frames in `missing` do not decode. `stamp` (h, w, 3) is a
    mark in the lower left corner of each.

    Scenes that differ only in their frames may share a `cache` of rendered pictures.
    """

    patches: list[Patch]
    camera: Callable[[int], np.ndarray]
    start_frame: int = 0
    end_frame: int = 60
    intrinsics: Intrinsics = LENS
    noise: float = 2.0
    width: int = SIZE[0]
    height: int = SIZE[1]
    missing: frozenset[int] = frozenset()
    stamp: np.ndarray | None = None
    cache: dict[Any, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    _ray_cache: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)

    def read(
        self, *, max_side_px: int | None = None, indices: Sequence[int] | None = None
    ) -> Iterator[Frame]:
        scale = min(1.0, (max_side_px or 10**9) / max(self.width, self.height))
        size = (max(1, round(self.width * scale)), max(1, round(self.height * scale)))
        for index in range(self.start_frame, self.end_frame):
            if index in self.missing or (indices is not None and index not in indices):
                continue
            yield Frame(
                index, self.time_of(index), self.render(index, size)[0], size[0] / self.width
            )

    def time_of(self, frame_index: int) -> float:
        return frame_index / FPS

    def render(self, frame: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """The picture (H, W, 3) uint8 and the patch that each pixel shows (H, W) int, -1 none."""
        if (frame, size) not in self.cache:
            self.cache[frame, size] = self._render(frame, size)
        return self.cache[frame, size]

    def _render(self, frame: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        pose = self.camera(frame)
        rays = self._rays(size)
        count = size[0] * size[1]
        depth = np.full(count, np.inf, np.float32)
        owner = np.full(count, -1, np.int8)
        picture = np.zeros((count, 3), np.float32)
        for number, patch in enumerate(self.patches):
            place = np.eye(4) if patch.follows is None else patch.follows(frame)
            away = place[:3, :3] @ patch.corner + place[:3, 3] - pose[:3, 3]
            u, v = place[:3, :3] @ patch.u, place[:3, :3] @ patch.v
            near = _near(rays, np.stack([away, away + u, away + v, away + u + v]) @ pose[:3, :3])
            normal = np.cross(u, v)
            axes = np.stack([normal, u / (u @ u), v / (v @ v)])
            slope, a, b = (axes @ pose[:3, :3]).astype(np.float32) @ rays[:, near]
            base, a0, b0 = (axes @ away).astype(np.float32)
            with np.errstate(divide="ignore", invalid="ignore"):
                along = base / slope
                a, b = along * a - a0, along * b - b0
            seen = (along > 0.05) & (along < depth[near]) & (a >= 0) & (a < 1) & (b >= 0) & (b < 1)
            found = np.arange(count)[near][seen]
            depth[found], owner[found] = along[seen], number
            side = patch.texture.shape[0] - 1
            flat = np.stack([a[seen], b[seen]], axis=1) * side
            paint = [
                cv2.remap(patch.texture, part[:, :1], part[:, 1:], cv2.INTER_LINEAR)
                for part in np.array_split(flat, len(flat) // 30000 + 1)
                if len(part)
            ]
            if paint:
                picture[found] = np.concatenate(paint)[:, 0]
        rng = np.random.default_rng(frame)
        picture += rng.normal(0, self.noise, picture.shape)
        shape = (size[1], size[0])
        shown = np.clip(picture, 0, 255).astype(np.uint8).reshape(*shape, 3)
        if self.stamp is not None:
            height, width = self.stamp.shape[:2]
            shown[-height:, :width] = self.stamp
        return shown, owner.reshape(shape)

    def _rays(self, size: tuple[int, int]) -> np.ndarray:
        if size not in self._ray_cache:
            lens = scaled_intrinsics(self.intrinsics, size[0] / self.width, size[1] / self.height)
            x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
            flat = normalised_points(lens, np.stack([x.ravel(), y.ravel()], axis=1))
            self._ray_cache[size] = np.vstack([flat.T, np.ones(len(flat))]).astype(np.float32)
        return self._ray_cache[size]


def _near(rays: np.ndarray, corners: np.ndarray) -> np.ndarray | slice:
    """Which rays (3, N) may meet the rectangle with these corners (4, 3), both in the camera."""
    if corners[:, 2].min() < 0.01:
        return slice(None)
    seen = corners[:, :2] / corners[:, 2:]
    (left, top), (right, bottom) = seen.min(axis=0) - 1e-3, seen.max(axis=0) + 1e-3
    x, y = rays[:2]
    return np.flatnonzero((x > left) & (x < right) & (y > top) & (y < bottom))


def clip_of(
    scene: Scene,
    *,
    number: int = 0,
    context_frames: int = 0,
    intrinsics: Intrinsics | None = None,
    movers: Sequence[int] = (),
) -> ClipInput:
    """The clip of all of the scene's frames; `movers` are patches written into object_masks."""
    row = {
        "video_id": "0123456789abcdef",
        "shard": "20260101-0000",
        "clip_id": f"0123456789abcdef-{number:04d}",
        "clip_index": number,
        "take_id": "0123456789abcdef-t000",
        "index_in_take": number,
        "start_frame": scene.start_frame,
        "end_frame": scene.end_frame,
        "start_pts_s": scene.start_frame / FPS,
        "end_pts_s": scene.end_frame / FPS,
        "context_frames": context_frames,
    }
    rows = []
    for frame in range(scene.start_frame, scene.end_frame) if len(movers) else ():
        mask = np.isin(scene.render(frame, (scene.width, scene.height))[1], movers)
        if mask.any():
            size = {"height_px": mask.shape[0], "width_px": mask.shape[1]}
            rows.append({"frame_index": frame, "rle": encode_mask(mask)} | size)
    tables = {"object_masks": pa.Table.from_pylist(rows)} if rows else {}
    return ClipInput(row, {}, scene, intrinsics or scene.intrinsics, tables)
