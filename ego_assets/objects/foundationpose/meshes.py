"""A library of meshes: a folder in which each object's mesh has the name of its label.

Here: files, their limits, and the outline that a mesh has in a picture. Not here: poses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ego_assets.models.weights import WeightsError
from ego_assets.vision.geometry import transform_points

SUFFIXES = (".obj", ".ply", ".glb")
MAX_BYTES = 2**28
MAX_FACES = 2_000_000
SIZE_RANGE_M = (0.005, 5.0)
"""Longest side of what a hand moves; outside it, the unit is most likely another."""
OUTLINE_FACES = 4000
_CELLS = 24
_MAX_CELLS = 24 * 2**6
_NEAR_M = 0.01


@dataclass(frozen=True)
class Mesh:
    """vertices: (V, 3) metres; faces: (F, 3) indices of vertices."""

    vertices: np.ndarray
    faces: np.ndarray

    @cached_property
    def coarse(self) -> Mesh:
        """A few thousand faces of the same outline, within 1/24 of the longest side, finer where
        that few do: a pencil is thinner. Vertices in one cell of a grid become one (Rossignac and
        Borrel, 1993)."""
        if len(self.faces) <= OUTLINE_FACES:
            return self
        found, cells = self._merged(_CELLS), _CELLS
        while cells < _MAX_CELLS:
            cells *= 2
            finer = self._merged(cells)
            if len(finer.faces) > OUTLINE_FACES:
                break
            found = finer
        return found

    def _merged(self, count: int) -> Mesh:
        """Vertices in one cell become one, of a grid of `count` cells along the longest side."""
        low = self.vertices.min(axis=0)
        cell = float(np.ptp(self.vertices, axis=0).max()) / count
        _, first, cells = np.unique(
            ((self.vertices - low) / cell).astype(int),
            axis=0,
            return_index=True,
            return_inverse=True,
        )
        merged = np.sort(cells.ravel()[self.faces], axis=1)
        kept = (merged[:, 0] < merged[:, 1]) & (merged[:, 1] < merged[:, 2])
        return Mesh(self.vertices[first], np.unique(merged[kept], axis=0))

    def silhouette(
        self, pose: np.ndarray, matrix: np.ndarray, shape: tuple[int, int]
    ) -> np.ndarray:
        """(H, W) bool: where a pinhole camera of (3, 3) `matrix` sees it at camera_from_object
        `pose` (4, 4). Faces nearer than 1 cm are left out."""
        coarse = self.coarse
        points = transform_points(pose, coarse.vertices)
        drawn = np.zeros(shape, np.uint8)
        ahead = (points[:, 2] > _NEAR_M)[coarse.faces].all(axis=1)
        flat = points / np.maximum(points[:, 2:], _NEAR_M) @ matrix.T
        # Corners far outside would overflow the integers of OpenCV.
        places = np.clip(np.round(flat[:, :2]), -(2**15), 2**15).astype(np.int32)
        for corners in places[coarse.faces[ahead]]:
            cv2.fillConvexPoly(drawn, corners, 1)
        return drawn > 0


class MeshLibrary:
    """Meshes by label. `mug.obj`, or `mug/anything.obj` where a mesh has a folder of its own.

    Labels match without regard to case, blanks, hyphens and underscores. Raises WeightsError for
    two meshes of one label.
    """

    def __init__(self, folder: Path, scale: float = 1.0) -> None:
        self.folder = folder
        self.scale = scale
        self.paths: dict[str, Path] = {}
        self._read: dict[str, Mesh] = {}
        for path in sorted(folder.glob("**/*")):
            parts = path.relative_to(folder).parts
            if path.suffix.lower() not in SUFFIXES or not path.is_file() or len(parts) > 2:
                continue
            name = _plain(parts[0] if len(parts) == 2 else path.stem)
            if name in self.paths:
                raise WeightsError(
                    f"{self.paths[name]} and {path} are both meshes of {name!r}: keep one of them"
                )
            self.paths[name] = path

    def find(self, label: str) -> str | None:
        """Name of the mesh of a label; None: it has none."""
        name = _plain(label)
        return name if name in self.paths else None

    def mesh(self, name: str) -> Mesh:
        """Raises WeightsError for a file that is damaged, too large, or not in metres."""
        if name not in self._read:
            self._read[name] = read_mesh(self.paths[name], self.scale)
        return self._read[name]


def _plain(label: str) -> str:
    return re.sub(r"[\s_-]+", "_", label.strip()).casefold()


def read_mesh(path: Path, scale: float = 1.0) -> Mesh:
    """A triangle mesh of an OBJ, PLY or GLB file, times `scale`: metres. Raises WeightsError."""
    import trimesh

    size = path.stat().st_size
    if size > MAX_BYTES:
        raise WeightsError(f"{path} has {size / 2**20:.0f} MiB, at most {MAX_BYTES >> 20} are read")
    try:
        found: Any = trimesh.load(path, force="mesh", process=False, skip_materials=True)
        vertices = np.asarray(found.vertices, np.float64).reshape(-1, 3) * scale
        faces = np.asarray(found.faces, np.int64).reshape(-1, 3)
    except Exception as error:  # each format's reader has errors of its own
        raise WeightsError(
            f"{path} cannot be read as a mesh: {type(error).__name__}: {error}"
        ) from error
    if not 1 <= len(faces) <= MAX_FACES:
        raise WeightsError(f"{path} has {len(faces)} triangles; 1 to {MAX_FACES} are taken")
    if not 0 <= faces.min() <= faces.max() < len(vertices) or not np.isfinite(vertices).all():
        raise WeightsError(f"{path} has faces without vertices, or vertices that are no numbers")
    longest = float(np.ptp(vertices, axis=0).max())
    if not SIZE_RANGE_M[0] < longest < SIZE_RANGE_M[1]:
        raise WeightsError(
            f"{path} is {longest:g} m long: is it in metres? `mesh_scale` is metres a unit "
            "(0.001 for millimetres)"
        )
    return Mesh(vertices, faces)
