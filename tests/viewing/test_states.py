"""What counts as valid, frame by frame, in lanes and notes."""

from __future__ import annotations

from typing import Any

import numpy as np

from ego_assets.viewing.footage import ClipRows
from ego_assets.viewing.shown import SHOWN
from ego_assets.viewing.states import ABSENT, INVALID, KINDS, VALID, judged_by_kind, states


def clip_of(*robots: dict[str, Any]) -> ClipRows:
    rows: dict[str, Any] = {table: [] for table in SHOWN} | {"robot_mappings": list(robots)}
    return ClipRows({}, np.arange(4), np.zeros(4), rows, False)


def robot(frame: int, is_valid: bool | None, reason: str | None = None) -> dict[str, Any]:
    row = {"track_id": "t-h000", "side": "right", "robot": "ego_hand", "method": "vector"}
    return row | {"frame_index": frame, "is_valid": is_valid, "invalid_reason": reason}


def test_robots_are_judged_but_for_those_of_older_releases() -> None:
    clip = clip_of(robot(0, True), robot(1, False, "out of limits"), robot(2, None))
    kinds = judged_by_kind(clip)
    assert tuple(kinds) == KINDS
    name = "right h000 ego_hand vector"
    assert states(kinds["robots"], range(4)) == {
        0: (VALID, []),
        1: (INVALID, [f"{name}: out of limits"]),
        2: (ABSENT, []),
        3: (ABSENT, []),
    }


def test_each_robot_of_a_hand_is_judged_by_itself() -> None:
    other = robot(0, False, "solver failed") | {"method": "dexpilot"}
    robots = judged_by_kind(clip_of(robot(0, True), other))["robots"]
    assert states(robots, [0]) == {0: (INVALID, ["right h000 ego_hand dexpilot: solver failed"])}
