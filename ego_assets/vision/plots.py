"""Plots for people: paths of cameras and objects, timelines of movements, joints over time.

Here: figures drawn with matplotlib, as PNG bytes. Not here: which rows are shown.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

DOTS_PER_INCH = 100
WIDTH_IN = 8.0
"""Of most figures: as wide as Dagster's UI has room for."""
STATE_COLORS = {"still": "#bbbbbb", "moving": "#0072b2", "held": "#e69f00"}


def data_uri(picture: bytes, media: str = "image/png") -> str:
    """The picture itself as a URI (RFC 2397), so that showing it needs no server."""
    return f"data:{media};base64,{base64.b64encode(picture).decode()}"


def plot_paths(
    paths: Mapping[str, np.ndarray], points: np.ndarray | None, title: str, unit: str
) -> bytes:
    """Paths (N, 3) by name in a world frame, from above (x, z) and from the side (x, y).

    Rows of NaN are gaps. points: (M, 3) or None, drawn faintly behind.
    """
    figure, axes = _figure(1, 2, (WIDTH_IN, 4))
    for axis, second, name in ((axes[0], 2, "z"), (axes[1], 1, "y")):
        if points is not None and len(points):
            low, high = np.percentile(points, [2, 98], axis=0)
            shown = points[((points >= low) & (points <= high)).all(axis=1)]
            dots = {"s": 3, "c": "#bbbbbb", "linewidths": 0, "label": "points of the scene"}
            axis.scatter(shown[:, 0], shown[:, second], **dots)
        for label, path in paths.items():
            axis.plot(path[:, 0], path[:, second], linewidth=1.3, label=label)
            seen = path[~np.isnan(path[:, 0])]
            if len(seen):
                axis.plot(seen[0, 0], seen[0, second], "ko", markersize=4, label=f"{label}: start")
        axis.set_xlabel(f"x [{unit}]")
        axis.set_ylabel(f"{name} [{unit}]")
        axis.set_aspect("equal", adjustable="datalim")
        axis.grid(alpha=0.3)
    axes[0].set_title("from above", fontsize=8)
    axes[1].set_title("from the side", fontsize=8)
    axes[1].invert_yaxis()
    if shown := dict(zip(*reversed(axes[0].get_legend_handles_labels()), strict=True)):
        figure.legend(shown.values(), shown, ncols=4, fontsize=7, loc="outside lower center")
    return as_png(figure, title)


def plot_timeline(intervals: Sequence[Mapping[str, Any]], title: str) -> bytes:
    """One bar an interval of `object_movements` rows, a line a track."""
    tracks = sorted({r["track_id"] for r in intervals})
    figure, axes = _figure(1, 1, (WIDTH_IN, 1.2 + 0.35 * len(tracks)))
    axis = axes[0]
    for row in intervals:
        axis.barh(
            tracks.index(row["track_id"]),
            row["end_pts_s"] - row["start_pts_s"],
            left=row["start_pts_s"],
            color=STATE_COLORS[row["state"]],
            edgecolor="white",
        )
    axis.set_yticks(range(len(tracks)), [t.split("-", 1)[-1] for t in tracks], fontsize=7)
    axis.set_xlabel("time in the video [s]")
    for state, color in STATE_COLORS.items():
        axis.barh(0, 0, color=color, label=state)
    figure.legend(fontsize=7, ncols=3, loc="outside lower center")
    return as_png(figure, title)


def plot_distribution(values: np.ndarray, threshold: float, unit: str, title: str) -> bytes:
    """Histogram of (N,) values with the threshold that they are judged by."""
    figure, axes = _figure(1, 1, (5, 2.2))
    axes[0].hist(values[np.isfinite(values)], bins=30, color="#0072b2")
    axes[0].axvline(threshold, color="#d55e00", linestyle="--", label=f"threshold {threshold:g}")
    axes[0].set_xlabel(unit)
    axes[0].legend(fontsize=7)
    return as_png(figure, title)


def plot_counts(
    edges: np.ndarray, counts: Mapping[str, np.ndarray], x_label: str, unit: str, title: str
) -> bytes:
    """Stacked bars: counts (N,) by name, each over the stretch that begins at its edge (N,)."""
    figure, axes = _figure(1, 1, (WIDTH_IN, 3))
    axis, below = axes[0], np.zeros(len(edges))
    width = float(np.diff(edges).min()) if len(edges) > 1 else 1.0
    colors = _colors(len(counts))
    for (name, values), color in zip(counts.items(), colors, strict=True):
        axis.bar(edges, values, width, below, align="edge", label=name, color=color)
        below = below + values
    axis.set_xlabel(x_label)
    axis.set_ylabel(unit)
    axis.legend(fontsize=6, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return as_png(figure, title)


def plot_waterfall(steps: Sequence[tuple[str, float]], unit: str, title: str) -> bytes:
    """What is left after each of some losses: (name, left), from all of it to what is kept."""
    names = [name for name, _ in steps]
    left = np.array([value for _, value in steps])
    figure, axes = _figure(1, 1, (WIDTH_IN, 0.9 + 0.32 * len(steps)))
    axis = axes[0]
    for at, (_, value) in enumerate(steps):
        if at in (0, len(steps) - 1):
            axis.barh(at, value, color="#009e73" if at else "#555555")
            axis.text(value, at, f" {value:,.1f} {unit}", va="center", fontsize=7)
        else:
            lost = left[at - 1] - value
            axis.barh(at, lost, left=value, color="#d55e00")
            words = f" −{lost:,.1f} {unit}, {lost / max(left[0], 1e-9):.0%}"
            axis.text(left[at - 1], at, words, va="center", fontsize=7)
    axis.set_yticks(range(len(names)), names, fontsize=7)
    axis.invert_yaxis()
    axis.set_xlim(0, max(left[0], 1e-9) * 1.18)
    axis.set_xlabel(f"footage [{unit}]")
    return as_png(figure, title)


def plot_vectors(series: Mapping[str, tuple[np.ndarray, np.ndarray]], title: str) -> bytes:
    """Vectors over time, a panel each: (seconds (N,), vectors (N, 3)) by name."""
    figure, axes = _figure(len(series), 1, (WIDTH_IN, 0.8 + 1.6 * len(series)))
    for axis, (name, (times, vectors)) in zip(axes, series.items(), strict=True):
        for number, part in enumerate("xyz"):
            axis.plot(times, vectors[:, number], linewidth=0.8, label=part)
        axis.set_ylabel(name, fontsize=7)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=6, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes[-1].set_xlabel("time in the video [s]")
    return as_png(figure, title)


def plot_shares(values: Mapping[str, float], unit: str, title: str) -> bytes:
    """One bar a name, the largest on top."""
    names = sorted(values, key=lambda n: values[n])
    figure, axes = _figure(1, 1, (WIDTH_IN, 1.0 + 0.25 * len(names)))
    axes[0].barh(range(len(names)), [values[n] for n in names], color="#0072b2")
    axes[0].set_yticks(range(len(names)), names, fontsize=7)
    axes[0].set_xlabel(unit)
    return as_png(figure, title)


def plot_scatter(
    series: Mapping[str, tuple[np.ndarray, np.ndarray]],
    threshold: float,
    x_label: str,
    y_label: str,
    title: str,
) -> bytes:
    """Points (x (N,), y (N,)) by name, and the threshold that they are judged by."""
    figure, axes = _figure(1, 1, (WIDTH_IN, 3))
    axis = axes[0]
    for (name, (x, y)), color in zip(series.items(), _colors(len(series)), strict=True):
        axis.plot(x, y, ".", label=name, color=color)
    dashed = f"threshold {threshold:g}"
    axis.axhline(threshold, color="#d55e00", linestyle="--", linewidth=1, label=dashed)
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.set_ylim(bottom=0)
    axis.legend(fontsize=6, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return as_png(figure, title)


def _colors(count: int) -> list[Any]:
    from matplotlib import colormaps

    return [colormaps["tab10"](i % 10) for i in range(count)]


def _figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, list[Any]]:
    figure = empty_figure(size)
    return figure, list(np.ravel(figure.subplots(rows, columns, squeeze=False)))


def empty_figure(size: tuple[float, float]) -> Any:
    """A figure of matplotlib of this width and height in inches, for `as_png`."""
    # The object interface: pyplot keeps every figure, and picks a window system.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def as_png(figure: Any, title: str) -> bytes:
    figure.suptitle(title, fontsize=9)
    from PIL import Image

    figure.canvas.draw()
    buffer = io.BytesIO()
    # 64 colours are enough for lines, and a third of the bytes.
    picture = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
    picture.quantize(64).save(buffer, format="png", optimize=True)
    return buffer.getvalue()
