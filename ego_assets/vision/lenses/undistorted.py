"""What a pinhole camera would see where a lens stood: pictures, masks, points and boxes.

Here: which pinhole camera that is, and the way there and back. Not here: files, tables; the camera
models themselves (`cameras`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import cv2
import numpy as np

from ego_assets.operator import BadInputError, Frame, Intrinsics, intrinsics_of
from ego_assets.vision.cameras import project_points, scaled_intrinsics, undistortion

MAX_FOV_DEG = 100.0
"""A plane stretches what is far off the axis: at 50 degrees a pixel covers 1.6 x 2.4 of those in
the middle, at 60 already 2 x 4."""
_WIDEST_DEG = 89.0
_NEWTON_STEPS = 4
_NOWHERE = -1e4
"""In a map: outside of every picture."""
_LEAST_SLOPE = 0.05
"""Of the middle's: where a lens moves pixels less than that by angle, nothing can be undone."""
_BOX_SIDE = 17
"""Points of each side of a box that are mapped: a lens bends it."""


def has_lens(camera: Intrinsics) -> bool:
    """Whether a camera is no pinhole: straight lines are bent in its pictures."""
    return camera.model == "OPENCV_FISHEYE" or any(camera.distortion)


@dataclass(frozen=True)
class UndistortedView:
    """A camera with a lens, and the pinhole camera in its place that looks the same way.

    source: of the upright picture of width x height; camera: PINHOLE, of a picture of the same size
    and the same shape of pixels. Pictures and masks may be shrunk; points and boxes are of the
    full size, the middle of the first pixel at 0, 0.
    """

    source: Intrinsics
    camera: Intrinsics
    width: int
    height: int
    _maps: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = field(
        default_factory=dict, repr=False, compare=False
    )

    @classmethod
    def of(
        cls, source: Intrinsics, width: int, height: int, max_fov_deg: float = MAX_FOV_DEG
    ) -> UndistortedView:
        """Choose the pinhole camera of a lens.

        Its picture reaches to the middle of all four sides of the lens's, or as far as
        `max_fov_deg` allows across or down; what the lens did not see is black. A camera without
        distortion stays as it is. Raises BadInputError if nothing of the picture is within that
        field of view.
        """
        if not 1 <= max_fov_deg <= 2 * _WIDEST_DEG:
            raise ValueError(f"a field of view of {max_fov_deg:g} degrees: give 1 to 178")
        if not has_lens(source):
            pinhole = dataclasses.replace(source, model="PINHOLE", distortion=())
            return cls(source, pinhole, width, height)
        lens = _Lens(source)
        across, down = (width - 1) / 2, (height - 1) / 2
        sides = np.array([(0, down), (width - 1, down), (across, 0), (across, height - 1)])
        flat, axes = lens.flat(sides), np.array([0, 0, 1, 1])
        widest = math.tan(math.radians(max_fov_deg) / 2)
        far = min(widest, lens.limit)
        outward = np.sign(sides - (source.cx, source.cy)) * far
        reach = np.where(np.isnan(flat), outward, flat.clip(-far, far))[range(4), axes]
        left, right, top, bottom = reach.tolist()
        if right - left < 1e-6 or bottom - top < 1e-6:
            raise BadInputError(
                f"no part of the picture lies within {max_fov_deg:g} degrees around the axis of "
                "its camera"
            )
        shape = source.fx / source.fy
        focal = min((width - 1) / (right - left), shape * (height - 1) / (bottom - top))
        focal = max(focal, across / widest, shape * down / widest)
        camera = Intrinsics(
            "PINHOLE",
            fx=float(focal),
            fy=float(focal / shape),
            cx=float(across - focal * (left + right) / 2),
            cy=float(down - focal / shape * (top + bottom) / 2),
            source=source.source,
        )
        return cls(source, camera, width, height)

    @classmethod
    def of_video(
        cls, video: Mapping[str, Any], max_fov_deg: float = MAX_FOV_DEG
    ) -> UndistortedView:
        """That of a row of `video_manifest`. Raises BadInputError, naming the video."""
        try:
            size = video["width_px"], video["height_px"]
            return cls.of(intrinsics_of(video), *size, max_fov_deg)
        except BadInputError as error:
            raise BadInputError(f"video {video['video_id']}: {error}") from error

    def columns(self) -> dict[str, Any]:
        """The pinhole camera, as columns of `video_manifest` have it."""
        camera = self.camera
        return {
            "camera_model": camera.model,
            "fx_px": camera.fx,
            "fy_px": camera.fy,
            "cx_px": camera.cx,
            "cy_px": camera.cy,
            "distortion": [],
            "intrinsics_source": camera.source,
            "width_px": self.width,
            "height_px": self.height,
        }

    @cached_property
    def is_unchanged(self) -> bool:
        """Whether both cameras are the same pinhole camera: pictures are as they were."""
        is_same = np.array_equal(self.camera.matrix(), self.source.matrix())
        return is_same and not has_lens(self.source)

    def picture(self, image: np.ndarray) -> np.ndarray:
        """Map an (h, w) or (h, w, C) picture, full-size or shrunk; bilinear, black where nothing
        was seen. It may be the picture itself."""
        if self.is_unchanged:
            return image
        maps = self._maps_of(image.shape[1], image.shape[0])
        seen: np.ndarray = cv2.remap(image, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        return seen

    def frames(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """The frames with their pictures mapped."""
        return (dataclasses.replace(each, image=self.picture(each.image)) for each in frames)

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """Map an (h, w) bool mask, full-size or shrunk."""
        return mask if self.is_unchanged else self.picture(mask.astype(np.uint8) * 255) > 127

    def valid(self, width: int, height: int) -> np.ndarray:
        """(height, width) bool: the pixels of a mapped picture of that size that the lens saw."""
        if self.is_unchanged:
            return np.ones((height, width), bool)
        across, down = self._maps_of(width, height)
        inside: np.ndarray = (across >= 0) & (across <= width - 1)
        return inside & (down >= 0) & (down <= height - 1)

    def points(self, points_px: np.ndarray) -> np.ndarray:
        """(..., 2) pixels of the lens's picture to those of the pinhole camera's; NaN beyond what
        the lens model can undo. They may lie outside of the picture."""
        points = np.asarray(points_px, np.float64)
        if self.is_unchanged:
            return points
        flat = self._lens.flat(points.reshape(-1, 2)).reshape(points.shape)
        found: np.ndarray = flat * self._focal + self._centre
        return found

    def points_back(self, points_px: np.ndarray) -> np.ndarray:
        """The way back: (..., 2) pixels of the pinhole camera's picture to those of the lens's; NaN
        where the lens sees nothing."""
        points = np.asarray(points_px, np.float64)
        if self.is_unchanged:
            return points
        flat = (points - self._centre) / self._focal
        return self._lens.pixels(flat.reshape(-1, 2)).reshape(points.shape)

    def boxes(self, boxes_px: np.ndarray) -> np.ndarray:
        """(N, 4) x_min, y_min, x_max, y_max to the boxes around what is in them, cut off at the
        edges of the picture; NaN if nothing of one is in it."""
        return self._boxes(boxes_px, self.points)

    def boxes_back(self, boxes_px: np.ndarray) -> np.ndarray:
        """The way back. A lens bends sides, so a box that comes back is never smaller."""
        return self._boxes(boxes_px, self.points_back)

    def _boxes(self, boxes_px: np.ndarray, way: Any) -> np.ndarray:
        boxes = np.asarray(boxes_px, np.float64).reshape(-1, 4)
        along = np.linspace(0, 1, _BOX_SIDE)
        ends = np.zeros_like(along)
        across = np.concatenate([along, along, ends, ends + 1])
        down = np.concatenate([ends, ends + 1, along, along])
        low, high = boxes[:, None, :2], boxes[:, None, 2:]
        around = way(low + (high - low) * np.stack([across, down], axis=1))
        known = np.isfinite(around).all(axis=2, keepdims=True)
        least = np.where(known, around, np.inf).min(axis=1)
        most = np.where(known, around, -np.inf).max(axis=1)
        last = np.array([self.width - 1, self.height - 1], np.float64)
        is_seen = ((most >= 0) & (least <= last)).all(axis=1, keepdims=True)
        found = np.concatenate([least.clip(0, last), most.clip(0, last)], axis=1)
        return np.where(is_seen, found, np.nan)

    @cached_property
    def _lens(self) -> _Lens:
        return _Lens(self.source)

    @property
    def _focal(self) -> np.ndarray:
        return np.array([self.camera.fx, self.camera.fy])

    @property
    def _centre(self) -> np.ndarray:
        return np.array([self.camera.cx, self.camera.cy])

    def _maps_of(self, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
        """Maps for `cv2.remap` at a size, made once: where each pixel comes from."""
        size = (width, height)
        if size not in self._maps:
            zoom = width / self.width, height / self.height
            camera = scaled_intrinsics(self.camera, *zoom)
            maps = undistortion(scaled_intrinsics(self.source, *zoom), camera.matrix(), size)
            assert maps is not None
            x = (np.arange(width) - camera.cx) / camera.fx
            y = (np.arange(height) - camera.cy) / camera.fy
            beyond = np.hypot(x[None, :], y[:, None]) > self._lens.limit
            for found in maps:
                found[beyond] = _NOWHERE
            self._maps[size] = maps
        return self._maps[size]


class _Lens:
    """A lens model one way and the other, within the angles at which it has an inverse.

    limit: the largest radius on the plane z = 1 of which pixels are known: beyond it a polynomial
    folds back into the picture, and shows things twice.
    """

    def __init__(self, intrinsics: Intrinsics) -> None:
        self._intrinsics = intrinsics
        self._focal = np.array([intrinsics.fx, intrinsics.fy])
        self._centre = np.array([intrinsics.cx, intrinsics.cy])
        radii = np.tan(np.radians(np.linspace(0, _WIDEST_DEG, 4096)))
        lens = intrinsics.distortion
        if intrinsics.model == "OPENCV":
            lens = (*lens[:2], 0.0, 0.0)
        plain = Intrinsics(intrinsics.model, 1.0, 1.0, 0.0, 0.0, lens)
        seen = project_points(plain, np.stack([radii, 0 * radii, 0 * radii + 1], axis=1))[:, 0]
        moved = np.diff(seen)
        folds = np.flatnonzero(moved < _LEAST_SLOPE * moved[0])
        end = int(folds[0]) + 1 if len(folds) else len(radii)
        self._radii, self._seen = radii[:end], seen[:end]
        self.limit = float(radii[end - 1])

    def pixels(self, flat: np.ndarray) -> np.ndarray:
        """(N, 2) points on the plane z = 1 to pixels; NaN beyond the limit."""
        found = np.full(flat.shape, np.nan)
        known = np.linalg.norm(flat, axis=1) <= self.limit
        found[known] = self._project(flat[known])
        return found

    def flat(self, pixels: np.ndarray) -> np.ndarray:
        """(N, 2) pixels to points on the plane z = 1; NaN beyond the limit.

        Begins at the inverse of the radial part, from a table, and mends it by Newton's method:
        OpenCV's inverses stop short of a few hundredths of a pixel, or diverge.
        """
        bent = (pixels - self._centre) / self._focal
        length = np.linalg.norm(bent, axis=1)
        found = np.full(pixels.shape, np.nan)
        known = np.isfinite(length) & (length <= self._seen[-1])
        if not known.any():
            return found
        radius = np.interp(length[known], self._seen, self._radii)
        guess = bent[known] * (radius / np.maximum(length[known], 1e-12))[:, None]
        for _ in range(_NEWTON_STEPS):
            off = self._project(guess) - pixels[known]
            step = 1e-6 * np.maximum(1.0, np.abs(guess).max(axis=1))
            columns = []
            for axis in np.eye(2):
                move = step[:, None] * axis
                rise = self._project(guess + move) - self._project(guess - move)
                columns.append(rise / (2 * step[:, None]))
            slope = np.stack(columns, axis=2)
            guess = guess - np.linalg.solve(slope, off[..., None])[..., 0]
        is_good = np.linalg.norm(self._project(guess) - pixels[known], axis=1) < 0.01
        found[known] = np.where(is_good[:, None], guess, np.nan)
        return found

    def _project(self, flat: np.ndarray) -> np.ndarray:
        return project_points(self._intrinsics, np.column_stack([flat, np.ones(len(flat))]))
