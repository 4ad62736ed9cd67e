"""Generator of the project's own robot hand: two URDFs and the mapping from the human hand.

Here: the hand's measures and the text of its files, a pure function of this module. Not here:
anything that reads a URDF. Run `python -m ego_assets.robots.build_ego_hand` after a change; a
test compares the files with what this module makes.

The wrist link's frame is the hand frame of `hand_poses`: x from the wrist to the middle
knuckle, z out of the back of the hand, so that y points to the thumb on a right hand and to the
little finger on a left one. The left hand is the mirror image (y to -y) with equal joint values
for mirrored poses. Sixteen joints move freely; the last joint of each finger follows the one
before it, as human tendons have it. Lengths are near an adult hand's; geometry is primitives.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

FOLDER = Path(__file__).parent / "ego_hand"
SIDES = ("right", "left")
COUPLING = 0.67
"""Turn of a finger's last joint over the one before it."""


@dataclass(frozen=True)
class JointSpec:
    """A revolute joint of the right hand: name, axis in its frame, limits in radians."""

    name: str
    axis: tuple[float, float, float]
    lower: float
    upper: float
    length_m: float
    follows: str | None = None


@dataclass(frozen=True)
class Finger:
    """A chain from the wrist: base in the wrist frame (metres, rpy radians), then its joints."""

    name: str
    base_m: tuple[float, float, float]
    base_rpy: tuple[float, float, float]
    radius_m: float
    joints: tuple[JointSpec, ...]


_FLEX, _SPREAD = (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)


def _finger(
    name: str, base: tuple[float, float, float], yaw: float, bones: tuple[float, float, float]
) -> Finger:
    return Finger(
        name,
        base,
        (0.0, 0.0, yaw),
        0.008,
        (
            JointSpec("abduction", _SPREAD, -0.35, 0.35, 0.0),
            JointSpec("proximal", _FLEX, -0.35, 1.6, bones[0]),
            JointSpec("middle", _FLEX, 0.0, 1.8, bones[1]),
            JointSpec("distal", _FLEX, 0.0, 1.8 * COUPLING, bones[2], follows="middle"),
        ),
    )


FINGERS: tuple[Finger, ...] = (
    Finger(
        "thumb",
        (0.025, 0.025, -0.012),
        (-0.9, 0.25, 0.75),
        0.009,
        (
            JointSpec("abduction", _SPREAD, -0.8, 0.8, 0.0),
            JointSpec("metacarpal", _FLEX, -0.6, 1.2, 0.040),
            JointSpec("proximal", _FLEX, -0.3, 1.2, 0.033),
            JointSpec("distal", _FLEX, -0.4, 1.5, 0.028),
        ),
    ),
    _finger("index", (0.091, 0.025, -0.002), 0.08, (0.038, 0.023, 0.025)),
    _finger("middle", (0.095, 0.0, 0.0), 0.0, (0.042, 0.027, 0.026)),
    _finger("ring", (0.089, -0.021, -0.003), -0.08, (0.038, 0.025, 0.025)),
    _finger("little", (0.080, -0.040, -0.008), -0.2, (0.030, 0.019, 0.022)),
)


def _text(values: tuple[float, ...] | list[float]) -> str:
    return " ".join(f"{v + 0.0:.6g}" for v in values)


def _mirrored_rpy(rpy: tuple[float, float, float]) -> tuple[float, float, float]:
    # Mirroring in y keeps turns about y and reverses those about x and z.
    return (-rpy[0], rpy[1], -rpy[2])


def _add_link(
    robot: ElementTree.Element,
    name: str,
    shape: dict[str, str] | None,
    at: list[float],
    mass: float,
) -> None:
    link = ElementTree.SubElement(robot, "link", name=name)
    if shape is None:
        return
    inertial = ElementTree.SubElement(link, "inertial")
    ElementTree.SubElement(inertial, "origin", xyz=_text(at), rpy="0 0 0")
    ElementTree.SubElement(inertial, "mass", value=_text([mass]))
    around = _text([mass * 1e-4])
    inertia = {"ixx": around, "iyy": around, "izz": around, "ixy": "0", "ixz": "0", "iyz": "0"}
    ElementTree.SubElement(inertial, "inertia", inertia)
    for tag in ("visual", "collision"):
        element = ElementTree.SubElement(link, tag)
        ElementTree.SubElement(element, "origin", xyz=_text(at), rpy="0 0 0")
        geometry = ElementTree.SubElement(element, "geometry")
        ElementTree.SubElement(geometry, "box", shape)


def _add_joint(
    robot: ElementTree.Element,
    name: str,
    kind: str,
    ends: tuple[str, str],
    origin: tuple[list[float], tuple[float, float, float]],
) -> ElementTree.Element:
    joint = ElementTree.SubElement(robot, "joint", name=name, type=kind)
    ElementTree.SubElement(joint, "parent", link=ends[0])
    ElementTree.SubElement(joint, "child", link=ends[1])
    ElementTree.SubElement(joint, "origin", xyz=_text(origin[0]), rpy=_text(list(origin[1])))
    return joint


def _add_finger(robot: ElementTree.Element, finger: Finger, mirror: bool) -> None:
    sign = -1.0 if mirror else 1.0
    base = [finger.base_m[0], sign * finger.base_m[1], finger.base_m[2]]
    rpy = _mirrored_rpy(finger.base_rpy) if mirror else finger.base_rpy
    parent, at = "wrist", (base, rpy)
    for spec in finger.joints:
        link = f"{finger.name}_{spec.name}"
        width = 2 * finger.radius_m
        size = _text([max(spec.length_m, width), width, width])
        _add_link(robot, link, {"size": size}, [spec.length_m / 2, 0.0, 0.0], 0.01)
        joint = _add_joint(robot, f"{link}_joint", "revolute", (parent, link), at)
        # An axis is a pseudovector: its mirror image is reversed except along y.
        axis = [sign * spec.axis[0], spec.axis[1], sign * spec.axis[2]]
        ElementTree.SubElement(joint, "axis", xyz=_text(axis))
        limit = {"lower": _text([spec.lower]), "upper": _text([spec.upper])}
        ElementTree.SubElement(joint, "limit", limit, effort="2", velocity="6")
        if spec.follows is not None:
            leader = f"{finger.name}_{spec.follows}_joint"
            ElementTree.SubElement(
                joint, "mimic", joint=leader, multiplier=_text([COUPLING]), offset="0"
            )
        parent, at = link, ([spec.length_m, 0.0, 0.0], (0.0, 0.0, 0.0))
    tip = f"{finger.name}_tip"
    _add_link(robot, tip, None, [], 0.0)
    _add_joint(robot, f"{tip}_joint", "fixed", (parent, tip), at)


def urdf(side: str) -> str:
    """Text of the URDF of one side, `right` or `left`."""
    robot = ElementTree.Element("robot", name=f"ego_hand_{side}")
    _add_link(robot, "wrist", {"size": "0.085 0.08 0.025"}, [0.0475, 0.0, -0.003], 0.3)
    for finger in FINGERS:
        _add_finger(robot, finger, mirror=side == "left")
    ElementTree.indent(robot)
    return ElementTree.tostring(robot, encoding="unicode", xml_declaration=False) + "\n"


def mapping() -> str:
    """JSON text: which links stand for which joints of the human hand."""
    middle = next(f for f in FINGERS if f.name == "middle")
    reach = float(np.linalg.norm(middle.base_m) + sum(j.length_m for j in middle.joints))
    content = {
        "robot": "ego_hand",
        "wrist_link": "wrist",
        "wrist_from_hand": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
        "reach_m": round(reach, 6),
        "fingertips": {f.name: f"{f.name}_tip" for f in FINGERS},
        "human_joints": {f.name: 4 * (i + 1) for i, f in enumerate(FINGERS)},
    }
    return json.dumps(content, indent=2) + "\n"


def files() -> dict[str, str]:
    """Text of every generated file by name."""
    made = {f"ego_hand_{side}.urdf": urdf(side) for side in SIDES}
    return made | {"mapping.json": mapping()}


def write(folder: Path = FOLDER) -> None:
    """Write the generated files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
