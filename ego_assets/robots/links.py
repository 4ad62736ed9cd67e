"""Where the links of a robot hand are, for pictures of it.

Here: forward kinematics of every link by pinocchio, and the boxes that a URDF gives links as their
shape. Not here: solving (`solver`), drawing (`preview`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from ego_assets.operator import BadInputError
from ego_assets.robots.robot_hands import RobotSpec

_CORNERS = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])


@dataclass(frozen=True)
class LinkPicture:
    """A link as it is drawn, in the hand frame of `hand_poses`, metres.

    finger: that it leads to; "" of the palm and of what carries it. bone: (2, 3), from its parent's
    origin to its own; boxes: (N, 8, 3) corners.
    """

    name: str
    finger: str
    bone: np.ndarray
    boxes: np.ndarray


class LinkTree:
    """The links of one hand of a robot. Raises BadInputError if its URDF cannot be read."""

    def __init__(self, spec: RobotSpec, urdf: Path) -> None:
        import pinocchio as pin

        self.spec = spec
        try:
            self.model = pin.buildModelFromUrdf(str(urdf))
        except (ValueError, RuntimeError) as error:
            raise BadInputError(f"{urdf}: cannot be loaded as a robot hand: {error}") from error
        frames = self.model.frames
        bodies = [i for i, f in enumerate(frames) if f.type == pin.FrameType.BODY]
        # A link's frame hangs on that of its joint, which hangs on that of the link before.
        self.parents = {i: frames[frames[i].parentFrame].parentFrame for i in bodies}
        self.names = {i: str(frames[i].name) for i in bodies}
        wrists = [i for i in bodies if self.names[i] == spec.wrist_link]
        if not wrists:
            raise BadInputError(f"{urdf}: has no link {spec.wrist_link}")
        self.wrist = wrists[0]
        self.fingers = dict(self._fingers())
        self.boxes = dict(_boxes(urdf))

    def _fingers(self) -> Iterator[tuple[int, str]]:
        """The finger of each link between a fingertip and where its chain meets another one."""
        links = {name: i for i, name in self.names.items()}
        chains = {
            finger: self._chain(links[tip])
            for finger, tip in self.spec.fingertips.items()
            if tip in links
        }
        for finger, chain in chains.items():
            others = {i for other, c in chains.items() if other != finger for i in c}
            yield from ((i, finger) for i in chain if i not in others)

    def _chain(self, link: int) -> list[int]:
        found = []
        while link in self.parents and link != self.wrist:
            found.append(link)
            link = self.parents[link]
        return found

    def fingers_of_joints(self) -> dict[str, str]:
        """The finger that each joint bends."""
        frames = self.model.frames
        return {str(frames[frames[i].parentFrame].name): f for i, f in self.fingers.items()}

    def pictures(self, joints: Mapping[str, float], mirrored: bool) -> list[LinkPicture]:
        """Every link that has a parent. mirrored: the robot's mirror image serves this hand."""
        import pinocchio as pin

        data, positions = self.model.createData(), pin.neutral(self.model)
        for name, value in joints.items():
            if self.model.existJointName(name):
                positions[self.model.joints[self.model.getJointId(name)].idx_q] = value
        pin.framesForwardKinematics(self.model, data, positions)
        root_from = {i: np.array(data.oMf[i].homogeneous) for i in self.names}
        wrist_from_root = np.linalg.inv(root_from[self.wrist])
        flip = np.array([1.0, -1.0 if mirrored else 1.0, 1.0])

        def in_hand(link: int, points: np.ndarray) -> np.ndarray:
            pose = wrist_from_root @ root_from[link]
            in_wrist = points @ pose[:3, :3].T + pose[:3, 3]
            return np.asarray(in_wrist @ self.spec.wrist_from_hand * flip)

        found = []
        for link, name in self.names.items():
            own, parent = in_hand(link, np.zeros((1, 3))), self.parents[link]
            before = in_hand(parent, np.zeros((1, 3))) if parent in self.names else own
            corners = self.boxes.get(name, np.zeros((0, 8, 3)))
            boxes = in_hand(link, corners.reshape(-1, 3)).reshape(corners.shape)
            bone = np.concatenate([before, own])
            found.append(LinkPicture(name, self.fingers.get(link, ""), bone, boxes))
        return found


def _boxes(urdf: Path) -> Iterator[tuple[str, np.ndarray]]:
    """(link, (N, 8, 3) corners in its frame), of the links whose shape is boxes."""
    from scipy.spatial.transform import Rotation

    for link in ElementTree.parse(urdf).getroot().iter("link"):
        found = []
        for visual in link.findall("visual"):
            box, origin = visual.find("geometry/box"), visual.find("origin")
            if box is None:
                continue
            given = {} if origin is None else origin.attrib
            turn = Rotation.from_euler("xyz", _numbers(given.get("rpy", "0 0 0")))
            corners = _CORNERS * _numbers(box.get("size", "0 0 0"))
            found.append(turn.apply(corners) + _numbers(given.get("xyz", "0 0 0")))
        if found:
            yield link.get("name", ""), np.array(found)


def _numbers(text: str) -> Sequence[float]:
    return [float(each) for each in text.split()]
