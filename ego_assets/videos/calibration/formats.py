"""Reads cameras in the formats that people have: ours, COLMAP's, Kalibr's, OpenCV's, ROS's, Aria's.

A format is told by what a file holds, not by its name. Lenses that our models do not have are
fitted by the nearest that they have, and refused if that is not near enough. Not here: which file
belongs to a video (`sidecars`), what a camera must be (`camera`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn

import numpy as np

from ego_assets.videos.calibration.camera import Calibration, CalibrationError, checked
from ego_assets.videos.calibration.fitting import fitted

MAX_DIGITS = 300
"""Of a whole number, also in fields that nobody reads: more than any has."""
MAX_YAML_BYTES = 2**16
"""YAML is read slowly, and calibrations are small."""
_MAX_NUMBERS = 64


class GivenCamera(NamedTuple):
    """A camera, and whether it is that of the picture as stored, which may be turned.

    Ours is of the upright picture; other tools are shown what is in the file.
    """

    camera: Calibration
    is_stored: bool


def parse(data: bytes) -> GivenCamera:
    """The camera in a calibration file. Raises CalibrationError."""
    if not data.strip():
        raise CalibrationError("it is empty")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CalibrationError("it is not UTF-8 text") from None
    try:
        if text.lstrip()[:1] in "{[":
            return _of_json(text)
        if _is_colmap(text):
            return GivenCamera(_of_colmap(text), True)
        return _of_yaml(text)
    except CalibrationError:
        raise
    except (RecursionError, MemoryError):
        raise CalibrationError("it is nested too deep") from None
    except (ArithmeticError, LookupError, TypeError, ValueError):
        raise CalibrationError("a number in it is missing, or is none") from None


# -- JSON: ours, and Aria's ----------------------------------------------------------------------


def _of_json(text: str) -> GivenCamera:
    try:
        found = json.loads(
            text,
            parse_int=_whole_number,
            parse_constant=_refuse_constant,
            object_pairs_hook=_without_duplicates,
        )
    except CalibrationError:
        raise
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise CalibrationError(f"it is not JSON ({where})") from None
    except (RecursionError, MemoryError):
        raise CalibrationError("it is nested too deep") from None
    except ValueError:  # whatever else a number may be
        raise CalibrationError("it is not JSON") from None
    if not isinstance(found, dict):
        raise CalibrationError("it is not a JSON object")
    inner = found.get("calibration", found)
    if isinstance(inner, dict) and "params" in inner:
        return GivenCamera(_of_aria(inner), True)
    return GivenCamera(checked(found), False)


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


def _of_aria(said: Mapping[str, Any]) -> Calibration:
    """A camera of projectaria_tools."""
    model = str(said.get("model", "")).rpartition(".")[2].upper()
    numbers = _numbers(said["params"])
    size = _size(said.get("image_size"))
    if model == "LINEAR":
        return _camera("PINHOLE", numbers[:4], [], size)
    if model == "SPHERICAL":
        return _camera("OPENCV_FISHEYE", numbers[:4], [0.0] * 4, size)
    if model == "KANNALA_BRANDT_K3":
        return _camera("OPENCV_FISHEYE", numbers[:4], numbers[4:8], size)
    if model == "FISHEYE624" and len(numbers) in (15, 16):
        numbers = numbers if len(numbers) == 16 else [numbers[0], *numbers]
        return _fit("OPENCV_FISHEYE", numbers[:4], lambda rays: _fisheye624(rays, numbers), size)
    raise CalibrationError(
        "its model is none of LINEAR, SPHERICAL, KANNALA_BRANDT_K3 and FISHEYE624"
    )


def _fisheye624(rays: np.ndarray, numbers: list[float]) -> np.ndarray:
    """Pixels of (N, 2) normalised points."""
    fx, fy, cx, cy = numbers[:4]
    radial, tangential, prism = numbers[4:10], np.array(numbers[10:12]), numbers[12:16]
    radius = np.maximum(np.linalg.norm(rays, axis=1), 1e-12)
    angle = np.arctan(radius)
    powers = sum(k * angle ** (2 * i + 2) for i, k in enumerate(radial))
    at = rays / radius[:, None] * (angle * (1 + powers))[:, None]
    square = (at**2).sum(axis=1)
    shift = 2 * (at @ tangential)[:, None] * at + square[:, None] * tangential
    shift[:, 0] += prism[0] * square + prism[1] * square**2
    shift[:, 1] += prism[2] * square + prism[3] * square**2
    pixels: np.ndarray = (at + shift) * [fx, fy] + [cx, cy]
    return pixels


# -- COLMAP: cameras.txt -------------------------------------------------------------------------

_COLMAP: dict[str, tuple[str, Callable[[list[float]], list[float]], int]] = {
    "SIMPLE_PINHOLE": ("PINHOLE", lambda p: [p[0], *p], 3),
    "PINHOLE": ("PINHOLE", lambda p: p, 4),
    "SIMPLE_RADIAL": ("OPENCV", lambda p: [p[0], *p, 0.0, 0.0, 0.0], 4),
    "RADIAL": ("OPENCV", lambda p: [p[0], *p, 0.0, 0.0], 5),
    "OPENCV": ("OPENCV", lambda p: p, 8),
    "SIMPLE_RADIAL_FISHEYE": ("OPENCV_FISHEYE", lambda p: [p[0], *p, 0.0, 0.0, 0.0], 4),
    "RADIAL_FISHEYE": ("OPENCV_FISHEYE", lambda p: [p[0], *p, 0.0, 0.0], 5),
    "OPENCV_FISHEYE": ("OPENCV_FISHEYE", lambda p: p, 8),
}
"""COLMAP's model → ours, its parameters as fx fy cx cy and coefficients, how many it has."""


def _colmap_lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line.strip() and line[0] != "#"]


def _is_colmap(text: str) -> bool:
    lines = _colmap_lines(text)
    return bool(lines) and all(len(x) > 6 and x[0].isdigit() and x[2].isdigit() for x in lines)


def _of_colmap(text: str) -> Calibration:
    cameras = {tuple(line[1:]) for line in _colmap_lines(text)}
    if len(cameras) > 1:
        raise CalibrationError(f"it holds {len(cameras)} cameras: keep that of this video")
    name, width, height, *rest = cameras.pop()
    size = _size([int(width), int(height)])
    numbers = _numbers([float(n) for n in rest[:_MAX_NUMBERS]])
    if name == "FULL_OPENCV" and len(numbers) == 12:
        numbers[2:4] = [c - 0.5 for c in numbers[2:4]]
        return _of_opencv(numbers[:4], numbers[4:], size)
    if name not in _COLMAP:
        raise CalibrationError(f"its model is none of {', '.join(_COLMAP)} and FULL_OPENCV")
    model, ours, count = _COLMAP[name]
    if len(numbers) != count:
        raise CalibrationError(f"a camera of its model has {count} parameters")
    fx, fy, cx, cy, *lens = ours(numbers)
    # There the corner of the first pixel is at 0, 0.
    return _camera(model, [fx, fy, cx - 0.5, cy - 0.5], lens, size)


# -- YAML: Kalibr's, OpenCV's, ROS's -------------------------------------------------------------


def _of_yaml(text: str) -> GivenCamera:
    if len(text) > MAX_YAML_BYTES:
        raise CalibrationError(f"it is YAML of more than {MAX_YAML_BYTES // 2**10} KiB")
    found = _load_yaml(text)
    if not isinstance(found, dict):
        raise CalibrationError("it is none of the known formats: JSON, COLMAP's cameras.txt, YAML")
    cameras = [v for k, v in found.items() if isinstance(v, dict) and "camera_model" in v]
    if "camera_model" in found:
        cameras = [found]
    if len(cameras) > 1:
        raise CalibrationError(f"it holds {len(cameras)} cameras: keep that of this video")
    if cameras:
        return GivenCamera(_of_kalibr(cameras[0]), True)
    if "fx" in found:
        return GivenCamera(checked(found), False)
    return GivenCamera(_of_opencv_file(found), True)


def _load_yaml(text: str) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """Safe, without references, which could blow up a small file."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise CalibrationError("it holds references (*), which are not followed")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            found = super().construct_mapping(node, deep)
            if len(found) < len(node.value):
                raise CalibrationError("an object in it has two values of one name")
            return found

    def matrix(loader: Any, node: Any) -> Any:
        return loader.construct_mapping(node, deep=True)

    Loader.add_constructor("tag:yaml.org,2002:opencv-matrix", matrix)
    if text.startswith("%YAML"):  # OpenCV writes a directive that is none
        text = text.partition("\n")[2]
    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise CalibrationError(f"it is not YAML{where}") from None


def _of_kalibr(said: Mapping[str, Any]) -> Calibration:
    if said["camera_model"] != "pinhole":
        raise CalibrationError("its camera_model is not pinhole")
    numbers, size = _numbers(said["intrinsics"]), _size(said.get("resolution"))
    lens = _numbers(said.get("distortion_coeffs") or [])
    kind = said.get("distortion_model") or "none"
    models = {"none": ("PINHOLE", 0), "radtan": ("OPENCV", 4), "equidistant": ("OPENCV_FISHEYE", 4)}
    if kind not in models:
        raise CalibrationError("its distortion_model is none of radtan, equidistant, none")
    model, count = models[kind]
    return _camera(model, numbers[:4], lens[:count], size)


_NAMES = {
    "matrix": ("camera_matrix", "cameramatrix", "k", "intrinsics", "intrinsic_matrix"),
    "lens": ("distortion_coefficients", "dist_coeffs", "distcoeffs", "dist_coeff", "d"),
    "width": ("image_width", "imagewidth", "width"),
    "height": ("image_height", "imageheight", "height"),
    "size": ("image_size", "imagesize", "resolution"),
}


def _of_opencv_file(found: Mapping[Any, Any]) -> Calibration:
    """A camera as `cv::FileStorage` and ROS's `camera_calibration` write it."""
    lower = {str(k).lower(): v for k, v in found.items()}

    def get(what: str) -> Any:
        return next((lower[n] for n in _NAMES[what] if n in lower), None)

    matrix = _matrix_numbers(get("matrix"))
    if len(matrix) != 9:
        raise CalibrationError("it has no camera_matrix of 3 x 3 numbers")
    if matrix[1] or (matrix[8] and matrix[8] != 1):
        raise CalibrationError("its camera_matrix has a skew, or is scaled")
    lens = _matrix_numbers(get("lens"))
    size = _size(get("size"), get("width"), get("height"))
    numbers = [matrix[0], matrix[4], matrix[2], matrix[5]]
    kind = str(lower.get("distortion_model", "")).lower()
    is_fisheye = kind in ("equidistant", "fisheye") or lower.get("fisheye_model") in (1, True)
    if is_fisheye:
        return _camera("OPENCV_FISHEYE", numbers, lens, size)
    return _of_opencv(numbers, lens, size)


def _matrix_numbers(said: Any) -> list[float]:
    if isinstance(said, Mapping):
        said = said.get("data")
    if isinstance(said, list) and said and isinstance(said[0], list):
        said = [number for row in said[:16] for number in row[:16]]
    return _numbers(said or [])


def _of_opencv(
    numbers: list[float], lens: list[float], size: tuple[int, int] | None
) -> Calibration:
    """A camera with 0, 4, 5, 8 or more of OpenCV's coefficients: k1 k2 p1 p2 k3 k4 k5 k6."""
    if not any(lens):
        return _camera("PINHOLE", numbers, [], size)
    if len(lens) < 4 or any(lens[8:]):
        raise CalibrationError("it has other distortion coefficients than k1 k2 p1 p2 k3 k4 k5 k6")
    if not any(lens[4:]):
        return _camera("OPENCV", numbers, lens[:4], size)
    k1, k2, p1, p2, k3, k4, k5, k6 = [*lens[:8], *[0.0] * (8 - len(lens[:8]))]

    def project(rays: np.ndarray) -> np.ndarray:
        x, y = rays.T
        square = x**2 + y**2
        radial = 1 + square * (k1 + square * (k2 + square * k3))
        radial /= 1 + square * (k4 + square * (k5 + square * k6))
        at = np.stack(
            [
                x * radial + 2 * p1 * x * y + p2 * (square + 2 * x**2),
                y * radial + p1 * (square + 2 * y**2) + 2 * p2 * x * y,
            ],
            axis=1,
        )
        return at * numbers[:2] + numbers[2:4]

    return _fit("OPENCV", numbers[:4], project, size)


# -- numbers -------------------------------------------------------------------------------------


def _camera(
    model: str, numbers: list[float], lens: list[float], size: tuple[int, int] | None
) -> Calibration:
    fx, fy, cx, cy = numbers
    width, height = size or (None, None)
    return checked(
        {
            "model": model,
            "fx": fx,
            "fy": fy,
            "cx": cx,
            "cy": cy,
            "distortion": list(lens),
            "width": width,
            "height": height,
        }
    )


def _fit(
    model: str,
    numbers: list[float],
    project: Callable[[np.ndarray], np.ndarray],
    size: tuple[int, int] | None,
) -> Calibration:
    if size is None:
        raise CalibrationError("it does not say the size of the picture that it is of")
    near = fitted(model, numbers, project, size)
    return _camera(model, near[:4], near[4:], size)


def _numbers(said: Any) -> list[float]:
    if not isinstance(said, list) or len(said) > _MAX_NUMBERS:
        raise CalibrationError("a list of numbers in it is none, or too long")
    found = [float(n) for n in said if not isinstance(n, str | bool)]
    if len(found) < len(said) or not all(math.isfinite(n) for n in found):
        raise CalibrationError("a list of numbers in it holds what is no finite number")
    return found


def _size(said: Any, width: Any = None, height: Any = None) -> tuple[int, int] | None:
    if isinstance(said, list) and len(said) == 2:
        width, height = said
    if width is None or height is None:
        return None
    if not all(isinstance(n, int | float) and 0 < n < 2**20 for n in (width, height)):
        raise CalibrationError("the size of its picture is none")
    return int(width), int(height)
