"""Robots: could the robot be driven like that?

Here: probes of `robot_mappings`.
"""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc

from ego_assets.quality.finding import Evidence, Finding, Tracks, judge, probe
from ego_assets.robots.settings import RobotProbeSettings

_BY = ("clip_id", "track_id", "robot", "method")
_TRACK = (*_BY, "frame_index", "pts_s")


@probe("robot_mappings", severity="error", reads=(*_TRACK, "within_limits"))
def robot_joints_within_limits(evidence: Evidence, settings: RobotProbeSettings) -> Finding:
    """Every joint of the robot stays inside the limits of its URDF."""
    tracks = Tracks.of(evidence.rows, _BY)
    return judge(
        tracks.units(~tracks.column("within_limits"), "mean"),
        settings.max_out_of_limits_share,
        "of its frames",
        "robot tracks with a joint out of its limits",
        0.0,
    )


@probe("robot_mappings", reads=(*_TRACK, "mean_fingertip_error_m"))
def fingertips_reach_their_targets(evidence: Evidence, settings: RobotProbeSettings) -> Finding:
    """The robot's fingertips are where the human's were."""
    tracks = Tracks.of(evidence.rows, _BY)
    return judge(
        tracks.units(tracks.column("mean_fingertip_error_m"), "median"),
        settings.max_fingertip_error_m,
        "m",
        "robot tracks that miss their fingertips' targets",
        settings.tolerated_share,
    )


@probe("robot_mappings", reads=(*_TRACK, "joint_positions"))
def robot_joints_are_not_too_fast(evidence: Evidence, settings: RobotProbeSettings) -> Finding:
    """No joint moves faster than a finger could, but for an odd frame."""
    tracks = Tracks.of(evidence.rows, _BY)
    is_fast = np.full(len(tracks.group), np.nan)
    if len(is_fast) > 1:
        column = tracks.rows["joint_positions"]
        sizes = pc.list_value_length(column).to_numpy()
        flat = pc.list_flatten(column).to_numpy().astype(np.float64)
        same = tracks.is_next & (sizes == np.r_[0, sizes[:-1]])
        # Each value less that of the same joint in the row before, where that is one frame ago.
        row = np.repeat(np.arange(len(sizes)), sizes)
        before = np.arange(len(flat)) - sizes[row]
        is_pair = same[row]
        change = np.abs(flat[is_pair] - flat[before[is_pair]])
        fastest = np.zeros(len(sizes))
        np.maximum.at(fastest, row[is_pair], change)
        speed = fastest / tracks.step_s()
        is_fast = np.where(same, speed > settings.max_joint_speed_rad_per_s, np.nan)
    return judge(
        tracks.units(is_fast, "mean"),
        settings.max_fast_share,
        "of its frames",
        "robot tracks with a joint that is too fast",
        settings.tolerated_share,
    )


@probe("robot_mappings", reads=(*_TRACK, "solver_status"))
def solver_finds_a_solution(evidence: Evidence, settings: RobotProbeSettings) -> Finding:
    """The solver fails on hardly any frame."""
    tracks = Tracks.of(evidence.rows, _BY)
    status = tracks.rows["solver_status"]
    return judge(
        tracks.units(pc.equal(status, "failed").to_numpy(), "mean"),
        settings.max_unsolved_share,
        "of its frames",
        "robot tracks that the solver failed on",
        settings.tolerated_share,
        numbers={
            f"frames {name}": float(pc.sum(pc.equal(status, name)).as_py() or 0)
            for name in ("converged", "stopped", "failed")
        },
    )


PROBES = (
    *robot_joints_within_limits,
    *fingertips_reach_their_targets,
    *robot_joints_are_not_too_fast,
    *solver_finds_a_solution,
)
