"""Makes a Rerun recording of clips: the picture with all that was found in it, and the same in 3D.

Here: pictures, masks, hands, cameras, points, objects. Not here: robots (`robot_hands`), what is
said about rows (`notes`), the layout (`blueprint`).

Pictures are JPEGs, one a frame, because every viewer shows them, and each at its own frame: a video
in a recording plays only where the browser (or an ffmpeg beside the native viewer) has its codec.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from ego_assets.operator import Frame
from ego_assets.viewing import blueprint, notes, robot_hands
from ego_assets.viewing.footage import ClipRows, ShownClips, hand_name, object_name
from ego_assets.viewing.tape import HERE, Tape, entity
from ego_assets.vision import draw
from ego_assets.vision.geometry import matrix_from_quaternion
from ego_assets.vision.mask_scaling import decode_area

APPLICATION = "ego-assets"
PICTURE_BYTES = 80_000
WORLD, CAMERA, LENS = "/world", "/world/camera", "/world/camera/lens"
AXIS_SHARE = 0.12
"""Length of an object's axes, of its distance."""
_ALPHA = 110
Tell = Callable[[str], None]
AddMore = Callable[[Tape, ClipRows], None]


def write_recording(
    footage: ShownClips,
    path: Path,
    tell: Tell = lambda _: None,
    add_more: AddMore = lambda tape, clip: None,
) -> Path:
    """Write the recording of clips to a file, which is there whole or not at all.

    add_more: called for each clip, to add what is in no table. Raises BadInputError,
    FileNotFoundError if the video cannot be read, ModuleNotFoundError without rerun-sdk.
    """
    import rerun as rr

    aside = path.with_name(f".{path.name}.{os.getpid()}")
    stream = rr.RecordingStream(APPLICATION, recording_id=footage.name, send_properties=False)
    clips = footage.read()
    first = next(clips)
    try:
        stream.save(aside, default_blueprint=blueprint.layout(_eye(first)))
        stream.send_recording_name(f"{footage.name} ({footage.file})")
        tape = Tape(stream)
        tape.static("/about", rr.TextDocument(notes.about(footage), media_type="text/markdown"))
        tape.static(WORLD, rr.ViewCoordinates.RDF)
        for clip in chain([first], clips):
            tell(f"clip {clip.name}: {len(clip.frames)} frames")
            _show_clip(tape, footage, clip, add_more)
        stream.flush()
        stream.disconnect()
        aside.replace(path)
    finally:
        stream.disconnect()
        aside.unlink(missing_ok=True)
    return path


def _show_clip(tape: Tape, footage: ShownClips, clip: ClipRows, add_more: AddMore) -> None:
    """Small things first: a viewer shows what it has while it loads the rest."""
    drawn = list(_draw_pictures(footage, clip))
    clip = clip.timed({picture.frame: picture.pts_s for picture in drawn})
    notes.show(tape, footage, clip)
    _show_cameras(tape, footage, clip)
    _show_hands(tape, footage, clip)
    _show_objects(tape, clip)
    robot_hands.show(tape, footage, clip, f"{CAMERA}/robots")
    _show_pictures(tape, clip, drawn)
    add_more(tape, clip)
    tape.end_clip(clip)


def _eye(clip: ClipRows) -> blueprint.Eye:
    """Where the space is looked at from at first: beside the camera, towards the hands."""
    depth = _hand_depth(clip)
    there = (row for row in clip.tables["scene_reconstruction"] if row["is_valid"])
    row = next(there, {"world_from_camera_m": HERE[0], "world_from_camera_xyzw": HERE[1]})
    turned = matrix_from_quaternion(np.array(row["world_from_camera_xyzw"]))
    points = np.array([(0.3, -0.9, -0.1), (0.0, 0.05, 0.9), (0.0, -1.0, 0.0)]) * depth
    eye, target, up = points @ turned.T
    place = np.array(row["world_from_camera_m"])
    return blueprint.Eye(tuple(eye + place), tuple(target + place), tuple(up))


class _Picture(NamedTuple):
    """A frame as it is shown. boxes: (box, name, color) of each mask."""

    frame: int
    pts_s: float
    jpeg: bytes
    masks_png: bytes
    boxes: list[tuple[tuple[float, ...], str, tuple[int, int, int]]]


def _draw_pictures(footage: ShownClips, clip: ClipRows) -> Iterator[_Picture]:
    hands, objects = clip.by_frame("hand_masks"), clip.by_frame("object_masks")
    for frame in footage.pictures(clip):
        rows = [*objects.get(frame.index, []), *hands.get(frame.index, [])]
        yield _Picture(
            frame.index,
            frame.pts_s,
            draw.encode_jpeg(frame.image, PICTURE_BYTES),
            _mask_picture(frame, rows),
            [(_box(row["box"], frame.scale), _name(row), _color(row)) for row in rows],
        )


def _show_pictures(tape: Tape, clip: ClipRows, drawn: list[_Picture]) -> None:
    import rerun as rr

    frames = [picture.frame for picture in drawn]

    def show(name: str, blobs: list[bytes], kind: str) -> None:
        kinds = [kind] * len(blobs)
        columns = rr.EncodedImage.columns(blob=blobs, media_type=kinds)
        tape.at(f"{LENS}/{name}", clip, frames, columns)

    show("picture", [picture.jpeg for picture in drawn], "image/jpeg")
    tape.static(f"{LENS}/masks", rr.EncodedImage.from_fields(draw_order=1.0))
    show("masks", [picture.masks_png for picture in drawn], "image/png")
    every = [one for picture in drawn for one in picture.boxes]
    columns = rr.Boxes2D.columns(
        centers=np.array([box[:2] for box, _, _ in every]).reshape(-1, 2),
        half_sizes=np.array([box[2:] for box, _, _ in every]).reshape(-1, 2),
        labels=[name for _, name, _ in every],
        colors=[color for _, _, color in every],
    )
    counts = [len(picture.boxes) for picture in drawn]
    tape.at(f"{LENS}/boxes", clip, frames, columns.partition(counts))


def _mask_picture(frame: Frame, rows: list[dict[str, Any]]) -> bytes:
    """A PNG of the masks, see-through where there is none; their outlines are not."""
    size = frame.image.shape[0], frame.image.shape[1]
    areas, edges = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
    colors = np.zeros((256, 4), np.uint8)
    for number, row in enumerate(rows[:255], 1):
        mask = decode_area(row["rle"], row["height_px"], row["width_px"], size)
        outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        areas[mask > 0] = number
        cv2.drawContours(edges, outlines, -1, number, 1)
        colors[number] = (*_color(row), _ALPHA)
    opaque = colors | np.array([0, 0, 0, 255], np.uint8)
    opaque[0] = 0
    picture = np.where(edges[..., None] > 0, opaque[edges], colors[areas])
    fast = [cv2.IMWRITE_PNG_COMPRESSION, 1]
    return cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGBA2BGRA), fast)[1].tobytes()


def _box(box: list[float], scale: float) -> tuple[float, ...]:
    """(centre x, y, half width, half height) in pixels of the picture that is shown."""
    left, top, right, bottom = (edge * scale for edge in box)
    return (left + right) / 2, (top + bottom) / 2, (right - left) / 2, (bottom - top) / 2


def _name(row: dict[str, Any]) -> str:
    return hand_name(row) if "side" in row else object_name(row)


def _color(row: dict[str, Any]) -> tuple[int, int, int]:
    return draw.side_color(row["side"]) if "side" in row else draw.color_of(row["track_id"])


def _show_hands(tape: Tape, footage: ShownClips, clip: ClipRows) -> None:
    import rerun as rr

    for rows in clip.by_track("hand_poses").values():
        first = next(iter(rows.values()))
        name, color = hand_name(first), draw.side_color(first["side"])
        valid = {frame: row for frame, row in rows.items() if row["is_valid"]}
        if valid:
            pixels = {f: shown_px(r["joints_px"], footage.scale) for f, r in valid.items()}
            metres = {f: np.array(r["joints_camera_m"]) for f, r in valid.items()}
            tape.skeleton(entity(f"{LENS}/hands", name), clip, pixels, color)
            tape.skeleton(entity(f"{CAMERA}/hands", name), clip, metres, color)
        scores = {f: _confidence(row) for f, row in rows.items()}
        curve = entity("/confidence", name)
        tape.static(curve, rr.SeriesLines(colors=[color], names=[name]))
        _plot(tape, curve, clip, scores)


def _confidence(row: dict[str, Any]) -> float:
    found: float = row["score"] if row["confidence"] is None else row["confidence"]
    return found


def shown_px(points: Any, scale: float) -> np.ndarray:
    """Pixels of the video, whose centres are integers, as Rerun has those of a shrunken picture:
    it counts from the corner."""
    found: np.ndarray = (np.asarray(points, np.float64) + 0.5) * scale
    return found


def _plot(tape: Tape, path: str, clip: ClipRows, values: Mapping[int, float | None]) -> None:
    """A curve, with gaps where there is no value."""
    import rerun as rr

    found = [values.get(int(frame)) for frame in clip.frames]
    tape.each(path, clip, rr.Scalars.columns(scalars=[np.nan if v is None else v for v in found]))


def _show_cameras(tape: Tape, footage: ShownClips, clip: ClipRows) -> None:
    """The camera of each frame. Frames without one hide all that hangs on it, unless no frame of
    the clip has one: then the camera stays where it is."""
    import rerun as rr

    rows = {row["frame_index"]: row for row in clip.tables["scene_reconstruction"]}
    valid = {frame: row for frame, row in rows.items() if row["is_valid"]}
    poses = {f: (r["world_from_camera_m"], r["world_from_camera_xyzw"]) for f, r in valid.items()}
    tape.pose(CAMERA, clip, poses or dict.fromkeys(map(int, clip.frames), HERE))
    keys = sorted({row["points_uri"] for row in rows.values() if row["points_uri"]})
    points = [footage.lake.arrays(key)["points"] for key in keys]
    first = next(iter(valid.values()), next(iter(rows.values()), footage.video))
    matrix = np.eye(3)
    matrix[0, 0], matrix[1, 1] = (first[k] * footage.scale for k in ("fx_px", "fy_px"))
    matrix[:2, 2] = shown_px((first["cx_px"], first["cy_px"]), footage.scale)
    lens = rr.Pinhole.columns(
        image_from_camera=[matrix],
        resolution=[footage.size],
        camera_xyz=[rr.components.ViewCoordinates.RDF],
        image_plane_distance=[1.4 * _hand_depth(clip)],  # behind the hands
    )
    tape.at(LENS, clip, clip.frames[:1], lens)
    if points:
        every = np.concatenate(points)
        column = rr.Points3D.columns(positions=every).partition([len(every)])
        tape.static(
            f"{WORLD}/points", rr.Points3D.from_fields(colors=[(150, 150, 150)], radii=[-1.5])
        )
        tape.at(f"{WORLD}/points", clip, clip.frames[:1], column)
    places = {frame: np.array(pose[0]) for frame, pose in poses.items()}
    _show_path(tape, f"{WORLD}/paths/camera", clip, places, draw.WHITE)
    tape.static("/confidence/camera", rr.SeriesLines(colors=[(160, 160, 160)], names=["camera"]))
    _plot(tape, "/confidence/camera", clip, {f: r["inlier_share"] for f, r in rows.items()})


def _hand_depth(clip: ClipRows) -> float:
    """How far hands are from the camera, half a metre where none is known."""
    wrists = [row["camera_from_hand_m"][2] for row in clip.tables["hand_poses"] if row["is_valid"]]
    return float(np.median(wrists)) if wrists else 0.5


def _show_path(
    tape: Tape, path: str, clip: ClipRows, places: dict[int, np.ndarray], color: Any
) -> None:
    """Where something goes in a clip, as a line with gaps."""
    import rerun as rr

    frames = sorted(places)
    breaks = [n for n in range(1, len(frames)) if frames[n] != frames[n - 1] + 1]
    runs = np.split(np.array(frames), breaks) if frames else []
    strips = [np.array([places[f] for f in run], np.float32) for run in runs if len(run) > 1]
    if strips:
        column = rr.LineStrips3D.columns(strips=strips).partition([len(strips)])
        tape.static(path, rr.LineStrips3D.from_fields(colors=[color], radii=[-1.0]))
        tape.at(path, clip, clip.frames[:1], column)


def _show_objects(tape: Tape, clip: ClipRows) -> None:
    """Axes of each object and the way that it goes: in the world if it is known there, else before
    the camera."""
    import rerun as rr

    masks = clip.by_track("object_masks")
    for track, rows in clip.by_track("object_poses").items():
        valid = {frame: row for frame, row in rows.items() if row["is_valid"]}
        in_world = any(row["world_from_object_m"] is not None for row in valid.values())
        of = "world_from_object" if in_world else "camera_from_object"
        poses = {
            frame: (row[f"{of}_m"], row[f"{of}_xyzw"])
            for frame, row in valid.items()
            if row[f"{of}_m"] is not None
        }
        if not poses:
            continue
        label = next(iter(masks.get(track, {0: {"label": "object"}}).values()))["label"]
        name = f"{label} {draw.short_track(track)}"
        color, place = draw.color_of(track), WORLD if in_world else CAMERA
        below = entity(f"{place}/objects", name)
        distance = np.median([np.linalg.norm(r["camera_from_object_m"]) for r in valid.values()])
        tape.pose(below, clip, poses)
        tape.at(
            below,
            clip,
            clip.frames[:1],
            rr.TransformAxes3D.columns(axis_length=[AXIS_SHARE * distance]),
        )
        shown = [int(int(frame) in poses) for frame in clip.frames]
        dots = rr.Points3D.columns(
            positions=np.zeros((sum(shown), 3)),
            labels=[name] * sum(shown),
            colors=[color] * sum(shown),
            radii=[-4.0] * sum(shown),
        )
        tape.each(f"{below}/name", clip, dots.partition(shown))
        places = {frame: np.array(pose[0]) for frame, pose in poses.items()}
        _show_path(tape, entity(f"{place}/paths", name), clip, places, color)
