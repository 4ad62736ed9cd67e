"""The lens that a clip is mapped with: the one given, the take's, or one that its map found.

Not here: the map (`mapping`).
"""

from __future__ import annotations

import dataclasses

from ego_assets.operator import ClipInput, Intrinsics
from ego_assets.scene.colmap.mapping import MappingError
from ego_assets.scene.colmap.take_alignment import Anchors
from ego_assets.vision.cameras import scaled_intrinsics

_FOCAL_RANGE = (0.4, 2.5)
_MAX_DISTORTION = 0.6


def start_intrinsics(given: Intrinsics, anchors: Anchors | None) -> Intrinsics:
    """A take keeps the lens that its first clip found."""
    return given if anchors is None or given.source != "assumed_fov" else anchors.intrinsics


def calibrated(start: Intrinsics, work: Intrinsics, found: Intrinsics) -> Intrinsics:
    """The full-size picture's intrinsics of those `found` for the shrunken one.

    Raises `MappingError` for a lens that no camera has: the geometry did not fix it.
    """
    ratio = found.fx / work.fx
    bend = max((abs(d) for d in found.distortion), default=0.0)
    if not _FOCAL_RANGE[0] <= ratio <= _FOCAL_RANGE[1] or bend > _MAX_DISTORTION:
        raise MappingError(
            "lens not determined",
            f"{ratio:.2f} times the assumed focal length, distortion {bend:.2f}",
        )
    deviation = found.focal_std_px
    return dataclasses.replace(
        start,
        focal_std_px=None if deviation is None else start.fx / work.fx * deviation,
        model=found.model,
        fx=start.fx * ratio,
        fy=start.fy * ratio,
        distortion=found.distortion,
        source="self_calibrated",
    )


def work_intrinsics(full: Intrinsics, size: tuple[int, int], clip: ClipInput) -> Intrinsics:
    width, height = clip.frames.width, clip.frames.height
    return scaled_intrinsics(full, max(1, size[0]) / width, max(1, size[1]) / height)
