"""Episodes: is all footage accounted for, is enough of it kept, are trajectories clean?

Here: probes of the tables of episodes.
"""

from __future__ import annotations

import polars as pl

from ego_assets.episodes.settings import EpisodeProbeSettings
from ego_assets.quality.finding import Evidence, Finding, Units, judge, probe

_SPAN = ("video_id", "start_pts_s", "end_pts_s")


def _accounted(evidence: Evidence) -> pl.DataFrame:
    """Accepted videos with their duration, the seconds in bins, and those that are kept."""
    length = pl.col("end_pts_s") - pl.col("start_pts_s")
    bins = (
        pl.DataFrame(evidence.rows)
        .filter(pl.col("bin") != "rejected")
        .group_by("video_id")
        .agg(binned=length.sum(), kept=length.filter(pl.col("bin") == "kept").sum())
    )
    videos = pl.DataFrame(evidence.tables["video_manifest"]).filter(pl.col("accepted"))
    return videos.join(bins, on="video_id", how="left").fill_null(0.0).sort("video_id")


_VIDEOS = {"video_manifest": ("video_id", "accepted", "duration_s")}


@probe("footage", severity="error", reads=(*_SPAN, "bin"), others=_VIDEOS)
def every_second_is_in_one_bin(evidence: Evidence, settings: EpisodeProbeSettings) -> Finding:
    """The stretches of each accepted video add up to its duration."""
    found = _accounted(evidence)
    apart = (found["binned"] - found["duration_s"]).abs()
    return judge(
        Units.of(found["video_id"], apart), 0.001, "s", "videos with seconds missing or twice", 0.0
    )


@probe("footage", reads=(*_SPAN, "bin"), others=_VIDEOS)
def footage_is_kept(evidence: Evidence, settings: EpisodeProbeSettings) -> Finding:
    """Some of most videos that may be used is kept. Where hardly anything is, a rule does not suit
    the footage, or what it looks at went wrong: `ego yield` tells which rule drops how much."""
    rows = pl.DataFrame(evidence.rows)
    refused = rows.filter(pl.col("bin").is_in(["no consent", "license"]))["video_id"]
    found = _accounted(evidence).filter(
        pl.col("duration_s") > 0, ~pl.col("video_id").is_in(refused.unique().implode())
    )
    return judge(
        Units.of(found["video_id"], found["kept"] / found["duration_s"]),
        settings.min_kept_share,
        "of the duration",
        "videos of which less is kept",
        settings.max_little_kept_share,
        least=True,
    )


@probe("episodes", reads=("episode_id", "jitter_after_mm"))
def cleaned_wrists_are_smooth(evidence: Evidence, settings: EpisodeProbeSettings) -> Finding:
    """What jitter is left after cleaning is that of a moving hand."""
    rows = pl.DataFrame(evidence.rows).drop_nulls()
    return judge(
        Units.of(rows["episode_id"], rows["jitter_after_mm"]),
        settings.max_clean_jitter_mm,
        "mm/frame²",
        "episodes whose wrists jitter",
        settings.tolerated_share,
    )


PROBES = (*every_second_is_in_one_bin, *footage_is_kept, *cleaned_wrists_are_smooth)
