"""What stays the same of a hand through a take: its side, whose it is, the lengths of its bones.

Here: evidence over frames and clips, as plain values that a take carries. Not here: poses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

Votes = dict[str, float]
"""Summed scores for `left`, `right`, `wearer`, `other`."""


def count_votes(
    masks: Iterable[Mapping[str, Any]], first_new_frame: int, known: Mapping[str, Votes]
) -> dict[str, Votes]:
    """What the rows of `hand_masks`, and the clips before (`known`), say of each track."""
    votes = {track: dict(held) for track, held in known.items()}
    for row in masks:
        track = row["track_id"]
        # The clip before has counted the frames that they share.
        if track in known and row["frame_index"] < first_new_frame:
            continue
        held = votes.setdefault(track, {})
        for name in (row["side"], "wearer" if row["is_wearer"] else "other"):
            held[name] = held.get(name, 0.0) + row["score"]
    return votes


def side_of(votes: Votes) -> str:
    """`left` or `right`, whichever has more."""
    return "left" if votes.get("left", 0.0) > votes.get("right", 0.0) else "right"


def owner_of(track: str, votes: Votes) -> str:
    """Whose hand a track is. Both hands of the wearer have one shape; of others, each its own."""
    return "wearer" if votes.get("wearer", 0.0) > votes.get("other", 0.0) else track


def fixed_shapes(
    seen: Iterable[tuple[str, str, np.ndarray, bool]], known: Mapping[str, list[float]]
) -> dict[str, list[float]]:
    """Shape of each owner and track, from a clip's (track, owner, (10,) betas, is good).

    An owner's is the median over the clip of the take that shows a hand of theirs first. What is
    `known` stays as it is, so that bone lengths never change in a take; also of a track that is
    taken for another's later on. Bad looks count only if all are.
    """
    found: dict[str, list[tuple[np.ndarray, bool]]] = {}
    owners: dict[str, str] = {}
    for track, owner, betas, is_good in seen:
        found.setdefault(owner, []).append((betas, is_good))
        owners[track] = owner
    shapes = dict(known)
    for owner, looks in found.items():
        if owner not in shapes:
            good = [b for b, is_good in looks if is_good] or [b for b, _ in looks]
            shapes[owner] = np.median(good, axis=0).tolist()
    for track, owner in owners.items():
        shapes.setdefault(track, shapes[owner])
    return shapes


def bones_m(joints: np.ndarray) -> np.ndarray:
    """(N,) metres: the lengths of all 20 bones of (N, 21, 3) joints, summed."""
    fingers = joints[:, 1:].reshape(len(joints), 5, 4, 3)
    wrists = np.broadcast_to(joints[:, None, :1], (len(joints), 5, 1, 3))
    chains = np.concatenate([wrists, fingers], axis=2)
    lengths: np.ndarray = np.linalg.norm(np.diff(chains, axis=2), axis=-1).sum(axis=(1, 2))
    return lengths
