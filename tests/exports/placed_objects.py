"""Rows of an object that moves along x, a hundredth of a metre a frame."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from tests.episodes.made_footage import MadeVideo
from tests.exports.test_coco import mask_row


def scene_of(video: MadeVideo, **said: Any) -> list[dict[str, Any]]:
    """Rows of `scene_reconstruction` of a video that calibrated itself, but for what `add_rows`
    fills in."""
    lens = {"camera_model": "PINHOLE", "fx_px": 190.0, "fy_px": 190.0, "cx_px": 95.5}
    lens |= {"cy_px": 53.5, "distortion": [], "intrinsics_source": "self_calibrated"}
    return [
        {"video_id": video.video_id, "clip_id": clip["clip_id"], "frame_index": frame}
        | {"pts_s": float(video.pts_s[frame]), **lens, "focal_std_px": 4.0, **said}
        for clip in video.clips
        for frame in range(clip["start_frame"], clip["end_frame"])
    ]


def poses_of_cup(
    video: MadeVideo, invalid: Container[int] = (), number: int = 1, **said: Any
) -> dict[str, list[dict[str, Any]]]:
    """Rows of `clips`, `object_poses` and `object_masks`."""
    poses, masks = [], []
    for clip in video.clips:
        for frame in range(clip["start_frame"], clip["end_frame"]):
            row = {
                "video_id": video.video_id,
                "clip_id": clip["clip_id"],
                "frame_index": frame,
                "pts_s": float(video.pts_s[frame]),
                "is_context": frame < clip["start_frame"] + clip["context_frames"],
                "track_id": f"{clip['take_id']}-o{number:03d}",
            }
            good = frame not in invalid
            at = [frame / 100, float(number), 0.5]
            poses.append(
                row
                | {
                    "is_valid": good,
                    "invalid_reason": None if good else "few features agree",
                    "camera_from_object_m": at if good else None,
                    "camera_from_object_xyzw": [0.0, 0.0, 0.0, 1.0] if good else None,
                    "world_from_object_m": at if good else None,
                    "world_from_object_xyzw": [0.0, 0.0, 0.0, 1.0] if good else None,
                    "object_frame": "mesh",
                    "scale_kind": "metric",
                    "score": 0.9,
                    "backend": "made",
                    "quality_tier": "baseline",
                }
                | said
            )
            masks.append(mask_row(row, "cup"))
    clips = [dict(clip) for clip in video.clips]
    return {"clips": clips, "object_poses": poses, "object_masks": masks}
