"""An operator with a row for each picture that it sees, which has the number in the picture."""

from __future__ import annotations

from ego_assets.catalog import TABLES
from ego_assets.objects.settings import MovementSettings
from ego_assets.operator import Carried, ClipInput, ClipOutput
from tests.engine.fake_backends import movement_row
from tests.support.numbered_video import number_of


class NumberingEstimator:
    """`start_frame` is the index of a frame, `displacement_px` the number that its picture has."""

    name = "numbering"
    version = "1"
    quality_tier = "baseline"
    weights_hash = ""

    def __init__(self, settings: MovementSettings) -> None:
        self.settings = settings

    def process(self, clip: ClipInput, carried: Carried | None) -> ClipOutput:
        rows = []
        for frame in clip.frames.read():
            row = movement_row(clip, f"picture-{frame.index}", float(frame.image.shape[1]))
            row |= {"start_frame": frame.index, "end_frame": frame.index + 1}
            rows.append(row | {"displacement_px": float(number_of(frame.image))})
        return ClipOutput({"object_movements": rows})


class FillingDetector:
    """A row for every frame of a clip, also of those that it does not see."""

    name = "filling"
    version = "1"
    quality_tier = "baseline"
    weights_hash = ""

    def __init__(self, settings: MovementSettings) -> None:
        self.settings = settings

    def process(self, clip: ClipInput, carried: Carried | None) -> ClipOutput:
        assert sum(1 for _ in clip.frames.read(max_side_px=16))
        frames = range(clip.clip["start_frame"], clip.clip["end_frame"])
        blank = dict.fromkeys(TABLES["scene_reconstruction"].model_fields)
        rows = [
            blank
            | clip.row(frame, clip.frames.time_of(frame))
            | {
                "world_id": "w",
                "camera_model": "PINHOLE",
                "fx_px": 300.0,
                "fy_px": 300.0,
                "cx_px": 160.0,
                "cy_px": 120.0,
                "distortion": [],
                "motion_kind": "moving",
                "intrinsics_source": "assumed_fov",
                "scale_kind": "arbitrary",
                "is_valid": False,
                "backend": self.name,
                "quality_tier": self.quality_tier,
            }
            for frame in frames
        ]
        return ClipOutput({"scene_reconstruction": rows})
