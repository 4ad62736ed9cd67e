"""Writes a video as a pinhole camera would have taken it, with that camera's calibration beside it.

Here: the two files. Not here: the map (`ego_assets.vision.lenses`), where a video comes from.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ego_assets.consent import NO_CONSENTS
from ego_assets.media.decode import ClipFrames
from ego_assets.media.frame_index import index_frames
from ego_assets.media.video_writer import Sound, write_mp4
from ego_assets.operator import BadInputError, Intrinsics, intrinsics_of
from ego_assets.videos.calibration.camera import CalibrationError
from ego_assets.videos.calibration.sidecars import read_calibration

SIDECAR = ".camera.json"
CRF = 17
"""Hardly to be told from the original: what is written here is looked at by models again."""


@dataclass(frozen=True)
class UndistortedVideo:
    """What was written. left_out: frames that do not decode, or only with what a decoder makes up;
    the others keep their times. seen_share: of the pixels, what the lens saw; the rest is black."""

    video: str
    calibration: str
    frames: int
    left_out: int
    lens: str
    fx: float
    fy: float
    field_of_view_deg: tuple[float, float]
    seen_share: float
    sound: str


def calibrated_camera(video: Path, stream_index: int | None = None) -> Intrinsics:
    """The camera of the calibration file of a video. Raises BadInputError if it has none, or none
    that can be used; OSError."""
    index = index_frames(video, stream_index)
    try:
        found = read_calibration(video, index.width, index.height, index.rotation_deg)
    except CalibrationError as error:
        raise BadInputError(f"{video}: {error}") from error
    if found is None:
        raise BadInputError(
            f"{video} has no calibration, so its lens is not known: put {video.stem}{SIDECAR} "
            f"beside it, or camera.json into its folder (docs/runbook.md, Camera calibration)"
        )
    numbers = found.fx, found.fy, found.cx, found.cy
    return Intrinsics(found.model, *numbers, tuple(found.distortion), "calibration_file")


def camera_of_row(video: Mapping[str, Any]) -> Intrinsics:
    """The calibrated camera of a row of `video_manifest`. Raises BadInputError if it has none."""
    if not video["accepted"]:
        why = f"{video['reject_reason']}: {video['reject_detail']}"
        raise BadInputError(f"{video['uri']} was rejected: {why}")
    if video["intrinsics_source"] != "calibration_file":
        raise BadInputError(
            f"{video['uri']} has no calibration, so its lens is not known: put one beside it "
            "(docs/runbook.md, Camera calibration), and run `ego run` over it again"
        )
    return intrinsics_of(video)


def undistort(
    video: Path,
    out: Path,
    camera: Intrinsics,
    *,
    name: str | None = None,
    stream_index: int | None = None,
    max_fov_deg: float | None = None,
    footage: Mapping[str, str | None] | None = None,
) -> UndistortedVideo:
    """Write `{name}.mp4` and `{name}.camera.json` into a folder. name: by default the video's own;
    footage: what is said beside the video of whose it is, written into `{name}.footage.json`.

    Pictures keep their times to 1/90,000 s, the first one is at 0; sound that MP4 holds is copied.
    The video is there whole or not at all, and not before the files beside it. Raises BadInputError
    if it does not decode, has no lens to undo or may not be used, FileExistsError if the folder has
    a file of that name already, whatever its suffix: it may be the original or its calibration.
    """
    said = {key: value for key, value in (footage or {}).items() if value is not None}
    if said.get("consent") in NO_CONSENTS:
        raise BadInputError(f"{video}: its consent is {said['consent']}, so it is not copied")
    from ego_assets.vision.lenses.undistorted import MAX_FOV_DEG, UndistortedView, has_lens

    if not has_lens(camera):
        raise BadInputError(f"{video}: its camera is a pinhole already: there is nothing to undo")
    name = name or video.stem
    path, beside = out / f"{name}.mp4", out / f"{name}{SIDECAR}"
    _refuse_others(out, name)
    index = index_frames(video, stream_index)
    source = ClipFrames(video, 0, len(index), stream_index=stream_index)
    view = UndistortedView.of(camera, source.width, source.height, max_fov_deg or MAX_FOV_DEG)
    # Encoders want even sides: an odd one gets a black row.
    size = source.width + source.width % 2, source.height + source.height % 2
    pinhole = view.camera
    numbers = {n: float(getattr(pinhole, n)) for n in ("fx", "fy", "cx", "cy")}
    sidecar = {"model": pinhole.model, **numbers, "width": size[0], "height": size[1]}
    sound, told = Sound.of(video, float(index.pts[0] * index.time_base))
    out.mkdir(parents=True, exist_ok=True)
    texts = {beside: sidecar} | ({out / f"{name}.footage.json": said} if said else {})
    frames = ((f.pts_s, f.image) for f in view.frames(source.read()))
    try:
        for file, text in texts.items():
            _write_aside(file, json.dumps(text, indent=1) + "\n")
        count = write_mp4(path, frames, crf=CRF, sound=sound)
    except BaseException:
        for file in texts:
            file.unlink(missing_ok=True)
        raise
    return UndistortedVideo(
        str(path),
        str(beside),
        count,
        len(index) - count,
        camera.model,
        pinhole.fx,
        pinhole.fy,
        (_angle(source.width, pinhole.fx), _angle(source.height, pinhole.fy)),
        float(view.valid(source.width, source.height).mean()),
        told,
    )


def _refuse_others(folder: Path, name: str) -> None:
    """Raise FileExistsError if a folder has a video of this name, in any case, or what belongs
    beside one."""
    stems = {f"{name}{kind}".lower() for kind in ("", ".camera", ".footage")}
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            if path.stem.lower() in stems:
                raise FileExistsError(
                    f"{path} is there already: delete it, or choose another --out"
                )


def _angle(side: int, focal: float) -> float:
    return math.degrees(2 * math.atan(side / 2 / focal))


def _write_aside(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_text(text)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
