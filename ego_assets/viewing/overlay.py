"""Makes a plain video of clips, with all that was found drawn into each frame; needs no Rerun."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ego_assets.media.sheets import Rows
from ego_assets.media.video_writer import write_mp4
from ego_assets.operator import Frame
from ego_assets.viewing.footage import ShownClips, hand_name, object_name
from ego_assets.vision import draw
from ego_assets.vision.geometry import matrix_from_quaternion, pose_matrix
from ego_assets.vision.mask_scaling import decode_area

AXIS_SHARE = 0.15
"""Length of an object's axes, of its distance."""
LISTED = 8
"""Objects in the legend, which is the same in every frame."""


def write_overlay(
    footage: ShownClips, path: Path, tell: Callable[[str], None] = lambda _: None
) -> int:
    """Write the video of clips. Returns how many frames it has.

    A frame has the time that it has in the raw video, from the first one on. Raises BadInputError,
    FileNotFoundError if the video cannot be read.
    """
    return write_mp4(path, _frames(footage, tell))


def _frames(footage: ShownClips, tell: Callable[[str], None]) -> Iterator[tuple[float, np.ndarray]]:
    legend = list(_legend(footage.objects()))
    for clip in footage.read():
        tell(f"clip {clip.name}: {len(clip.frames)} frames")
        rows = {name: clip.by_frame(name) for name in _DRAWN}
        for frame in footage.pictures(clip):
            image = np.ascontiguousarray(frame.image).copy()
            for table, draw_rows in _DRAWN.items():
                draw_rows(footage, frame, image, rows[table].get(frame.index, []))
            title = np.full((draw.LINE_PX + 4, image.shape[1], 3), draw.DARK, np.uint8)
            what = f"frame {frame.index}  {frame.pts_s:.3f} s  {footage.file}  clip {clip.name}"
            draw.draw_words(title, what)
            yield frame.pts_s, np.concatenate([title, draw.with_legend(image, "", legend)])


def _draw_objects(footage: ShownClips, frame: Frame, image: np.ndarray, rows: Rows) -> None:
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


def _draw_hand_masks(footage: ShownClips, frame: Frame, image: np.ndarray, rows: Rows) -> None:
    for row in rows:
        _draw_mask(image, row, draw.side_color(row["side"]))


def _draw_hands(footage: ShownClips, frame: Frame, image: np.ndarray, rows: Rows) -> None:
    for row in rows:
        color, words = draw.side_color(row["side"]), hand_name(row)
        if row["is_valid"]:
            draw.draw_hand(image, np.array(row["joints_px"]) * frame.scale, color)
        else:
            words += f": {row['invalid_reason'] or 'not valid'}"
        left, _, _, bottom = np.array(row["box"]) * frame.scale
        draw.draw_label(image, words, left, bottom + 2, color)


def _draw_axes(footage: ShownClips, frame: Frame, image: np.ndarray, rows: Rows) -> None:
    matrix = footage.intrinsics.matrix(frame.scale)
    for row in rows:
        if row["is_valid"] and row["camera_from_object_m"] is not None:
            turned = matrix_from_quaternion(np.array(row["camera_from_object_xyzw"]))
            place = np.array(row["camera_from_object_m"])
            length = AXIS_SHARE * float(np.linalg.norm(place))
            draw.draw_axes(image, matrix, pose_matrix(turned, place), length)


_DRAWN: dict[str, Callable[[ShownClips, Frame, np.ndarray, Rows], None]] = {
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
