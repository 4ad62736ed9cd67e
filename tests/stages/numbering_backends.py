"""An operator with a row for each picture that it sees, which has the number in the picture."""

from __future__ import annotations

from ego_assets.objects.settings import MovementSettings
from ego_assets.operator import Carried, ClipInput, ClipOutput
from tests.operators.numbered_video import number_of
from tests.stages.fake_backends import movement_row


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
