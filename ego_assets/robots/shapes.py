"""What the links of a robot look like: the shapes that its URDF names, as triangles.

Here: boxes, cylinders, spheres, mesh files, in the frame of their link. Not here: where links are
(`links`), colours, textures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

_ROUND = 24
"""Sides of a cylinder, and of a sphere around its axis."""


@dataclass(frozen=True)
class LinkShape:
    """vertices: (V, 3) metres in the frame of the link; triangles: (T, 3) indices of vertices,
    counter-clockwise as seen from outside."""

    vertices: np.ndarray
    triangles: np.ndarray


@dataclass(frozen=True)
class RobotShapes:
    """The shapes of each link that has some. missing: why a shape of the URDF is not among them."""

    of_link: dict[str, list[LinkShape]]
    missing: tuple[str, ...] = ()


def read_shapes(urdf: Path) -> RobotShapes:
    """Read the visual shapes of a URDF. A mesh that cannot be read is left out, and said."""
    found: dict[str, list[LinkShape]] = {}
    missing: dict[str, None] = {}
    for link in ElementTree.parse(urdf).getroot().iter("link"):
        for visual in link.findall("visual"):
            geometry = visual.find("geometry")
            if geometry is None or not len(geometry):
                continue
            try:
                mesh = _mesh(geometry[0], urdf.parent)
            except Exception as error:  # of any kind: mesh files are read by many libraries
                where = geometry[0].get("filename", geometry[0].tag)
                missing[f"{where}: {error or type(error).__name__}"] = None
                continue
            shape = LinkShape(
                _placed(np.asarray(mesh.vertices, np.float64), visual.find("origin")),
                np.asarray(mesh.faces, np.int64),
            )
            found.setdefault(link.get("name", ""), []).append(shape)
    return RobotShapes(found, tuple(missing))


def _mesh(geometry: ElementTree.Element, folder: Path) -> Any:
    import trimesh

    given = geometry.attrib
    if geometry.tag == "box":
        return trimesh.creation.box(_numbers(given["size"]))
    if geometry.tag == "cylinder":
        size = float(given["radius"]), float(given["length"])
        return trimesh.creation.cylinder(*size, sections=_ROUND)
    if geometry.tag == "capsule":
        size = float(given["length"]), float(given["radius"])
        middled = trimesh.creation.capsule(*size, count=(_ROUND, _ROUND))
        middled.apply_translation([0, 0, -middled.bounds.mean(axis=0)[2]])
        return middled
    if geometry.tag == "sphere":
        size = (_ROUND // 2, _ROUND)
        return trimesh.creation.uv_sphere(float(given["radius"]), count=size)
    if geometry.tag == "mesh":
        mesh: Any = trimesh.load(_file(given["filename"], folder), force="mesh")
        mesh.apply_scale(np.array(_numbers(given.get("scale", "1 1 1"))))
        return mesh
    raise ValueError("a shape that URDF does not have")


def _file(name: str, folder: Path) -> Path:
    """The file of a mesh: beside the URDF; of `package://robot/meshes/…`, which names a package of
    ROS, what lies below the URDF's folder or one above it."""
    inner = name.removeprefix("file://")
    if not name.startswith("package://"):
        return folder / inner
    parts = Path(name.removeprefix("package://")).parts
    below = [Path(*parts[start:]) for start in range(len(parts))]
    places = [place / path for place in (folder, *folder.parents[:3]) for path in below]
    return next((place for place in places if place.is_file()), folder / Path(*parts))


def _placed(points: np.ndarray, origin: ElementTree.Element | None) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    given = {} if origin is None else origin.attrib
    turn = Rotation.from_euler("xyz", _numbers(given.get("rpy", "0 0 0")))
    placed: np.ndarray = turn.apply(points) + _numbers(given.get("xyz", "0 0 0"))
    return placed


def _numbers(text: str) -> Sequence[float]:
    return [float(each) for each in text.split()]
