"""Finds and reads the calibration file of a video, with care: anybody may have put it there.

`<stem>.camera.json` (or `.yaml`, `.yml`, `.txt`) beside `<stem>.mp4` is that of the video, and
`camera.json` (or the same others) that of every video in its folder that has none of its own. Here:
which file counts, what a file may be, how it is made to fit the video. Not here: formats
(`formats`), the camera models (`ego_assets.vision.cameras`).
"""

from __future__ import annotations

import errno
from pathlib import Path

from ego_assets.videos.calibration.camera import (
    Calibration,
    CalibrationError,
    check_lens,
    check_plausible,
    is_nearly,
    same_aspect,
)
from ego_assets.videos.calibration.formats import GivenCamera, parse
from resources.raw.plain_files import NotAFileError, read_beside
from resources.raw.uris import MAX_SIDECAR_BYTES, path_of, sidecars_of, uri_of


def read_calibration(
    video: Path, width: int, height: int, clockwise_deg: int = 0
) -> Calibration | None:
    """The calibration of a video of `width` x `height` upright; None if there is none.

    clockwise_deg: by which the stored picture is turned. Raises CalibrationError that names the
    file; OSError if its place is away.
    """
    path = find_calibration(video)
    if path is None:
        return None
    try:
        data = read_beside(path, MAX_SIDECAR_BYTES)
        return None if data is None else _upright(parse(data), width, height, clockwise_deg)
    except (CalibrationError, NotAFileError) as error:
        raise CalibrationError(f"{path.name} is no calibration of this video: {error}") from None


def find_calibration(video: Path) -> Path | None:
    """The calibration file that counts for a video: its own, else that of its folder."""
    places = map(path_of, sidecars_of(uri_of(video)))
    return next((path for path in places if _is_there(path)), None)


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:  # reading it says what is wrong
        return error.errno != errno.ENAMETOOLONG
    return True


def _upright(found: GivenCamera, width: int, height: int, clockwise_deg: int) -> Calibration:
    """The camera of the upright picture. Raises CalibrationError, also if it is not known whether
    it is that of the picture as stored, and makes a difference."""
    camera = found.camera
    check_lens(camera)
    upright = [(camera, 0, (width, height))]
    if not found.is_upright and clockwise_deg:
        stored = (height, width) if clockwise_deg in (90, 270) else (width, height)
        upright.append((camera, clockwise_deg, stored))
    own = (camera.width or 0, camera.height or 0)
    fits = [u for u in upright if 0 in own or same_aspect(own, u[2])] or upright[:1]
    cameras = [camera.of_picture(*size).turned(*size, turn) for camera, turn, size in fits]
    if not all(is_nearly(each, cameras[0]) for each in cameras[1:]):
        raise CalibrationError(
            f"the picture of this video is turned by {clockwise_deg} degrees to be upright, and "
            "nothing says which of the two pictures this camera is of: write it as "
            '{"model", "fx", "fy", "cx", "cy", "distortion"} in JSON, for the upright '
            "one, which is what ffmpeg and OpenCV give"
        )
    check_plausible(cameras[0], width, height)
    return cameras[0]
