"""Names of EgoDex (ARKit's) for the 21 joints of a hand in MANO order."""

from __future__ import annotations

_FINGERS = ("Thumb", "IndexFinger", "MiddleFinger", "RingFinger", "LittleFinger")
_PARTS = ("Knuckle", "IntermediateBase", "IntermediateTip", "Tip")
CAMERA = "camera"


def joint_names(side: str) -> tuple[str, ...]:
    """Returns 21 names: the wrist, then four a finger from palm to tip.

    EgoDex has a metacarpal of each finger but the thumb, too, which MANO has not.
    """
    fingers = (f"{side}{finger}{part}" for finger in _FINGERS for part in _PARTS)
    return (f"{side}Hand", *fingers)
