"""A question to a table of somebody else: are the clips long enough to learn from?"""

from ego_assets.quality.finding import Evidence, Finding, Units, judge, probe
from ego_assets.quality.settings import ProbeSettings

MIN_CLIP_S = 1.0


@probe("clips", reads=("clip_id", "start_pts_s", "end_pts_s"))
def clips_are_long_enough(evidence: Evidence, settings: ProbeSettings) -> Finding:
    """Clips last for a second at least: nothing can be learned from less."""
    rows = evidence.rows.to_pylist()
    missing = [max(0.0, MIN_CLIP_S - (r["end_pts_s"] - r["start_pts_s"])) for r in rows]
    return judge(
        Units.of([r["clip_id"] for r in rows], missing),
        0.0,
        "seconds too short",
        "clips that are too short",
        settings.tolerated_share,
    )


PROBES = (*clips_are_long_enough,)
