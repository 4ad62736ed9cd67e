"""Makes a plain video of clips, with all that was found drawn into each frame; needs no Rerun."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ego_assets.media.sheets import Rows
from ego_assets.media.video_writer import write_mp4
from ego_assets.operator import Frame, Intrinsics
from ego_assets.viewing.footage import ClipRows, ShownClips, hand_name, object_name
from ego_assets.viewing.states import INVALID, KINDS, STATE_COLORS, judged_by_kind, states
from ego_assets.vision import draw
from ego_assets.vision.cameras import lens_of_scene, scaled_intrinsics
from ego_assets.vision.geometry import matrix_from_quaternion, pose_matrix
from ego_assets.vision.mask_scaling import decode_area

AXIS_SHARE = 0.15
"""Length of an object's axes, of its distance."""
LISTED = 8
"""Objects in the legend, which is the same in every frame."""
FRAME_PX, LANE_PX = 3, 5


def write_overlay(
    footage: ShownClips, path: Path, tell: Callable[[str], None] = lambda _: None
) -> int:
    """Write the video of clips. Returns how many frames it has.

    A frame has the time that it has in the raw video, from the first one on. Raises BadInputError,
    FileNotFoundError if the video cannot be read.
    """
    return write_mp4(path, overlay_frames(footage, tell))


def overlay_frames(
    footage: ShownClips, tell: Callable[[str], None] = lambda _: None, *, legend: bool = True
) -> Iterator[tuple[float, np.ndarray]]:
    """Yield (seconds in the raw video, (H, W, 3) uint8 RGB picture with all that was found).

    Below a picture are the words on what is not valid in it, a lane each for hands, camera,
    objects and robots, which shows where in the clip they are valid, and the legend, if it is
    wanted. A picture with a row that is not valid has a frame. Raises as `write_overlay`.
    """
    entries = list(_legend(footage.objects())) if legend else []
    for clip in footage.read():
        tell(f"clip {clip.name}: {len(clip.frames)} frames")
        rows = {name: clip.by_frame(name) for name in _DRAWN}
        lanes = _Lanes(clip)
        lens = lens_of_scene(
            next(iter(clip.tables["scene_reconstruction"]), {}), footage.intrinsics
        )
        for frame in footage.pictures(clip):
            image = np.ascontiguousarray(frame.image).copy()
            for table, draw_rows in _DRAWN.items():
                draw_rows(lens, frame, image, rows[table].get(frame.index, []))
            what = f"frame {frame.index}  {frame.pts_s:.3f} s  {footage.file}  clip {clip.name}"
            below = lanes.draw(frame.index, image)
            parts = [_words(image, what), image, draw.with_legend(below, "", entries)]
            yield frame.pts_s, np.concatenate(parts)


class _Lanes:
    """What is valid when, in a clip."""

    def __init__(self, clip: ClipRows) -> None:
        frames = clip.frames.tolist()
        self._first, self._count = clip.frames[0], len(frames)
        self._states = {k: states(of, frames) for k, of in judged_by_kind(clip).items()}
        colors = [[STATE_COLORS[s[f][0]] for f in frames] for s in self._states.values()]
        self._lanes = np.array(colors, np.uint8)  # (kinds, frames, 3)

    def draw(self, frame: int, image: np.ndarray) -> np.ndarray:
        """Frame the picture if a row of it is not valid; return what comes below it."""
        words = [word for of_kind in self._states.values() for word in of_kind[frame][1]]
        if words:
            color, (height, width) = STATE_COLORS[INVALID], image.shape[:2]
            cv2.rectangle(image, (1, 1), (width - 2, height - 2), color, FRAME_PX)
        camera = self._states["camera"][frame][0]
        told = f"not valid: {', '.join(words)}" if words else f"camera: {camera}"
        width = image.shape[1]
        columns = np.arange(width) * self._count // width
        lanes = np.full((len(self._lanes), LANE_PX + 1, width, 3), draw.DARK, np.uint8)
        lanes[:, :LANE_PX] = self._lanes[:, None, columns]
        at = min(width - 2, round((frame - self._first + 0.5) * width / self._count))
        lanes[:, :, at : at + 2] = draw.WHITE
        return np.concatenate([_words(image, told), lanes.reshape(-1, width, 3)])


def _words(image: np.ndarray, words: str) -> np.ndarray:
    """A line of words as wide as the picture."""
    line = np.full((draw.LINE_PX + 4, image.shape[1], 3), draw.DARK, np.uint8)
    draw.draw_words(line, words)
    return line


def _draw_objects(lens: Intrinsics, frame: Frame, image: np.ndarray, rows: Rows) -> None:
    for row in rows:
        _draw_mask(image, row, draw.color_of(row["track_id"]))
    for row in rows:  # above all masks
        box, color = np.array(row["box"]) * frame.scale, draw.color_of(row["track_id"])
        draw.draw_box(image, box, color)
        draw.draw_label(image, object_name(row), box[0], box[1] - draw.LINE_PX, color)


def _draw_mask(image: np.ndarray, row: dict[str, Any], color: tuple[int, int, int]) -> None:
    size = image.shape[0], image.shape[1]
    mask = decode_area(row["rle"], row["height_px"], row["width_px"], size)
    draw.overlay_mask(image, mask, color)


def _draw_hand_masks(lens: Intrinsics, frame: Frame, image: np.ndarray, rows: Rows) -> None:
    for row in rows:
        _draw_mask(image, row, draw.side_color(row["side"]))


def _draw_hands(lens: Intrinsics, frame: Frame, image: np.ndarray, rows: Rows) -> None:
    for row in rows:
        color, words = draw.side_color(row["side"]), hand_name(row)
        if row["is_valid"]:
            draw.draw_hand(image, np.array(row["joints_px"]) * frame.scale, color)
        else:
            words += f": {row['invalid_reason'] or 'not valid'}"
        left, _, _, bottom = np.array(row["box"]) * frame.scale
        draw.draw_label(image, words, left, bottom + 2, color)


def _draw_axes(lens: Intrinsics, frame: Frame, image: np.ndarray, rows: Rows) -> None:
    camera = scaled_intrinsics(lens, frame.scale, frame.scale)
    for row in rows:
        if row["is_valid"] and row["camera_from_object_m"] is not None:
            turned = matrix_from_quaternion(np.array(row["camera_from_object_xyzw"]))
            place = np.array(row["camera_from_object_m"])
            length = AXIS_SHARE * float(np.linalg.norm(place))
            draw.draw_axes(image, camera, pose_matrix(turned, place), length)


_DRAWN: dict[str, Callable[[Intrinsics, Frame, np.ndarray, Rows], None]] = {
    "object_masks": _draw_objects,
    "hand_masks": _draw_hand_masks,
    "hand_poses": _draw_hands,
    "object_poses": _draw_axes,
}
"""What draws the rows of a frame, in this order."""


def _legend(objects: dict[str, str]) -> Iterator[draw.LegendEntry]:
    yield from draw.SIDES
    yield draw.WHITE, "joints"
    yield from ((draw.color_of(track), name) for track, name in sorted(objects.items())[:LISTED])
    if objects:
        yield from ((color, f"{name} axis") for name, color in draw.AXES.items())
    yield from ((color, word) for word, color in STATE_COLORS.items())
    yield None, f"(lanes: {', '.join(KINDS)})"
