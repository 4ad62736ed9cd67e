"""What FoundationPose has seen of the objects of a take, and what of it the next clip needs.

Not here: where an object is looked for, and what is believed of an answer (`estimator`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ego_assets.objects.tables import ObjectReason


@dataclass(frozen=True)
class Sighting:
    """What came of one look at one object. pose: camera_from_object (4, 4), metres, or None."""

    frame_index: int
    pts_s: float
    pose: np.ndarray | None
    overlap: float
    reason: ObjectReason | None = None

    def packed(self) -> list[Any]:
        pose = None if self.pose is None else self.pose.tolist()
        return [self.frame_index, self.pts_s, pose, self.overlap, self.reason]

    @classmethod
    def unpacked(cls, held: list[Any]) -> Sighting:
        pose = None if held[2] is None else np.array(held[2])
        return cls(int(held[0]), float(held[1]), pose, float(held[3]), held[4])


@dataclass
class Track:
    """One object through a take. tried_s: when it was last looked for in vain."""

    mesh: str
    seen: dict[int, Sighting] = field(default_factory=dict)
    tried_s: float = -1e9

    def last_pose(self, frame_index: int) -> Sighting | None:
        """The last one before a frame that has a pose."""
        found = [f for f, s in self.seen.items() if f < frame_index and s.pose is not None]
        return self.seen[max(found)] if found else None

    def packed(self, from_pts_s: float) -> dict[str, Any]:
        late = [s.packed() for _, s in sorted(self.seen.items()) if s.pts_s >= from_pts_s]
        return {"mesh": self.mesh, "tried_s": self.tried_s, "seen": late}

    @classmethod
    def unpacked(cls, held: dict[str, Any]) -> Track:
        seen = [Sighting.unpacked(s) for s in held["seen"]]
        return cls(held["mesh"], {s.frame_index: s for s in seen}, float(held["tried_s"]))
