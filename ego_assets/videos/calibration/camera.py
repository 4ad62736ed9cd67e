"""A camera as a calibration file gives it: checked once, and brought to the picture of its video.

No message quotes what is in a file: it may be one that the reader of the message must not see.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

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
    """A camera in pixels; the middle of the first pixel is at 0, 0."""

    model_config = ConfigDict(extra="ignore", strict=True)

    model: Literal["PINHOLE", "OPENCV", "OPENCV_FISHEYE"] = "PINHOLE"
    fx: float = Field(gt=0, allow_inf_nan=False)
    fy: float = Field(gt=0, allow_inf_nan=False)
    cx: float = Field(allow_inf_nan=False)
    cy: float = Field(allow_inf_nan=False)
    distortion: list[float] = Field(default=[], max_length=4)
    width: int | None = Field(default=None, gt=0, le=2**20)
    height: int | None = Field(default=None, gt=0, le=2**20)

    def of_picture(self, width: int, height: int) -> Calibration:
        """Return the camera of a picture of this size and the same aspect.

        Raises CalibrationError if it is that of a picture with another one.
        """
        own_width, own_height = self.width or width, self.height or height
        if (own_width, own_height) == (width, height):
            return self
        if not same_aspect((own_width, own_height), (width, height)):
            raise CalibrationError(
                "width and height are those of another picture: the one of this video has "
                f"{width} x {height}"
            )
        across, down = width / own_width, height / own_height
        return self.model_copy(
            update={
                "fx": self.fx * across,
                "fy": self.fy * down,
                # Pixel centres lie at half-integers.
                "cx": (self.cx + 0.5) * across - 0.5,
                "cy": (self.cy + 0.5) * down - 0.5,
                "width": width,
                "height": height,
            }
        )

    def turned(self, width: int, height: int, clockwise_deg: int) -> Calibration:
        """Return the camera of the picture, of this size as stored, turned upright."""
        camera = self
        for _ in range(clockwise_deg // 90 % 4):
            lens = list(camera.distortion)
            if camera.model == "OPENCV":
                lens = [lens[0], lens[1], lens[3], -lens[2]]
            camera = camera.model_copy(
                update={
                    "fx": camera.fy,
                    "fy": camera.fx,
                    "cx": height - 1 - camera.cy,
                    "cy": camera.cx,
                    "distortion": lens,
                    "width": height,
                    "height": width,
                }
            )
            width, height = height, width
        return camera


def same_aspect(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Return whether one picture is the other one resized, give or take a pixel."""
    return abs(size[1] * other[0] / size[0] - other[1]) <= 1


def checked(found: dict[str, object]) -> Calibration:
    """Make a camera of what a file says. Raises CalibrationError."""
    for name in ("width", "height"):
        value = found.get(name)
        if isinstance(value, float) and value.is_integer():
            found[name] = int(value)  # 1920.0, as some tools write it
    try:
        return Calibration.model_validate(found)
    except ValidationError as error:
        raise CalibrationError(_fault(error)) from None


def _fault(error: ValidationError) -> str:
    """The first fault: the field's name, and what is wrong with it."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    return f"{name} {_FAULTS.get(first['type'], 'cannot be used')}"


def check_lens(camera: Calibration) -> None:
    """Raise CalibrationError unless a model has the coefficients that it needs."""
    wanted = COEFFICIENTS[camera.model]
    if len(camera.distortion) != wanted:
        many = "no distortion coefficients" if not wanted else f"{wanted} distortion coefficients"
        raise CalibrationError(f"a camera of model {camera.model} has {many}")


def check_plausible(camera: Calibration, width: int, height: int) -> None:
    """What is out of these limits is a mistake: no camera has it, and solvers fail on it."""
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
