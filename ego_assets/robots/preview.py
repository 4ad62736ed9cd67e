"""Draws a robot hand below the human hand that it mimics, and its joints over time."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow.compute as pc

from ego_assets.media.sheets import Picture, Rows, fullest, spread
from ego_assets.operator import BadInputError
from ego_assets.robots.links import LinkPicture, LinkTree
from ego_assets.robots.retargeting import joints_in_hand
from ego_assets.robots.robot_hands import FINGERS
from ego_assets.vision import draw, plots
from resources.lake import Lake
from resources.raw.reader import RawReader

MOMENTS = 4
COLORS = dict(zip(FINGERS, ("#d55e00", "#e69f00", "#009e73", "#0072b2", "#cc79a7"), strict=True))
PALM = "#777777"
_MARGIN_M = 0.01


def hands_plot(lake: Lake, table: str, shard: str, raw: RawReader) -> Picture | None:
    """The hand with the most rows at some moments, each with the robot's hand below it."""
    rows = lake.read(table, shard)
    if not rows.num_rows:
        return None
    track = fullest(rows["track_id"])
    mine = rows.filter(pc.field("track_id") == track)
    robot = mine["robot"][0].as_py()
    solved = mine.filter(pc.field("robot") == robot).sort_by("pts_s").to_pylist()
    poses = lake.read("hand_poses", shard).filter(pc.field("track_id") == track).to_pylist()
    human = {(pose["clip_id"], pose["frame_index"]): pose for pose in poses}
    tree, mirrored, why_not = _robot(lake, table, shard, solved[0])
    shown = spread(solved, MOMENTS)

    heights = {"human": 3.0, "robot": 3.0, "joints": 2.0, "errors": 1.3}
    if tree is None:
        del heights["robot"]
    figure = plots.empty_figure((plots.WIDTH_IN, 0.9 * sum(heights.values())))
    hands = {"human", "robot"}
    axes = figure.subplot_mosaic(
        [[f"{k} {n}" if k in hands else k for n in range(len(shown))] for k in heights],
        height_ratios=list(heights.values()),
    )
    drawn: list[tuple[Any, np.ndarray]] = []
    for number, row in enumerate(shown):
        above = axes[f"human {number}"]
        above.set_title(f"human hand at {row['pts_s']:.2f} s", fontsize=8)
        pose = human.get((row["clip_id"], row["frame_index"]))
        drawn.append((above, _draw_human(above, pose) if pose else np.zeros((1, 2))))
        if tree:
            below = axes[f"robot {number}"]
            words = f"{robot}{' (mirrored)' * mirrored} at {row['pts_s']:.2f} s"
            below.set_title(words, fontsize=8)
            joints = dict(zip(row["joint_names"], row["joint_positions"], strict=True))
            drawn.append((below, _draw_robot(below, tree.pictures(joints, mirrored))))
    _same_scale(drawn)
    _draw_joints(axes["joints"], axes["errors"], solved, tree)
    for axis in (axes["joints"], axes["errors"]):
        for row in shown:
            axis.axvline(row["pts_s"], color="black", linestyle=":", linewidth=0.8)
    _add_legend(figure)
    side = f"{solved[0]['side']} hand, track {draw.short_track(track)}"
    title = f"{table} of shard {shard}: {robot} mimics the {side}"
    if why_not:
        title += "\n" + textwrap.fill(why_not, 100)
    return "image/png", plots.as_png(figure, title)


def _robot(
    lake: Lake, table: str, shard: str, row: dict[str, Any]
) -> tuple[LinkTree | None, bool, str]:
    """(the robot's links, whether it is its mirror image that serves this hand, what cannot be
    drawn, and why)."""
    made = lake.provenance(table, shard, row["clip_id"])
    folder = json.loads(made.settings).get("robots_dir") if made else None
    try:
        tree, mirrored = LinkTree.serving(row["robot"], row["side"], folder)
    except (BadInputError, OSError) as error:
        return None, False, f"the robot cannot be drawn: {error}"
    missing = tree.shapes.missing
    return tree, mirrored, f"shapes that cannot be read: {'; '.join(missing)}" if missing else ""


def _from_the_back(points: np.ndarray) -> np.ndarray:
    """(…, 3) in the hand frame to (…, 2) as seen from the back of the hand, from the side and from
    above by as much as bent fingers need to be seen."""
    turn, tilt = np.radians(35), np.radians(20)
    right, up, towards = -points[..., 1], points[..., 0], points[..., 2]
    across = right * np.cos(turn) + towards * np.sin(turn)
    towards = towards * np.cos(turn) - right * np.sin(turn)
    return np.stack([across, up * np.cos(tilt) - towards * np.sin(tilt)], axis=-1)


def _draw_human(axis: Any, pose: dict[str, Any]) -> np.ndarray:
    """Returns the points that have to be seen."""
    points = _from_the_back(joints_in_hand(pose))
    knuckles = [0, *(1 + 4 * f for f in range(5)), 0]
    axis.fill(*points[knuckles].T, color=PALM, alpha=0.15, linewidth=0)
    for name, joints in zip(FINGERS, draw.FINGERS, strict=True):
        axis.plot(*points[list(joints)[:2]].T, "-", color=PALM, linewidth=2)
        axis.plot(*points[list(joints)[1:]].T, "o-", color=COLORS[name], linewidth=3, markersize=3)
    return points


def _draw_robot(axis: Any, links: list[LinkPicture]) -> np.ndarray:
    """Returns the points that have to be seen."""
    from scipy.spatial import ConvexHull

    seen = [np.zeros((1, 2))]
    for link in links:
        color = COLORS.get(link.finger, PALM)
        for part in link.parts:
            flat = _from_the_back(part)
            outline = flat[ConvexHull(flat).vertices]
            axis.fill(*outline.T, facecolor=color, edgecolor=color, alpha=0.25, linewidth=0.8)
            seen.append(outline)
    for link in links:
        bone = _from_the_back(link.bone)
        color = COLORS.get(link.finger, PALM)
        axis.plot(*bone.T, "o-", color=color, linewidth=2, markersize=3)
        seen.append(bone)
    return np.concatenate(seen)


def _same_scale(drawn: list[tuple[Any, np.ndarray]]) -> None:
    """Show all hands at one scale, with a bar of 5 cm in the first."""
    every = np.concatenate([points for _, points in drawn])
    low, high = every.min(axis=0) - _MARGIN_M, every.max(axis=0) + _MARGIN_M
    for axis, _ in drawn:
        axis.set_aspect("equal")
        axis.set_xlim(low[0], high[0])
        axis.set_ylim(low[1], high[1])
        axis.set_xticks([])
        axis.set_yticks([])
    first = drawn[0][0]
    first.plot([low[0] + 0.005, low[0] + 0.055], [low[1] + 0.005] * 2, "k-", linewidth=2)
    first.text(low[0] + 0.03, low[1] + 0.008, "5 cm", fontsize=7, ha="center")


def _draw_joints(joints: Any, errors: Any, rows: Rows, tree: LinkTree | None) -> None:
    times = np.array([row["pts_s"] for row in rows])
    positions = np.array([row["joint_positions"] for row in rows])
    fingers = tree.fingers_of_joints() if tree else {}
    for name, values in zip(rows[0]["joint_names"], positions.T, strict=True):
        color = COLORS.get(fingers.get(name, ""), PALM)
        joints.plot(times, values, linewidth=0.9, color=color)
    joints.set_ylabel("joints [rad]", fontsize=8)
    distances = np.array([row["fingertip_error_m"] for row in rows]) * 1000
    tips = {link: finger for finger, link in tree.spec.fingertips.items()} if tree else {}
    for name, values in zip(rows[0]["fingertip_names"], distances.T, strict=True):
        errors.plot(times, values, linewidth=0.9, color=COLORS.get(tips.get(name, ""), PALM))
    errors.set_ylabel("from fingertip\nto target [mm]", fontsize=8)
    errors.set_xlabel("time in the video [s]")
    for axis in (joints, errors):
        axis.grid(alpha=0.3)


def _add_legend(figure: Any) -> None:
    figure.legend(handles=list(_handles()), ncols=4, fontsize=7, loc="outside lower center")


def _handles() -> Iterator[Any]:
    from matplotlib.lines import Line2D

    for finger, color in COLORS.items():
        yield Line2D([], [], color=color, linewidth=3, label=finger)
    yield Line2D([], [], color=PALM, linewidth=3, label="palm and wrist")
    yield Line2D(
        [], [], color="black", marker="o", markersize=3, label="solid: a link, a dot: its joint"
    )
    dotted = "dotted: the moments that are shown above"
    yield Line2D([], [], color="black", linestyle=":", label=dotted)
