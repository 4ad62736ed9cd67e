"""Where the links of a robot hand are, for pictures of it.

Here: forward kinematics of every link by pinocchio. Not here: what links look like (`shapes`),
solving (`solver`), drawing (`preview`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ego_assets.operator import BadInputError
from ego_assets.robots.robot_hands import RobotSpec, find_robot
from ego_assets.robots.shapes import read_shapes


@dataclass(frozen=True)
class LinkPicture:
    """A link as it is drawn, in the hand frame of `hand_poses`, metres.

    finger: that it leads to; "" of the palm and of what carries it. bone: (2, 3), from its parent's
    origin to its own; parts: (V, 3) vertices of each of its shapes.
    """

    name: str
    finger: str
    bone: np.ndarray
    parts: tuple[np.ndarray, ...]


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
        self.shapes = read_shapes(urdf)

    @classmethod
    def serving(cls, robot: str, side: str, robots_dir: str | None) -> tuple[LinkTree, bool]:
        """The links of the hand that serves hands of a side, and whether it does so mirrored.

        Raises BadInputError, OSError.
        """
        spec = find_robot(robot, robots_dir)
        urdf, mirrored = spec.urdf(side)
        return cls(spec.of(urdf), urdf), mirrored

    @property
    def joint_names(self) -> list[str]:
        """Names of the joints that move, as `hand_from_links` takes them."""
        return [str(name) for name in self.model.names[1:]]

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

    def finger_of(self, link: str) -> str:
        """The finger that a link leads to; "" of the palm and of what carries it."""
        return next((f for i, f in self.fingers.items() if self.names[i] == link), "")

    def fingers_of_joints(self) -> dict[str, str]:
        """The finger that each joint bends."""
        frames = self.model.frames
        return {str(frames[frames[i].parentFrame].name): f for i, f in self.fingers.items()}

    def hand_from_links(self, joints: Mapping[str, float], mirrored: bool) -> dict[str, np.ndarray]:
        """(4, 4) from the frame of each link to the hand frame of `hand_poses`.

        mirrored: the robot's mirror image serves this hand; then it holds a reflection.
        """
        import pinocchio as pin

        data, positions = self.model.createData(), pin.neutral(self.model)
        for name, value in joints.items():
            if self.model.existJointName(name):
                positions[self.model.joints[self.model.getJointId(name)].idx_q] = value
        pin.framesForwardKinematics(self.model, data, positions)
        hand_from_wrist = np.eye(4)
        hand_from_wrist[:3, :3] = self.spec.wrist_from_hand.T
        if mirrored:
            hand_from_wrist[1] *= -1
        hand_from_root = hand_from_wrist @ np.linalg.inv(data.oMf[self.wrist].homogeneous)
        return {n: hand_from_root @ data.oMf[i].homogeneous for i, n in self.names.items()}

    def pictures(self, joints: Mapping[str, float], mirrored: bool) -> list[LinkPicture]:
        """Every link as it is drawn. mirrored: the robot's mirror image serves this hand."""
        placed = self.hand_from_links(joints, mirrored)
        found = []
        for link, name in self.names.items():
            pose = placed[name]
            parent = placed.get(self.names.get(self.parents[link], name), pose)
            bone = np.stack([parent[:3, 3], pose[:3, 3]])
            shapes = self.shapes.of_link.get(name, [])
            parts = tuple(s.vertices @ pose[:3, :3].T + pose[:3, 3] for s in shapes)
            found.append(LinkPicture(name, self.fingers.get(link, ""), bone, parts))
        return found
