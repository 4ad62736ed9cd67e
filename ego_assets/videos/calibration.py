"""A video's calibration file: read with care, checked once, and refused with a reason.

`<stem>.camera.json` comes with the raw data, from whoever may put files there. Here: what a file
may be and hold. Not here: which video it belongs to (`probe`), the camera models (`cameras`).
No message quotes what is in a file: it may be one that the reader of the message must not see.
"""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from resources.raw.plain_files import OF_STORAGE, NotAFileError, open_regular
from resources.raw.uris import MAX_SIDECAR_BYTES, SIDECAR

MAX_DIGITS = 300
"""Of a whole number, also in fields that nobody reads: more than any has."""
COEFFICIENTS = {"PINHOLE": 0, "OPENCV": 4, "OPENCV_FISHEYE": 4}
MIN_FOCAL, MAX_FOCAL = 0.1, 30.0
"""Of a plausible focal length over the longer side of the picture: fields of view from 157 degrees
(a fisheye's focal length is that of its centre, and longer) down to two."""
MAX_FOCAL_RATIO = 4.0
"""Of fx and fy: pixels are no longer than that."""
MAX_CENTRE_OFFSET = 3.0
"""Of the principal point from the middle of the picture, in longer sides."""
MAX_COEFFICIENT = 100.0
_FAULTS = {
    "missing": "is missing",
    "finite_number": "is not a finite number",
    "float_type": "is not a number",
    "int_type": "is not a whole number",
    "list_type": "is not a list",
    "greater_than": "is not positive",
    "literal_error": "is none of PINHOLE, OPENCV, OPENCV_FISHEYE",
    "too_long": "is too long",
    "less_than_equal": "is too large",
}
"""Kinds of pydantic's errors, in words: its own messages quote the input."""


class CalibrationError(ValueError):
    """A calibration file cannot be used. The message says why, and quotes nothing of it."""


class Calibration(BaseModel):
    """The camera of the upright, full-size picture, in pixels."""

    model_config = ConfigDict(extra="ignore", strict=True)

    model: Literal["PINHOLE", "OPENCV", "OPENCV_FISHEYE"] = "PINHOLE"
    fx: float = Field(gt=0, allow_inf_nan=False)
    fy: float = Field(gt=0, allow_inf_nan=False)
    cx: float = Field(allow_inf_nan=False)
    cy: float = Field(allow_inf_nan=False)
    distortion: list[float] = Field(default=[], max_length=4)
    width: int | None = Field(default=None, gt=0, le=2**20)
    height: int | None = Field(default=None, gt=0, le=2**20)


def read_calibration(video: Path, width: int, height: int) -> Calibration | None:
    """The calibration beside a video of `width` x `height` upright; None if there is none.

    Raises CalibrationError; OSError if its place is away.
    """
    data = _read(video)
    if data is None:
        return None
    camera = _parse(data)
    if (camera.width or width, camera.height or height) != (width, height):
        raise CalibrationError(
            "width and height are those of another picture: the upright one of this video has "
            f"{width} x {height}"
        )
    _check_plausible(camera, width, height)
    return camera


def _read(video: Path) -> bytes | None:
    """The bytes of a calibration file: a small, plain one, reached without leaving the folder."""
    path = video.with_suffix(SIDECAR)
    try:
        if path.is_symlink():
            path = _target(path, video.parent)
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


def _parse(data: bytes) -> Calibration:
    if not data.strip():
        raise CalibrationError("it is empty")
    try:
        found = json.loads(
            data.decode("utf-8-sig"),
            parse_int=_whole_number,
            parse_constant=_refuse_constant,
            object_pairs_hook=_without_duplicates,
        )
    except CalibrationError:
        raise
    except UnicodeDecodeError:
        raise CalibrationError("it is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise CalibrationError(f"it is not JSON ({where})") from None
    except (RecursionError, MemoryError):
        raise CalibrationError("it is nested too deep") from None
    except ValueError:  # whatever else a number may be
        raise CalibrationError("it is not JSON") from None
    if not isinstance(found, dict):
        raise CalibrationError("it is not a JSON object")
    for name in ("width", "height"):
        if isinstance(found.get(name), float) and found[name].is_integer():
            found[name] = int(found[name])  # 1920.0, as some tools write it
    try:
        return Calibration.model_validate(found)
    except ValidationError as error:
        raise CalibrationError(_fault(error)) from None


def _fault(error: ValidationError) -> str:
    """The first fault: the field's name, and what is wrong with it."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    return f"{name} {_FAULTS.get(first['type'], 'cannot be used')}"


def _whole_number(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise CalibrationError(f"it holds a whole number of over {MAX_DIGITS} digits")
    return int(text)


def _refuse_constant(_: str) -> NoReturn:
    raise CalibrationError("it holds a number that is not finite")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise CalibrationError("an object in it has two values of one name")
    return found


def _check_plausible(camera: Calibration, width: int, height: int) -> None:
    """What is out of these limits is a mistake: no camera has it, and solvers fail on it."""
    wanted = COEFFICIENTS[camera.model]
    if len(camera.distortion) != wanted:
        many = "no distortion coefficients" if not wanted else f"{wanted} distortion coefficients"
        raise CalibrationError(f"a camera of model {camera.model} has {many}")
    longer = max(width, height)
    for name in ("fx", "fy"):
        if not MIN_FOCAL * longer <= getattr(camera, name) <= MAX_FOCAL * longer:
            raise CalibrationError(
                f"{name} is not between {MIN_FOCAL:g} and {MAX_FOCAL:g} times the longer side of "
                "the picture"
            )
    if not 1 / MAX_FOCAL_RATIO <= camera.fx / camera.fy <= MAX_FOCAL_RATIO:
        raise CalibrationError(f"fx and fy differ by more than a factor of {MAX_FOCAL_RATIO:g}")
    for name, middle in (("cx", width / 2), ("cy", height / 2)):
        if abs(getattr(camera, name) - middle) > MAX_CENTRE_OFFSET * longer:
            raise CalibrationError(
                f"{name} is further than {MAX_CENTRE_OFFSET:g} picture sizes from the middle"
            )
    if any(not abs(c) <= MAX_COEFFICIENT for c in camera.distortion):
        raise CalibrationError(f"a distortion coefficient is beyond {MAX_COEFFICIENT:g}")
