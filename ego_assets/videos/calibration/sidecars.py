"""Finds and reads the calibration file of a video, with care: anybody may have put it there.

`<stem>.camera.json` (or `.yaml`, `.yml`, `.txt`) beside `<stem>.mp4` is that of the video, and
`camera.json` (or the same others) that of every video in its folder that has none of its own. Here:
which file counts, what a file may be, how it is made to fit the video. Not here: formats
(`formats`), the camera models (`ego_assets.vision.cameras`).
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ego_assets.videos.calibration.camera import (
    Calibration,
    CalibrationError,
    check_lens,
    check_plausible,
    same_aspect,
)
from ego_assets.videos.calibration.formats import GivenCamera, parse
from resources.raw.plain_files import OF_STORAGE, NotAFileError, open_regular
from resources.raw.uris import (
    CALIBRATION_SUFFIXES,
    FOLDER_SIDECAR,
    MAX_SIDECAR_BYTES,
    SIDECAR,
)


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
        data = _read(path)
        return None if data is None else _upright(parse(data), width, height, clockwise_deg)
    except CalibrationError as error:
        raise CalibrationError(f"{path.name} is no calibration of this video: {error}") from None


def find_calibration(video: Path) -> Path | None:
    """The calibration file that counts for a video: its own, else that of its folder."""
    own = video.with_suffix(SIDECAR)
    names = (own.with_suffix(s) for s in CALIBRATION_SUFFIXES)
    of_folder = (video.with_name(FOLDER_SIDECAR).with_suffix(s) for s in CALIBRATION_SUFFIXES)
    return next((path for path in (*names, *of_folder) if _is_there(path)), None)


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:  # reading it says what is wrong
        return error.errno != errno.ENAMETOOLONG
    return True


def _upright(found: GivenCamera, width: int, height: int, clockwise_deg: int) -> Calibration:
    """The camera of the upright picture. Raises CalibrationError."""
    camera = found.camera
    check_lens(camera)
    stored = (height, width) if clockwise_deg in (90, 270) else (width, height)
    own = (camera.width or stored[0], camera.height or stored[1])
    # A size that is only the upright picture's says so.
    if found.is_stored and (same_aspect(own, stored) or not same_aspect(own, (width, height))):
        camera = camera.of_picture(*stored).turned(*stored, clockwise_deg)
    else:
        camera = camera.of_picture(width, height)
    check_plausible(camera, width, height)
    return camera


def _read(path: Path) -> bytes | None:
    """The bytes of a calibration file: a small, plain one, reached without leaving the folder."""
    folder = path.parent
    try:
        if path.is_symlink():
            path = _target(path, folder)
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size > MAX_SIDECAR_BYTES:
                raise CalibrationError(f"it is larger than {MAX_SIDECAR_BYTES // 2**20} MiB")
            data = file.read(MAX_SIDECAR_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except NotAFileError as error:
        raise CalibrationError(str(error)) from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # no file can have that name
            return None
        if error.errno in OF_STORAGE | {errno.EIO}:  # it says nothing of the file
            raise OSError(error.errno, error.strerror, str(path)) from error
        why = os.strerror(error.errno) if error.errno else type(error).__name__
        raise CalibrationError(f"it cannot be read ({why})") from error
    if len(data) > MAX_SIDECAR_BYTES:
        raise CalibrationError(f"it is larger than {MAX_SIDECAR_BYTES // 2**20} MiB")
    return data


def _target(link: Path, folder: Path) -> Path:
    """The file that a link leads to, if that lies in the video's folder or below it."""
    try:
        target = Path(os.path.realpath(link, strict=True))
    except FileNotFoundError:
        raise CalibrationError("it is a link that leads to nothing") from None
    except OSError as error:
        why = "in a circle" if error.errno == errno.ELOOP else "to what cannot be read"
        raise CalibrationError(f"it is a link that leads {why}") from None
    if not target.is_relative_to(os.path.realpath(folder)):
        raise CalibrationError("it is a link that leads out of its folder, which is not followed")
    return target
