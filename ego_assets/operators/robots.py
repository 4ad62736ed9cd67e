"""Robot hands: where their URDFs lie, which links mimic which joints of the human hand.

Here: the table of known hands, finding their files, and the few facts of a URDF that retargeting
needs (mimic joints). Not here: the solver (`retarget_solver`) or the rows (`retarget`).

Frames: `wrist_from_hand` turns the hand frame of `hand_poses` (x from wrist to middle knuckle,
z out of the back of the hand) into the frame of the robot's wrist link. Both are taken to sit at
the wrist joint.

A robot with a right hand only serves left hands too: the human hand is mirrored, and the joint
positions are those of the robot's mirror image, of which a joint and its twin have equal values.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from ego_assets.protocols import BadInputError

OWN_ROBOTS = Path(__file__).resolve().parents[1] / "robots"
FINGERS = ("thumb", "index", "middle", "ring", "little")
HUMAN_TIPS: Mapping[str, int] = {name: 4 * (i + 1) for i, name in enumerate(FINGERS)}
"""Index of each fingertip among the 21 MANO-order joints."""


class UnknownRobotError(BadInputError):
    """No robot hand of that name: the settings name one that is not there."""


@dataclass(frozen=True)
class RobotSpec:
    """A robot hand. `urdfs` by side; `fingertips` link by human finger, in FINGERS order.

    fixed_joints stay at zero (a robot's own wrist: the wrist pose is a column of its own).
    """

    name: str
    wrist_link: str
    fingertips: Mapping[str, str]
    wrist_from_hand: np.ndarray
    fixed_joints: tuple[str, ...] = ()
    urdfs: Mapping[str, Path] | None = None

    def urdf(self, side: str) -> tuple[Path, bool]:
        """(URDF that serves hands of that side, whether the hand must be mirrored for it)."""
        urdfs = self.urdfs or {}
        if side in urdfs:
            return urdfs[side], False
        if not urdfs:
            raise UnknownRobotError(f"{self.name}: no URDF; name its folder in robots_dir")
        return next(iter(urdfs.values())), True


# The three hands of dex-urdf agree: z along the fingers, y to the thumb, x out of the palm.
_Z_ALONG_FINGERS = np.array([[0.0, 0.0, -1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])

_KNOWN = {
    spec.name: spec
    for spec in (
        RobotSpec(
            "allegro_hand",
            "wrist",
            {
                "thumb": "link_15.0_tip",
                "index": "link_3.0_tip",
                "middle": "link_7.0_tip",
                "ring": "link_11.0_tip",
            },
            _Z_ALONG_FINGERS,
        ),
        RobotSpec(
            "shadow_hand",
            "ee_link",
            {
                "thumb": "thtip",
                "index": "fftip",
                "middle": "mftip",
                "ring": "rftip",
                "little": "lftip",
            },
            _Z_ALONG_FINGERS,
            fixed_joints=("WRJ2", "WRJ1"),
        ),
        RobotSpec(
            "inspire_hand",
            "base",
            {
                "thumb": "thumb_tip",
                "index": "index_tip",
                "middle": "middle_tip",
                "ring": "ring_tip",
                "little": "pinky_tip",
            },
            _Z_ALONG_FINGERS,
        ),
    )
}


def known_robots(robots_dir: str | Path | None = None) -> list[str]:
    """Names that `find_robot` accepts, sorted: those with files, own ones first in the search."""
    own = {p.parent.name for p in OWN_ROBOTS.glob("*/mapping.json")}
    if robots_dir is not None:
        own |= {name for name in _KNOWN if _urdfs(Path(robots_dir) / name)}
    return sorted(own)


def find_robot(name: str, robots_dir: str | Path | None = None) -> RobotSpec:
    """The robot hand of that name. Raises UnknownRobotError with the names there are."""
    if robots_dir is not None and not Path(robots_dir).is_dir():
        raise UnknownRobotError(f"robots_dir {str(robots_dir)!r} is not a folder")
    names = known_robots(robots_dir)
    if name not in names:
        hint = ""
        if name in _KNOWN:
            hint = f"; {name} needs robots_dir to name the folder that holds {name}/*.urdf"
        raise UnknownRobotError(f"no robot hand named {name!r}: there are {names}{hint}")
    own = OWN_ROBOTS / name
    if (own / "mapping.json").is_file():
        return _read_mapping(own)
    spec = _KNOWN[name]
    urdfs = _urdfs(Path(robots_dir or "") / name)
    return RobotSpec(
        spec.name,
        spec.wrist_link,
        spec.fingertips,
        spec.wrist_from_hand,
        spec.fixed_joints,
        urdfs,
    )


def _urdfs(folder: Path) -> dict[str, Path]:
    """URDF by side; a file name tells the side, and one that does not is a right hand's."""
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*.urdf")):
        found.setdefault("left" if "left" in path.stem else "right", path)
    return dict(sorted(found.items(), reverse=True))


def _read_mapping(folder: Path) -> RobotSpec:
    content = json.loads((folder / "mapping.json").read_text(encoding="utf-8"))
    return RobotSpec(
        content["robot"],
        content["wrist_link"],
        {finger: content["fingertips"][finger] for finger in FINGERS},
        np.array(content["wrist_from_hand"]),
        urdfs=_urdfs(folder),
    )


@dataclass(frozen=True)
class Mimic:
    """A joint that follows another: value = multiplier * leader + offset."""

    joint: str
    leader: str
    multiplier: float
    offset: float


def mimic_joints(urdf: Path) -> list[Mimic]:
    """Mimic joints of a URDF, in file order. Raises BadInputError if it is no XML."""
    try:
        root = ElementTree.parse(urdf).getroot()
    except ElementTree.ParseError as error:
        raise BadInputError(f"{urdf}: not a URDF: {error}") from error
    found = []
    for joint in root.iter("joint"):
        mimic = joint.find("mimic")
        if mimic is not None:
            found.append(
                Mimic(
                    joint.get("name", ""),
                    mimic.get("joint", ""),
                    float(mimic.get("multiplier", 1.0)),
                    float(mimic.get("offset", 0.0)),
                )
            )
    return found
