"""Shows robot hands in a recording: the meshes of their URDF, beside the human hand, moving as the
rows of `robot_mappings` say."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from ego_assets.media.sheets import Rows
from ego_assets.operator import BadInputError
from ego_assets.robots.links import LinkTree
from ego_assets.robots.preview import COLORS, PALM
from ego_assets.viewing.footage import ClipRows, ShownClips, hand_name
from ego_assets.viewing.tape import Tape, entity
from ego_assets.vision.geometry import quaternion_from_matrix

BESIDE_M = 0.2
"""How far a robot hand is drawn from the human one, away from the other hand."""
_FLIP = np.diag([1.0, -1.0, 1.0])


def show(tape: Tape, footage: ShownClips, clip: ClipRows, below: str) -> None:
    """The robots of each hand, where they are valid: the first beside it, each further one beside
    the one before."""
    found: dict[tuple[str, str, str], Rows] = defaultdict(list)
    for row in clip.tables["robot_mappings"]:
        if row["is_valid"] is not False:  # null: of an older release
            found[row["track_id"], row["robot"], row["method"]].append(row)
    middle = float(np.median([_wrist(row)[0] for rows in found.values() for row in rows] or [0.0]))
    places: dict[str, int] = defaultdict(int)
    for (track, robot, method), rows in found.items():
        name = f"{hand_name(rows[0])} {robot} {method}"
        places[track] += 1
        own = float(np.median([_wrist(row)[0] for row in rows]))
        away = 1 if own > middle or (own == middle and rows[0]["side"] == "right") else -1
        shift = np.array([BESIDE_M * places[track] * away, 0.0, 0.0])
        _show_hand(tape, footage, clip, entity(below, name), rows, shift)


def _wrist(row: dict[str, Any]) -> np.ndarray:
    return np.array(row["camera_from_wrist_m"])


def _show_hand(
    tape: Tape, footage: ShownClips, clip: ClipRows, path: str, rows: Rows, shift: np.ndarray
) -> None:
    import rerun as rr

    side = rows[0]["side"]
    poses = {
        row["frame_index"]: (_wrist(row) + shift, row["camera_from_wrist_xyzw"]) for row in rows
    }
    tape.pose(path, clip, poses)
    folder = footage.lake.settings_of("robot_mappings", clip.clip).get("robots_dir")
    try:
        tree, mirrored = LinkTree.serving(rows[0]["robot"], side, folder)
    except (BadInputError, OSError) as error:
        _warn(tape, clip, f"{rows[0]['robot']} cannot be drawn: {error}")
        return
    for missing in tree.shapes.missing:
        _warn(tape, clip, f"a shape of {rows[0]['robot']} cannot be read: {missing}")
    # Transforms are rotations: where the robot is its mirror image, its meshes are mirrored, too.
    flip = _FLIP if mirrored else np.eye(3)
    for name, shapes in tree.shapes.of_link.items():
        color = _rgb(COLORS.get(tree.finger_of(name), PALM))
        for number, shape in enumerate(shapes):
            faces = shape.triangles[:, ::-1] if mirrored else shape.triangles
            points = shape.vertices[faces.reshape(-1)] @ flip  # flat faces: no shared vertices
            sides = np.cross(points[1::3] - points[::3], points[2::3] - points[::3])
            sides /= np.maximum(np.linalg.norm(sides, axis=1, keepdims=True), 1e-12)
            mesh = rr.Mesh3D(
                vertex_positions=points.astype(np.float32),
                vertex_normals=np.repeat(sides, 3, axis=0).astype(np.float32),
                albedo_factor=color,
            )
            tape.static(entity(f"{path}/links", name, str(number)), mesh)
    frames = [row["frame_index"] for row in rows]
    moving: dict[str, list[np.ndarray]] = defaultdict(list)
    for row in rows:
        joints = dict(zip(row["joint_names"], row["joint_positions"], strict=True))
        for name, pose in tree.hand_from_links(joints, mirrored).items():
            moving[name].append(pose)
    for name in tree.shapes.of_link:
        stacked = np.array(moving[name])
        columns = rr.Transform3D.columns(
            translation=stacked[:, :3, 3].astype(np.float32),
            quaternion=quaternion_from_matrix(stacked[:, :3, :3] @ flip).astype(np.float32),
        )
        tape.at(entity(f"{path}/links", name), clip, frames, columns)


def _warn(tape: Tape, clip: ClipRows, words: str) -> None:
    import rerun as rr

    line = rr.TextLog.columns(text=[words], level=["WARN"])
    tape.at("/notes/robots", clip, clip.frames[:1], line)


def _rgb(color: str) -> Any:
    return [int(color[at : at + 2], 16) for at in (1, 3, 5)]
