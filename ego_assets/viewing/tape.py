"""Writes entities of a Rerun recording, clip by clip, on the timelines `frame` and `video_time`.

Here: what Rerun needs to be told so that each frame shows its own rows and no others. Not here:
what is shown (`recording`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ego_assets.viewing.footage import ClipRows

FRAME, TIME = "frame", "video_time"
HERE = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
"""A pose that moves nothing."""
SPECK = 1e-4
"""A scale at which nothing is seen: Rerun warns of transforms whose scale is zero."""


def entity(above: str, *names: str) -> str:
    """The path of an entity below another, whatever characters are in the names."""
    import rerun as rr

    return "/".join([above, *map(rr.escape_entity_path_part, names)])


class Tape:
    """The entities of a recording.

    Rerun shows the last of what an entity was given. So an entity gets a value for every frame of
    its clip, an empty one where there is no row, and is cleared in the next clip that has none.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        stream.set_log_time_enabled(False)
        stream.set_log_tick_enabled(False)
        self._of_before: set[str] = set()
        self._touched: set[str] = set()
        self._styles: set[str] = set()
        self._posed: set[str] = set()

    def end_clip(self, clip: ClipRows) -> None:
        """Take away what the clip before showed and this one does not."""
        import rerun as rr

        for path in sorted(self._of_before - self._touched):
            # What is static below it, as a robot's meshes, cannot be cleared.
            gone = _poses([None]) if path in self._posed else rr.Clear.columns(is_recursive=[False])
            self._send(path, clip.frames[:1], clip.seconds[:1], gone)
        self._of_before, self._touched = self._touched, set()

    def static(self, path: str, *what: Any) -> None:
        """Give an entity what holds at all times; once, however often this is called."""
        if path not in self._styles:
            self._styles.add(path)
            self.stream.log(path, *what, static=True)

    def each(self, path: str, clip: ClipRows, *columns: Any) -> None:
        """Give an entity a value for each frame of a clip."""
        self.at(path, clip, clip.frames, *columns)

    def at(
        self, path: str, clip: ClipRows, frames: Sequence[int] | np.ndarray, *columns: Any
    ) -> None:
        """Give an entity a value at some frames of a clip; frames may be there more than once."""
        frames = np.asarray(frames, np.int64)
        self._touched.add(path)
        self._send(path, frames, clip.seconds[frames - clip.frames[0]], *columns)

    def _send(self, path: str, frames: np.ndarray, seconds: np.ndarray, *columns: Any) -> None:
        import rerun as rr

        if len(frames):
            index = [rr.TimeColumn(FRAME, sequence=frames), rr.TimeColumn(TIME, duration=seconds)]
            self.stream.send_columns(path, index, [each for column in columns for each in column])

    def skeleton(
        self, path: str, clip: ClipRows, points: Mapping[int, np.ndarray], color: Sequence[int]
    ) -> None:
        """Joints and bones of a hand, {frame: (21, 2 or 3)}."""
        import rerun as rr

        from ego_assets.vision.draw import FINGERS

        flat = next(iter(points.values())).shape[1] == 2
        dots, lines = (rr.Points2D, rr.LineStrips2D) if flat else (rr.Points3D, rr.LineStrips3D)
        dot, line = (2.5, 1.2) if flat else (0.004, 0.002)
        there = [frame in points for frame in clip.frames]
        shown = [np.asarray(points[f], np.float32) for f in clip.frames if f in points]
        strips = [joints[list(finger)] for joints in shown for finger in FINGERS]
        joints = dots.columns(positions=np.concatenate(shown))
        bones = lines.columns(strips=strips)
        self.static(f"{path}/joints", dots.from_fields(colors=[(255, 255, 255)], radii=[dot]))
        self.static(f"{path}/bones", lines.from_fields(colors=[tuple(color)], radii=[line]))
        self.each(f"{path}/joints", clip, joints.partition([21 * t for t in there]))
        self.each(f"{path}/bones", clip, bones.partition([len(FINGERS) * t for t in there]))

    def pose(self, path: str, clip: ClipRows, poses: Mapping[int, tuple[Any, Any]]) -> None:
        """Where an entity is, {frame: (translation, quaternion)}; without a pose, it is hidden."""
        self._posed.add(path)
        self.each(path, clip, _poses([poses.get(int(frame)) for frame in clip.frames]))


def _poses(poses: Sequence[tuple[Any, Any] | None]) -> Any:
    """Transforms; None: one by which all below it is too small to be seen."""
    import rerun as rr

    moved, turned = zip(*(HERE if pose is None else pose for pose in poses), strict=True)
    return rr.Transform3D.columns(
        translation=np.array(moved, np.float32),
        quaternion=np.array(turned, np.float32),
        scale=[(SPECK,) * 3 if pose is None else (1.0,) * 3 for pose in poses],
    )
