"""Mesh libraries: found by label, read within limits, seen where they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from ego_assets.models.weights import WeightsError
from ego_assets.objects.foundationpose.meshes import OUTLINE_FACES, Mesh, MeshLibrary, read_mesh
from ego_assets.vision.geometry import pose_matrix, transform_points

MATRIX = np.array([[300.0, 0, 159.5], [0, 300, 119.5], [0, 0, 1]])
SHAPE = (240, 320)


def box(path: Path, size: float = 0.1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    trimesh.creation.box((size, size / 2, size / 4)).export(path)
    return path


def test_meshes_are_found_by_label(tmp_path: Path) -> None:
    for name in ("Coffee mug.obj", "toy-box.ply", "jug/textured_simple.glb"):
        box(tmp_path / name)
    (tmp_path / "jug" / "texture.png").write_bytes(b"")
    (tmp_path / "readme.txt").write_text("")
    library = MeshLibrary(tmp_path)
    assert sorted(library.paths) == ["coffee_mug", "jug", "toy_box"]
    assert library.find("coffee  MUG") == "coffee_mug"
    assert library.find("toy_box") == "toy_box"
    assert library.find("mug") is None
    for name in library.paths:
        mesh = library.mesh(name)
        assert np.ptp(mesh.vertices, axis=0) == pytest.approx([0.1, 0.05, 0.025], abs=1e-6)
        assert mesh.faces.shape == (12, 3)
    assert not MeshLibrary(tmp_path / "nowhere").paths


def test_two_meshes_of_one_label(tmp_path: Path) -> None:
    box(tmp_path / "mug.obj")
    box(tmp_path / "Mug/mug.ply")
    with pytest.raises(WeightsError, match="both meshes of 'mug'"):
        MeshLibrary(tmp_path)


def test_millimetres(tmp_path: Path) -> None:
    path = box(tmp_path / "mug.obj", size=100)
    with pytest.raises(WeightsError, match="is 100 m long: is it in metres"):
        read_mesh(path)
    assert np.ptp(read_mesh(path, 0.001).vertices) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.obj", b"", "cannot be read as a mesh|0 triangles"),
        ("a.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\n", "cannot be read as a mesh|0 triangles"),
        ("a.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n", "cannot be read|faces without"),
        ("a.obj", b"v 0 0 0\nv nan 0 0\nv 0 1 0\nf 1 2 3\n", "that are no numbers"),
        ("a.ply", b"ply\nformat binary_little_endian 1.0\nelement vertex 9\n", "cannot be read"),
        ("a.glb", b"glTF\x02\x00\x00\x00\xff\xff\xff\x7f", "cannot be read"),
    ],
)
def test_files_that_are_no_mesh(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=words):
        read_mesh(tmp_path / name)


def test_a_file_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = box(tmp_path / "a.obj")
    monkeypatch.setattr("ego_assets.objects.foundationpose.meshes.MAX_BYTES", 100)
    with pytest.raises(WeightsError, match="MiB, at most"):
        read_mesh(path)


def test_a_pencil_is_seen() -> None:
    """It is thinner than the cells that would do for a mug."""
    rod = trimesh.creation.cylinder(radius=0.0035, height=0.19, sections=64)
    while len(rod.faces) <= OUTLINE_FACES:
        rod = rod.subdivide()
    mesh = Mesh(np.array(rod.vertices), np.array(rod.faces))
    turn = Rotation.from_rotvec([1.2, 0, 0.4]).as_matrix()
    pose = pose_matrix(turn, np.array([0, 0, 0.3]))
    seen = mesh.silhouette(pose, MATRIX, SHAPE)
    mesh.__dict__["coarse"] = mesh
    wanted = mesh.silhouette(pose, MATRIX, SHAPE)
    assert (seen & wanted).sum() > 0.8 * (seen | wanted).sum() > 0


def test_a_sphere_is_seen_as_a_disc() -> None:
    """Also one with so many faces that a coarser one is drawn in its place."""
    distance, radius = 0.5, 0.05
    rows, columns = np.indices(SHAPE)
    rays = np.stack([(columns - 159.5) / 300, (rows - 119.5) / 300, np.ones(SHAPE)], -1)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    centre = np.array([0.02, -0.03, distance])
    wanted = np.linalg.norm(np.cross(rays, centre), axis=-1) < radius
    for detail, least in ((3, 0.97), (5, 0.9)):
        sphere = trimesh.creation.icosphere(subdivisions=detail, radius=radius)
        mesh = Mesh(np.array(sphere.vertices), np.array(sphere.faces))
        assert len(mesh.coarse.faces) <= 2 * OUTLINE_FACES
        assert (mesh.coarse is mesh) == (detail == 3)
        drawn = mesh.silhouette(pose_matrix(np.eye(3), centre), MATRIX, SHAPE)
        assert np.sum(drawn & wanted) / np.sum(drawn | wanted) > least


def test_faces_behind_the_camera_are_not_seen() -> None:
    corners = trimesh.creation.box((0.1, 0.1, 0.1))
    mesh = Mesh(np.array(corners.vertices), np.array(corners.faces))
    turn = Rotation.from_rotvec([0.3, 0.2, 0.1]).as_matrix()
    pose = pose_matrix(turn, np.array([0, 0, -0.5]))
    assert (transform_points(pose, mesh.vertices)[:, 2] < 0).all()
    assert not mesh.silhouette(pose, MATRIX, SHAPE).any()
    assert mesh.silhouette(pose_matrix(turn, np.array([0, 0, 0.02])), MATRIX, SHAPE).any()
