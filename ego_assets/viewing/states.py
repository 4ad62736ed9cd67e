"""Which rows of a clip are valid, frame by frame, and the colours in which that is told.

Not here: the words on it in a recording (`notes`), the plain video that shows it (`overlay`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ego_assets.viewing.footage import ClipRows, hand_name
from ego_assets.vision import draw

VALID, INVALID, ABSENT = "valid", "not valid", "no row"
KINDS = ("hands", "camera", "objects", "robots")
"""Of what is judged: a lane each, in this order."""
STATE_COLORS = {VALID: (0, 158, 115), INVALID: (213, 94, 0), ABSENT: (140, 140, 140)}


def judged(clip: ClipRows) -> Iterator[tuple[str, dict[int, dict[str, Any]]]]:
    """(name, {frame: row}) of all that is valid or not."""
    for kind in judged_by_kind(clip).values():
        yield from kind.items()


def judged_by_kind(clip: ClipRows) -> dict[str, dict[str, dict[int, dict[str, Any]]]]:
    """{kind: {name: {frame: row}}} of all that is valid or not."""
    hands = clip.by_track("hand_poses").values()
    cameras = {row["frame_index"]: row for row in clip.tables["scene_reconstruction"]}
    objects = clip.by_track("object_poses").items()
    robots: dict[str, dict[int, dict[str, Any]]] = {}
    for row in clip.tables["robot_mappings"]:
        if row["is_valid"] is not None:  # null: of an older release
            name = f"{hand_name(row)} {row['robot']} {row['method']}"
            robots.setdefault(name, {})[row["frame_index"]] = row
    found = (
        {hand_name(next(iter(rows.values()))): rows for rows in hands},
        {"camera": cameras} if cameras else {},
        {f"object {draw.short_track(track)}": rows for track, rows in objects},
        robots,
    )
    return dict(zip(KINDS, found, strict=True))


def why_not(row: dict[str, Any]) -> str | None:
    return None if row["is_valid"] else row["invalid_reason"] or "no reason given"


def states(
    of_kind: dict[str, dict[int, dict[str, Any]]], frames: Iterable[int]
) -> dict[int, tuple[str, list[str]]]:
    """{frame: (state, words)} of a kind of `judged_by_kind`. A frame is not valid if any of its
    rows is not; the words are `name: reason` of these rows."""
    found = {}
    for frame in frames:
        rows = [(name, of[frame]) for name, of in of_kind.items() if frame in of]
        words = [f"{name}: {why}" for name, row in rows if (why := why_not(row)) is not None]
        found[frame] = (INVALID if words else VALID if rows else ABSENT), words
    return found
