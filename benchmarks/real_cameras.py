"""Cameras of the real videos, through the whole chain: which frames have one, and why others not.

Here: running the operators that cameras and hands in the world need, and counting their rows. Not
here: whether a camera is right (`real_scores` has references for some), the table (`accuracy`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.graph_run import run_graph
from ego_assets.operator import Rows

Values = dict[tuple[str, str], float]

CHAIN = ("segmenter", "hand_estimator", "reconstructor")


@dataclass(frozen=True)
class VideoCameras:
    """Counts of a video, each frame once.

    motion: valid frames by `motion_kind`; scales: valid frames by `scale_kind`; reasons: the other
    frames by `invalid_reason`; hands: valid rows of the wearer's hands, `placed` those of them that
    are seen by a valid camera in a world of metres.
    """

    frames: int
    motion: Mapping[str, int]
    scales: Mapping[str, int]
    reasons: Mapping[str, int]
    hands: int
    placed: int

    @property
    def valid(self) -> int:
        return sum(self.motion.values())


def count_cameras(cameras: Rows, hands: Rows) -> VideoCameras:
    """Count rows of `scene_reconstruction` and `hand_poses` of one video, without context."""
    valid = [r for r in cameras if r["is_valid"]]
    metric = {r["frame_index"] for r in valid if r["scale_kind"] != "arbitrary"}
    wearer = [r["frame_index"] for r in hands if r["is_valid"] and r["is_wearer"]]
    return VideoCameras(
        frames=len(cameras),
        motion=Counter(r["motion_kind"] for r in valid),
        scales=Counter(r["scale_kind"] for r in valid),
        reasons=Counter(r["invalid_reason"] for r in cameras if not r["is_valid"]),
        hands=len(wearer),
        placed=sum(frame in metric for frame in wearer),
    )


def measure_cameras(data: Path, videos: Iterable[str] | None = None) -> dict[str, VideoCameras]:
    """Run the chain over the real videos, or those named, and count. Raises RuntimeError if an
    operator fails."""
    found = {}
    for path in sorted((data / "videos").iterdir()):
        if videos is not None and path.stem not in videos:
            continue
        run = run_graph(path, only=CHAIN)
        if run.failures:
            raise RuntimeError(f"{path.name}: {run.failures}")
        found[path.stem] = count_cameras(run.rows("scene_reconstruction"), run.rows("hand_poses"))
    return found


def values_of(counts: Sequence[VideoCameras]) -> Values:
    """Shares over all frames and rows of all videos, so that a long video counts for more."""
    frames, hands = sum(c.frames for c in counts), sum(c.hands for c in counts)
    values: Values = {
        ("reconstructor", "real videos, frames with a valid camera"): (
            sum(c.valid for c in counts) / max(1, frames)
        ),
        ("reconstructor", "real videos, mean over videos of that share"): (
            sum(c.valid / max(1, c.frames) for c in counts) / max(1, len(counts))
        ),
    }
    if hands:
        name = "real videos, wearer's valid hands with a place in metres"
        values["reconstructor", name] = sum(c.placed for c in counts) / hands
    return values


def camera_table(found: Mapping[str, VideoCameras]) -> str:
    """Counts of each video, as text."""
    head = (
        f"{'video':<26} {'valid':>9} {'wearer hands':>13}  motion; scale; why the others have none"
    )
    lines = [head]
    for name, counts in found.items():
        parts = [_told(c) for c in (counts.motion, counts.scales, counts.reasons)]
        lines.append(
            f"{name:<26} {counts.valid:>4}/{counts.frames:<4} "
            f"{counts.placed:>6}/{counts.hands:<6}  {'; '.join(parts)}"
        )
    return "\n".join(lines)


def _told(counts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "-"
