"""What a URDF says a link looks like: all shapes that URDF has, in the frame of the link."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ego_assets.robots.links import LinkTree
from ego_assets.robots.preview import COLORS, PALM
from ego_assets.robots.shapes import LinkShape, read_shapes
from tests.robots.test_robot_links import has_color, pictured

CORNERS = "v 0 0 0\nv 100 0 0\nv 0 200 0\nv 0 0 300\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"
"""A tetrahedron, in millimetres."""
URDF = """<robot name="r">
<link name="round"><visual><origin xyz="1 0 0" rpy="0 1.5707963267948966 0"/>
 <geometry><cylinder radius="0.1" length="0.6"/></geometry></visual>
 <visual><geometry><sphere radius="0.2"/></geometry></visual></link>
<link name="mesh"><visual><geometry>
 <mesh filename="package://robots/meshes/a.obj" scale="0.001 0.001 0.001"/>
 </geometry></visual></link>
<link name="gone"><visual><geometry>
 <mesh filename="meshes/no.stl"/></geometry></visual></link>
<link name="bare"/>
</robot>"""


@pytest.fixture
def urdf(tmp_path: Path) -> Path:
    (tmp_path / "meshes").mkdir()
    (tmp_path / "meshes" / "a.obj").write_text(CORNERS)
    (tmp_path / "urdf").mkdir()
    path = tmp_path / "urdf" / "robot.urdf"
    path.write_text(URDF)
    return path


def bounds(shape: LinkShape) -> np.ndarray:
    return np.stack([shape.vertices.min(axis=0), shape.vertices.max(axis=0)])


def test_shapes_are_placed_and_scaled(urdf: Path) -> None:
    found = read_shapes(urdf).of_link
    assert set(found) == {"round", "mesh"}
    cylinder, sphere = found["round"]
    np.testing.assert_allclose(bounds(cylinder), [[0.7, -0.1, -0.1], [1.3, 0.1, 0.1]], atol=1e-3)
    np.testing.assert_allclose(bounds(sphere), [[-0.2] * 3, [0.2] * 3], atol=5e-3)
    (mesh,) = found["mesh"]
    np.testing.assert_allclose(bounds(mesh), [[0, 0, 0], [0.1, 0.2, 0.3]], atol=1e-9)
    assert len(mesh.triangles) == 4


def test_triangles_face_outward(urdf: Path) -> None:
    for shape in (s for shapes in read_shapes(urdf).of_link.values() for s in shapes):
        first, second, third = np.moveaxis(shape.vertices[shape.triangles], 1, 0)
        volume = np.einsum("ij,ij->i", first, np.cross(second, third)).sum() / 6
        assert volume > 0


def test_a_mesh_that_cannot_be_read_is_said(urdf: Path) -> None:
    (missing,) = read_shapes(urdf).missing
    assert missing.startswith("meshes/no.stl: ")


def test_meshes_of_real_hands_are_read(real_data: Path) -> None:
    for name in ("allegro", "shadow", "inspire"):
        tree, _ = LinkTree.serving(name, "right", str(real_data / "robots"))
        assert not tree.shapes.missing
        for link in tree.pictures({}, mirrored=False):
            for part in link.parts:
                assert np.abs(part).max() < 0.5, f"{name} {link.name}: not in metres"


@pytest.mark.slow
def test_the_picture_of_a_mapping_shows_meshes(real_data: Path) -> None:
    """The palm of a hand whose shapes are meshes is a surface; its bones alone are thin lines."""
    image = pictured(str(real_data / "robots"), robot="allegro_hand")
    height = image.shape[0]
    robot = image[int(0.32 * height) : int(0.55 * height)].astype(int)
    grey = np.array([int(PALM[at : at + 2], 16) for at in (1, 3, 5)])
    tinted = np.round(0.25 * grey + 0.75 * 255)
    assert (np.abs(robot - tinted).max(axis=-1) < 12).sum() > 1500
    assert has_color(robot, COLORS["thumb"])
