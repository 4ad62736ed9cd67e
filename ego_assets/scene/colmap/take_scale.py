"""Which scale a take gets: that of a network that sees depth, else that of the hands in it.

Here: the order, and what a scale has to show for itself. Not here: how one is measured
(`metric_scale`, `hand_scale`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ego_assets.operator import ClipInput, Intrinsics
from ego_assets.scene.colmap.hand_scale import scale_from_hands
from ego_assets.scene.colmap.mapping import SparseMap
from ego_assets.scene.colmap.metric_scale import (
    MetricScale,
    ScaleError,
    SizedDepthSource,
    choose_views,
    measure_scale,
)
from ego_assets.scene.colmap.point_tracks import TrackTable
from ego_assets.scene.colmap.registration import Registration, by_frame
from ego_assets.scene.settings import DepthScaleSettings, ReconstructSettings


def scale_of_take(
    clip: ClipInput,
    tracks: TrackTable,
    scene: SparseMap,
    found: Sequence[Registration],
    intrinsics: Intrinsics,
    settings: ReconstructSettings,
    depth: SizedDepthSource | None,
    notes: dict[str, Any],
) -> MetricScale:
    """The metres of a map. found: a registration for each frame of `tracks`; notes: are told why
    depth gave none. Raises ScaleError with all reasons if nothing gives any."""
    reasons = []
    if depth is not None:
        assert isinstance(settings, DepthScaleSettings)
        try:
            return _by_depth(clip, tracks, scene, found, intrinsics, settings, depth)
        except ScaleError as error:
            reasons.append(str(error))
            notes["no_scale_by_depth"] = str(error)
    try:
        return _by_hands(clip, tracks, scene, found, intrinsics, settings)
    except ScaleError as error:
        raise ScaleError("; ".join([*reasons, str(error)])) from error


def _by_depth(
    clip: ClipInput,
    tracks: TrackTable,
    scene: SparseMap,
    found: Sequence[Registration],
    intrinsics: Intrinsics,
    settings: DepthScaleSettings,
    depth: SizedDepthSource,
) -> MetricScale:
    focal = None if intrinsics.source == "assumed_fov" else intrinsics.fx / clip.frames.width
    views = choose_views(tracks, scene, found, settings.depth_frames)
    scale = measure_scale(clip.frames, views, depth, focal)
    if scale.samples < settings.min_scale_samples:
        raise ScaleError(f"only {scale.samples} mapped points have a depth")
    if scale.spread > settings.max_scale_spread:
        raise ScaleError(f"points disagree about it by {100 * scale.spread:.0f} %")
    return scale


def _by_hands(
    clip: ClipInput,
    tracks: TrackTable,
    scene: SparseMap,
    found: Sequence[Registration],
    intrinsics: Intrinsics,
    settings: ReconstructSettings,
) -> MetricScale:
    hands = clip.tables.get("hand_masks")
    if hands is None:
        raise ScaleError("there are no hand masks")
    zoom = np.array([clip.frames.width, clip.frames.height]) / tracks.size
    scale = scale_from_hands(hands, by_frame(tracks, found), scene.points, intrinsics, zoom)
    if scale.samples < settings.min_scale_hands:
        raise ScaleError(f"only {scale.samples} hands are seen beside mapped points")
    if scale.spread > settings.max_hand_scale_spread:
        raise ScaleError(f"hands disagree about it by {100 * scale.spread:.0f} %")
    return scale
