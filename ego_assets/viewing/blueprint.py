"""The layout in which the viewer opens a recording."""

from __future__ import annotations

from typing import Any, NamedTuple

from ego_assets.viewing.tape import TIME


class Eye(NamedTuple):
    """Where space is looked at from, and where to; points and a direction of the world."""

    place: tuple[float, ...]
    target: tuple[float, ...]
    up: tuple[float, ...]


def layout(eye: Eye) -> Any:
    """The picture on the left, 3D on the right; below, how sure what is, and what is wrong."""
    import rerun.blueprint as rrb

    picture = rrb.Spatial2DView(origin="/world/camera/lens", name="picture")
    space = rrb.Spatial3DView(
        origin="/world",
        contents=["$origin/**", "- /world/camera/lens/boxes"],
        name="space",
        eye_controls=rrb.EyeControls3D(position=eye.place, look_target=eye.target, eye_up=eye.up),
    )
    plots = rrb.Vertical(
        rrb.TimeSeriesView(
            origin="/confidence",
            name="confidence",
            axis_y=rrb.ScalarAxis(range=(0.0, 1.05), zoom_lock=True),
        ),
        rrb.StateTimelineView(origin="/valid", name="valid"),
    )
    words = rrb.Tabs(
        rrb.TextLogView(origin="/notes", name="notes"),
        rrb.TextDocumentView(origin="/about", name="about"),
        active_tab=0,
    )
    return rrb.Blueprint(
        rrb.Vertical(
            rrb.Horizontal(picture, space),
            rrb.Horizontal(plots, words, column_shares=[3, 2]),
            row_shares=[3, 2],
        ),
        rrb.TimePanel(state="collapsed", timeline=TIME),
        rrb.BlueprintPanel(state="collapsed"),
        rrb.SelectionPanel(state="collapsed"),
        auto_views=False,
    )
