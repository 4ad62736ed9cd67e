"""Masks of hands and objects: are they there, of a sensible size, steady, and of one thing each?

Here: probes of `object_masks` and `hand_masks`. No mask is decoded: boxes and areas are columns.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from ego_assets.masks.association import box_iou
from ego_assets.masks.settings import MaskProbeSettings
from ego_assets.quality.finding import Evidence, Finding, Tracks, Units, judge, probe

TABLES = ("object_masks", "hand_masks")
_BORDER_PX = 1.0
_TRACK = ("clip_id", "track_id", "frame_index", "pts_s")


@probe(
    *TABLES,
    reads=("clip_id", "frame_index"),
    others={"clips": ("clip_id", "start_frame", "end_frame")},
)
def frames_have_masks(evidence: Evidence, settings: MaskProbeSettings) -> Finding:
    """Clips do not stay empty: a model that has gone blind, or black footage, finds nothing."""
    clips = pl.DataFrame(evidence.tables["clips"])
    seen = pl.DataFrame(evidence.rows).group_by("clip_id").agg(pl.col("frame_index").n_unique())
    empty = clips.join(seen, on="clip_id", how="left").select(
        "clip_id",
        share=1
        - pl.col("frame_index").fill_null(0) / (pl.col("end_frame") - pl.col("start_frame")),
    )
    return judge(
        Units.of(empty["clip_id"], empty["share"]),
        settings.max_empty_frame_share,
        "of the frames empty",
        "clips",
        settings.max_empty_clip_share,
        numbers={"mean share of empty frames": float(empty["share"].mean() or 0.0)},  # type: ignore[arg-type]
    )


@probe(*TABLES, reads=(*_TRACK, "area_px", "height_px", "width_px"))
def masks_have_plausible_areas(evidence: Evidence, settings: MaskProbeSettings) -> Finding:
    """A mask is neither a speck nor half of the picture."""
    tracks = Tracks.of(evidence.rows)
    share = tracks.column("area_px") / (
        tracks.column("height_px").astype(np.float64) * tracks.column("width_px")
    )
    is_odd = (share < settings.min_area_share) | (share > settings.max_area_share)
    quartiles = np.percentile(share, [25, 50, 75]) if len(share) else np.full(3, np.nan)
    return judge(
        tracks.units(is_odd, "mean"),
        settings.max_odd_area_share,
        "of its masks",
        "tracks with specks or background",
        settings.tolerated_share,
        numbers={
            f"area share, {name}": float(value)
            for name, value in zip(
                ("first quartile", "median", "third quartile"), quartiles, strict=True
            )
            if np.isfinite(value)
        },
    )


@probe(*TABLES, reads=(*_TRACK, "area_px", "box"))
def masks_do_not_flicker(evidence: Evidence, settings: MaskProbeSettings) -> Finding:
    """From frame to frame a mask keeps its size and place, and it is not gone for an instant.

    The overlap of the boxes stands in for that of the masks: nothing is decoded."""
    tracks = Tracks.of(evidence.rows)
    if len(tracks.group) < 2:
        return judge(
            tracks.units(np.full(len(tracks.group), np.nan), "mean"),
            settings.max_flicker_share,
            "of its frames",
            "tracks that flicker",
            settings.tolerated_share,
        )
    area = np.log(tracks.column("area_px"))
    boxes = tracks.column("box").astype(np.float64)
    jumps = np.full(len(area), np.nan)
    jumps[1:] = (np.abs(np.diff(area)) > np.log(settings.flicker_area_ratio)) | (
        box_iou(boxes[:-1], boxes[1:]) < settings.flicker_box_iou
    )
    jumps[~tracks.is_next] = np.nan
    step = np.diff(tracks.frame, prepend=0)
    same = np.diff(tracks.group, prepend=-1) == 0
    is_short_gap = same & (step > 1) & (tracks.step_s() < settings.flicker_gap_s)
    jumps[is_short_gap] = 1.0
    return judge(
        tracks.units(jumps, "mean"),
        settings.max_flicker_share,
        "of its frames",
        "tracks that flicker",
        settings.tolerated_share,
    )


@probe(*TABLES, reads=("clip_id", "track_id", "frame_index"))
def tracks_are_not_fragmented(evidence: Evidence, settings: MaskProbeSettings) -> Finding:
    """A thing keeps its track: a clip has not many more tracks than its fullest frame."""
    rows = pl.DataFrame(evidence.rows)
    at_once = (
        rows.group_by("clip_id", "frame_index").len().group_by("clip_id").agg(pl.col("len").max())
    )
    tracks = rows.group_by("clip_id").agg(pl.col("track_id").n_unique()).join(at_once, on="clip_id")
    tracks = tracks.with_columns(ratio=pl.col("track_id") / pl.col("len")).sort("clip_id")
    return judge(
        Units.of(tracks["clip_id"], tracks["ratio"]),
        settings.max_tracks_per_thing,
        "tracks a thing",
        "clips with fragmented tracks",
        settings.tolerated_share,
        numbers={"most tracks in a clip": float(tracks["track_id"].max() or 0)},  # type: ignore[arg-type]
    )


@probe(*TABLES, reads=("clip_id", "frame_index", "track_id"))
def frames_are_not_crowded(evidence: Evidence, settings: MaskProbeSettings) -> Finding:
    """A frame has as many hands or objects as a person can see: noise makes masks by the dozen."""
    limit = (
        settings.max_hand_tracks_at_once
        if evidence.table == "hand_masks"
        else settings.max_object_tracks_at_once
    )
    counts = pl.DataFrame(evidence.rows).group_by("clip_id", "frame_index").len()
    fullest = (
        counts.sort("clip_id", "frame_index")
        .group_by("clip_id", maintain_order=True)
        .agg(pl.col("len").max(), pl.col("frame_index").get(pl.col("len").arg_max()))
    )
    units = Units(
        fullest["clip_id"].to_list(),
        fullest["frame_index"].to_list(),
        fullest["len"].to_numpy().astype(np.float64),
    )
    return judge(units, limit, "masks in a frame", "crowded clips", settings.tolerated_share)


@probe(*TABLES, reads=(*_TRACK, "box", "height_px", "width_px"))
def masks_do_not_hug_the_border(evidence: Evidence, settings: MaskProbeSettings) -> Finding:
    """A mask that touches three sides of the picture is the background, or a vignette."""
    tracks = Tracks.of(evidence.rows)
    boxes = tracks.column("box")
    size = np.column_stack([tracks.column("width_px"), tracks.column("height_px")])
    sides = (boxes[:, :2] <= _BORDER_PX).sum(axis=1)
    sides = sides + (boxes[:, 2:] >= size - _BORDER_PX).sum(axis=1)
    return judge(
        tracks.units(sides >= settings.border_sides, "mean"),
        settings.max_hugging_share,
        "of its masks",
        "tracks that hug the border",
        settings.tolerated_share,
    )


PROBES = (
    *frames_have_masks,
    *masks_have_plausible_areas,
    *masks_do_not_flicker,
    *tracks_are_not_fragmented,
    *frames_are_not_crowded,
    *masks_do_not_hug_the_border,
)
