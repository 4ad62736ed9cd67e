"""The columns of `video_manifest` that say what camera a video was taken with.

Not here: calibration files (`sidecars`), the camera models (`ego_assets.vision.cameras`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ego_assets.media.frame_index import FrameIndex
from ego_assets.videos.calibration.camera import Calibration, CalibrationError
from ego_assets.videos.calibration.sidecars import read_calibration
from ego_assets.videos.settings import ManifestSettings


def camera_columns(path: Path, index: FrameIndex, settings: ManifestSettings) -> dict[str, Any]:
    """Columns of a video: from its calibration file if it has one, else assumed.

    Raises CalibrationError that names the file; OSError if its place is away.
    """
    camera = read_calibration(path, index.width, index.height, index.rotation_deg)
    source = "calibration_file"
    if camera is None:
        path.lstat()  # raises if it is the folder that is not there
        longer = max(index.width, index.height)
        focal = longer / 2 / math.tan(math.radians(settings.assumed_horizontal_fov_deg) / 2)
        middle = ((index.width - 1) / 2, (index.height - 1) / 2)
        camera = Calibration(fx=focal, fy=focal, cx=middle[0], cy=middle[1])
        source = "assumed_fov"
    return _columns(camera) | {"intrinsics_source": source}


def _columns(camera: Calibration) -> dict[str, Any]:
    columns: dict[str, Any] = {"camera_model": camera.model, "distortion": camera.distortion}
    for name in ("fx", "fy", "cx", "cy"):
        columns[f"{name}_px"] = getattr(camera, name)
    return columns


def is_calibrated_by(row: Mapping[str, Any], video: Path) -> bool:
    """Whether a manifest row has the camera of the calibration of a video, if there is one.

    Raises OSError if the file is there and cannot be read.
    """
    try:
        camera = read_calibration(
            video, row["width_px"], row["height_px"], row["rotation_deg"] or 0
        )
    except CalibrationError:
        return False
    if camera is None or row["intrinsics_source"] != "calibration_file":
        return camera is None and row["intrinsics_source"] != "calibration_file"
    said = _columns(camera)
    # Columns have the precision that the table gives them.
    names = [name for name in said if name.endswith("_px")]
    has, wanted = (
        np.array([*(camera[n] for n in names), *(camera["distortion"] or [])], np.float32)
        for camera in (row, said)
    )
    return row["camera_model"] == said["camera_model"] and np.array_equal(has, wanted)
