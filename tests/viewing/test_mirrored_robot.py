"""A robot that serves a hand as its mirror image is mirrored in a recording, too."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rerun as rr
from scipy.spatial.transform import Rotation

from ego_assets.robots.links import LinkTree
from ego_assets.viewing import robot_hands
from ego_assets.viewing.footage import ClipRows
from ego_assets.viewing.tape import Tape
from tests.viewing.test_recording_of_clips import Recorded


@pytest.mark.parametrize("side", ["left", "right"])
def test_meshes_lie_where_the_links_are(side: str, real_data: Path, tmp_path: Path) -> None:
    folder = str(real_data / "robots")
    tree, mirrored = LinkTree.serving("allegro_hand", side, folder)
    assert mirrored == (side == "left")
    joints = dict.fromkeys(tree.joint_names, 0.3)
    row = {
        "track_id": "t-h000",
        "side": side,
        "frame_index": 0,
        "is_valid": None,
        "robot": "allegro_hand",
        "method": "vector",
        "joint_names": list(joints),
        "joint_positions": list(joints.values()),
        "camera_from_wrist_m": [0.0, 0.0, 0.5],
        "camera_from_wrist_xyzw": [0.0, 0.0, 0.0, 1.0],
    }
    clip = ClipRows({}, np.arange(1), np.zeros(1), {"robot_mappings": [row]}, False)
    lake = SimpleNamespace(settings_of=lambda *_: {"robots_dir": folder})
    footage: Any = SimpleNamespace(lake=lake)
    stream = rr.RecordingStream("test", send_properties=False)
    stream.save(tmp_path / "robot.rrd")
    robot_hands.show(Tape(stream), footage, clip, "/robots")
    stream.flush()
    stream.disconnect()
    found = Recorded(tmp_path / "robot.rrd")
    pictures = {link.name: link for link in tree.pictures(joints, mirrored)}
    for name in ("base_link", "link_3.0_tip", "link_15.0"):
        link = f"/robots/{side} h000 allegro_hand vector/links/{name}"
        mesh = np.array(found.static[f"{link}/0"]["Mesh3D:vertex_positions"])
        turn = Rotation.from_quat(found.column(link, "Transform3D:quaternion")[0][0])
        moved = turn.apply(mesh) + found.column(link, "Transform3D:translation")[0][0]
        (part,) = pictures[name].parts
        np.testing.assert_allclose(moved.min(axis=0), part.min(axis=0), atol=1e-4)
        np.testing.assert_allclose(moved.max(axis=0), part.max(axis=0), atol=1e-4)
        outward = np.cross(mesh[1::3] - mesh[::3], mesh[2::3] - mesh[::3])
        volume = np.einsum("ij,ij->", mesh[::3], outward)
        assert volume > 0, "faces look inward"


def test_a_robot_hand_that_is_not_valid_is_not_drawn(tmp_path: Path) -> None:
    tree, _ = LinkTree.serving("ego_hand", "right", None)
    row = {
        "track_id": "t-h000",
        "side": "right",
        "robot": "ego_hand",
        "method": "vector",
        "joint_names": tree.joint_names,
        "joint_positions": [0.1] * len(tree.joint_names),
        "camera_from_wrist_m": [0.0, 0.0, 0.5],
        "camera_from_wrist_xyzw": [0.0, 0.0, 0.0, 1.0],
    }
    rows = [row | {"frame_index": n, "is_valid": v} for n, v in enumerate((True, False, None))]
    clip = ClipRows({}, np.arange(3), np.zeros(3), {"robot_mappings": rows}, False)
    footage: Any = SimpleNamespace(lake=SimpleNamespace(settings_of=lambda *_: {}))
    stream = rr.RecordingStream("test", send_properties=False)
    stream.save(tmp_path / "robot.rrd")
    robot_hands.show(Tape(stream), footage, clip, "/robots")
    stream.flush()
    stream.disconnect()
    scale = Recorded(tmp_path / "robot.rrd").column(
        "/robots/right h000 ego_hand vector", "Transform3D:scale"
    )
    assert [max(scale[frame][0]) > 0.5 for frame in range(3)] == [True, False, True]
