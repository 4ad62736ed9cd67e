"""Operators that write the number in a picture into each row, so that a whole graph can be held
against what its files show. `box[0]` of a row, and `inliers` of a camera, are that number; the
label of a detection is the colour in the middle of the picture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ego_assets.hands.settings import HandPoseSettings
from ego_assets.hands.skeleton import placed_columns
from ego_assets.masks.settings import SegmentSettings
from ego_assets.operator import Carried, ClipInput, ClipOutput
from ego_assets.rows import SIDES
from ego_assets.scene.settings import ReconstructSettings
from ego_assets.vision.rle import encode_mask
from tests.episodes.made_footage import open_hand
from tests.support.numbered_video import number_of

TIER = {"backend": "numbered", "quality_tier": "baseline"}


class _Numbered:
    name = "numbered"
    version = "1"
    quality_tier = "baseline"
    weights_hash = ""


def seen(clip: ClipInput) -> Iterator[tuple[dict[str, Any], int, float]]:
    """(columns of a row, number, time) of every picture."""
    for row, image, second in _pictures(clip):
        yield row, number_of(image), second


def _pictures(clip: ClipInput) -> Iterator[tuple[dict[str, Any], np.ndarray, float]]:
    for frame in clip.frames.read():
        yield clip.row(frame.index, frame.pts_s) | TIER, frame.image, frame.pts_s


class NumberedSegmenter(_Numbered):
    def __init__(self, settings: SegmentSettings) -> None:
        self.settings = settings

    def process(self, clip: ClipInput, carried: Carried | None) -> ClipOutput:
        tables: dict[str, list[dict[str, Any]]] = {
            "detections": [],
            "object_masks": [],
            "hand_masks": [],
        }
        mask = np.zeros((clip.frames.height, clip.frames.width), bool)
        mask[150:180, 20:60] = True
        of_mask = {"area_px": int(mask.sum()), "height_px": mask.shape[0]}
        of_mask |= {"width_px": mask.shape[1], "rle": encode_mask(mask)}
        take = clip.clip["take_id"]
        for row, image, _ in _pictures(clip):
            number = number_of(image)
            colour = image[image.shape[0] // 2, image.shape[1] // 2]
            box = {"box": [float(number), 150.0, 400.0, 180.0], "score": 0.9}
            found = {"detection_index": 0, "side": "left"}
            found |= {"label": " ".join(map(str, colour))}
            tables["detections"].append(row | box | found)
            thing = {"track_id": f"{take}-o000", "label": "object"}
            tables["object_masks"].append(row | box | of_mask | thing)
            for side in SIDES:
                hand = {"track_id": f"{take}-h{side}", "label": "hand", "side": side}
                tables["hand_masks"].append(row | box | of_mask | hand | {"is_wearer": True})
        return ClipOutput(tables)


class NumberedHands(_Numbered):
    def __init__(self, settings: HandPoseSettings) -> None:
        self.settings = settings

    def process(self, clip: ClipInput, carried: Carried | None) -> ClipOutput:
        rows = []
        for row, number, second in seen(clip):
            circle = 0.1 * np.array([np.cos(np.pi * second), np.sin(np.pi * second), 5.0])
            for side in SIDES:
                joints = open_hand(side) + circle - [0.3 if side == "left" else 0.0, 0, 0]
                rows.append(
                    row
                    | placed_columns(joints, side)
                    | {
                        "track_id": f"{clip.clip['take_id']}-h{side}",
                        "side": side,
                        "is_valid": True,
                        "is_wearer": True,
                        "invalid_reason": None,
                        "joints_origin": "measured",
                        "joints_px": (joints[:, :2] / joints[:, 2:] * 300 + [160, 120]).tolist(),
                        "mano_pose": None,
                        "mano_betas": None,
                        "box": [float(number), 100.0, 400.0, 180.0],
                        "score": 0.9,
                    }
                )
        return ClipOutput({"hand_poses": rows})


class NumberedCameras(_Numbered):
    def __init__(self, settings: ReconstructSettings) -> None:
        self.settings = settings

    def process(self, clip: ClipInput, carried: Carried | None) -> ClipOutput:
        place = {
            "world_id": clip.clip["take_id"],
            "is_valid": True,
            "invalid_reason": None,
            "world_from_camera_m": [0.0, 0.0, 0.0],
            "world_from_camera_xyzw": [0.0, 0.0, 0.0, 1.0],
            "motion_kind": "static",
            "registration": "static",
            "inlier_share": 1.0,
            "reprojection_error_px": 0.5,
            "scale_kind": "metric",
            "scale_spread": None,
            "scale_samples": None,
            "camera_model": "PINHOLE",
            "fx_px": 300.0,
            "fy_px": 300.0,
            "cx_px": 160.0,
            "cy_px": 120.0,
            "distortion": [],
            "intrinsics_source": "assumed_fov",
            "points_uri": None,
        }
        rows = [row | place | {"inliers": number} for row, number, _ in seen(clip)]
        return ClipOutput({"scene_reconstruction": rows})
