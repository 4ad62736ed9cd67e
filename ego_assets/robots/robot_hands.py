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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from ego_assets.operator import BadInputError

OWN_ROBOTS = Path(__file__).resolve().parents[1] / "robots"
FINGERS = ("thumb", "index", "middle", "ring", "little")
HUMAN_TIPS: Mapping[str, int] = {name: 4 * (i + 1) for i, name in enumerate(FINGERS)}
"""Index of each fingertip among the 21 MANO-order joints."""


class UnknownRobotError(BadInputError):
    """No robot hand of that name: the settings name one that is not there."""


@dataclass(frozen=True)
class RobotSpec:
    """A robot hand. `urdfs` by side; `fingertips` link by human finger, in FINGERS order.

    fixed_joints stay at zero (a robot's own wrist: the wrist pose is a column of its own); left:
    the same of its left hand, where names or frames differ.
    """

    name: str
    wrist_link: str
    fingertips: Mapping[str, str]
    wrist_from_hand: np.ndarray
    fixed_joints: tuple[str, ...] = ()
    urdfs: Mapping[str, Path] | None = None
    left: RobotSpec | None = None

    def urdf(self, side: str) -> tuple[Path, bool]:
        """(URDF that serves hands of that side, whether the hand must be mirrored for it)."""
        urdfs = self.urdfs or {}
        if side in urdfs:
            return urdfs[side], False
        if not urdfs:
            raise UnknownRobotError(f"{self.name}: no URDF; name its folder in robots_dir")
        return next(iter(urdfs.values())), True

    def of(self, urdf: Path) -> RobotSpec:
        """The names and frames of the hand in one of its URDFs."""
        is_left = self.left is not None and (self.urdfs or {}).get("left") == urdf
        return self.left if self.left is not None and is_left else self


def _frame(fingers: str, thumb: str, palm: str, side: str = "right") -> np.ndarray:
    """wrist_from_hand of a hand by where, in its wrist frame, the fingers point, the thumb is, and
    the palm looks: signed axes such as `+z`."""
    axes = {"x": np.eye(3)[0], "y": np.eye(3)[1], "z": np.eye(3)[2]}

    def axis(name: str) -> np.ndarray:
        found: np.ndarray = axes[name[1]] * (1.0 if name[0] == "+" else -1.0)
        return found

    towards_thumb = axis(thumb) if side == "right" else -axis(thumb)
    return np.column_stack([axis(fingers), towards_thumb, -axis(palm)])


def _tips(*links: str) -> dict[str, str]:
    return dict(zip(FINGERS, links, strict=False))


_SHADOW_TIPS = _tips("thtip", "fftip", "mftip", "rftip", "lftip")
_BY_NAME = _tips("thumb_tip", "index_tip", "middle_tip", "ring_tip", "pinky_tip")
_LEAP_TIPS = _tips("thumb_tip_head", "index_tip_head", "middle_tip_head", "ring_tip_head")
_ALLEGRO_TIPS = _tips("link_15.0_tip", "link_3.0_tip", "link_7.0_tip", "link_11.0_tip")
_ALLEGRO_LEFT_TIPS = _tips("link_15.0_tip", "link_11.0_tip", "link_7.0_tip", "link_3.0_tip")
_MOST = _frame("+z", "+y", "+x")
"""Most of dex-urdf: z along the fingers, y to the thumb of a right hand, x out of the palm."""
_SCHUNK = _frame("+z", "-x", "+y")


def _known() -> Iterator[tuple[str, str, RobotSpec]]:
    """(folder, stem of the URDFs, robot) of the hands of dex-urdf that dex_retargeting knows; what
    its left hand has of its own is in `left`."""
    shadow = RobotSpec("shadow_hand", "ee_link", _SHADOW_TIPS, _MOST, ("WRJ2", "WRJ1"))
    shadow_left = replace(shadow, wrist_from_hand=_frame("+z", "-x", "-y", "left"))
    schunk = RobotSpec("schunk_svh_hand", "right_hand_base_link", _SHADOW_TIPS, _SCHUNK)
    schunk_left = replace(schunk, wrist_link="left_hand_base_link")
    allegro = RobotSpec("allegro_hand", "wrist", _ALLEGRO_TIPS, _MOST)
    allegro_left = replace(allegro, fingertips=_ALLEGRO_LEFT_TIPS)
    yield "shadow_hand", "shadow_hand", replace(shadow, left=shadow_left)
    yield "schunk_hand", "schunk_svh_hand", replace(schunk, left=schunk_left)
    yield "allegro_hand", "allegro_hand", replace(allegro, left=allegro_left)
    for name, wrist, tips in (
        ("leap_hand", "base", _LEAP_TIPS),
        ("ability_hand", "base_link", _BY_NAME),
        ("inspire_hand", "base", _BY_NAME),
    ):
        yield name, name, RobotSpec(name, wrist, tips, _MOST)


_KNOWN = {spec.name: (folder, stem, spec) for folder, stem, spec in _known()}
DEX_URDF = "https://github.com/dexsuite/dex-urdf"
_PLACES = ("", "robots/hands", "hands")
"""Where the folders of hands may lie below robots_dir: a checkout of dex-urdf, or a part of it."""


def known_robots(robots_dir: str | Path | None = None) -> list[str]:
    """Names that `find_robot` accepts, sorted: those with files, own ones first in the search."""
    own = {p.parent.name for p in OWN_ROBOTS.glob("*/mapping.json")}
    if robots_dir is not None:
        own |= {name for name in _KNOWN if _urdfs_of(name, Path(robots_dir))}
    return sorted(own)


def find_robot(name: str, robots_dir: str | Path | None = None) -> RobotSpec:
    """The robot hand of that name, as in dex-urdf, with or without `_hand` (`shadow`).

    Raises UnknownRobotError with the names there are, and what is to be done.
    """
    if robots_dir is not None and not Path(robots_dir).is_dir():
        raise UnknownRobotError(f"robots_dir {str(robots_dir)!r} is not a folder")
    names = known_robots(robots_dir)
    whole = next((n for n in (name, f"{name}_hand", f"schunk_{name}_hand") if n in _KNOWN), name)
    if name not in names and whole not in names:
        hint = ""
        if whole in _KNOWN:
            folder, stem, _ = _KNOWN[whole]
            hint = (
                f"; {whole} needs {folder}/{stem}_right.urdf (or _left) below robots_dir"
                f"{'' if robots_dir is None else f' {str(robots_dir)!r}'}: "
                f"git clone {DEX_URDF} and name its folder there"
            )
        raise UnknownRobotError(f"no robot hand named {name!r}: there are {names}{hint}")
    own = OWN_ROBOTS / name
    if (own / "mapping.json").is_file():
        return _read_mapping(own)
    return replace(_KNOWN[whole][2], urdfs=_urdfs_of(whole, Path(robots_dir or "")))


def _urdfs_of(name: str, robots_dir: Path) -> dict[str, Path]:
    """URDF by side of a hand of dex-urdf: by its name there, else of a folder of the hand's name,
    where a file name that does not tell the side is a right hand's."""
    folder, stem, _ = _KNOWN[name]
    for place in _PLACES:
        found = {
            side: path
            for side in ("right", "left")
            if (path := robots_dir / place / folder / f"{stem}_{side}.urdf").is_file()
        }
        if found:
            return found
    return _urdfs(robots_dir / name)


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
