"""Episodes that cannot be exported are refused, with what and where."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ego_assets.exports.episode import ExportEpisode, Numbers, Words
from ego_assets.exports.grid import ExportError
from ego_assets.exports.lerobot import packs
from ego_assets.exports.lerobot.packs import Record, have_room
from ego_assets.exports.lerobot.settings import LeRobotSettings
from ego_assets.exports.lerobot.writer import write_dataset
from tests.exports.numbered import EGO, episode, plain_grid

SIZE = (64, 36)


def plain(**changes: Any) -> ExportEpisode:
    return replace(episode("e", 5, 0, size=SIZE), **changes)


def column(values: np.ndarray, names: tuple[str, ...] | None = None) -> dict[str, Numbers]:
    return {"action": Numbers(values, names)}


HOLES = np.ones((5, 2), np.float32)
HOLES[3, 1] = np.nan


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"task": " "}, "no task"),
        ({"columns": column(HOLES)}, r"action is not finite at tick 3 \(frame 3\)"),
        ({"columns": column(np.ones((4, 2), np.float32))}, r"shape \(4, 2\), not \(5, n\)"),
        ({"columns": column(np.ones((5, 2), np.float16))}, "float16: give one of float32"),
        ({"columns": column(np.ones((5, 2), np.float32), ("x",))}, "2 values and 1 names"),
        ({"columns": {"a/b": Numbers(np.ones((5, 1), np.float32))}}, "a/b.*cannot have a /"),
        ({"columns": {"index": Numbers(np.ones((5, 1), np.int64))}}, "LeRobot reserves"),
        ({"pictures": {"ego": lambda: iter([])}}, "observation.images.NAME"),
        ({"persistent": [Words("x", 9)]}, "at tick 9 of 5"),
        ({"persistent": [Words("x", 0, style="vqa")]}, "style 'vqa' here"),
        ({"events": [Words("x", 0, style="trace", camera="left")]}, "name pictures: .*ego"),
        ({"persistent": [Words("x", 0, camera=EGO)]}, "subtask name no pictures"),
        ({"grid": plain_grid(6), "columns": {}}, "has 5 pictures, and the grid 6"),
        ({"grid": plain_grid(4), "columns": {}}, "has more than 4 pictures, and the grid 4"),
        ({"pictures": {EGO: lambda: iter([])}}, "has no pictures"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    if "grid" in changes:
        pictures = [np.zeros((36, 64, 3), np.uint8)] * 5
        changes = changes | {"pictures": {EGO: lambda: iter(pictures)}}
    with pytest.raises(ExportError, match=why):
        write_dataset(tmp_path, [plain(**changes)])


def test_episodes_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    def export(*others: ExportEpisode) -> None:
        write_dataset(tmp_path, [plain(), *others])

    with pytest.raises(ExportError, match="e comes twice"):
        export(plain())
    with pytest.raises(ExportError, match="24 frames a second, others have 30"):
        export(episode("f", 5, 0, size=SIZE, fps=24))
    with pytest.raises(ExportError, match=r"f has other columns than those before it: action"):
        export(replace(plain(), episode_id="f", columns={}))
    with pytest.raises(ExportError, match="language_events"):
        export(replace(plain(), episode_id="f", events=[]))
    with pytest.raises(ExportError, match="no episodes"):
        write_dataset(tmp_path / "none", [])


def test_the_digest_follows_all_that_is_exported() -> None:
    made = plain()
    values = made.columns["action"].values.copy()
    values[2, 1] += 1
    changed = [
        {"fingerprint": "other"},
        {"task": "other"},
        {"columns": dict(made.columns) | {"action": Numbers(values, ("x", "y", "z"))}},
        {"columns": dict(made.columns) | {"action": Numbers(made.columns["action"].values)}},
        {"persistent": [Words("x", 0)]},
        {"events": []},
        {"provenance": {"video_id": "other"}},
        {"grid": replace(made.grid, pts_s=made.grid.pts_s + 1)},
    ]
    digests = {made.digest(), *(plain(**each).digest() for each in changed)}
    assert len(digests) == len(changed) + 1
    assert plain().digest() == made.digest()


def test_files_are_limited_by_bytes_and_by_seconds() -> None:
    def record(frames: int, pictures: int, rows: int) -> Record:
        return Record("e", "", "", frames, {}, {EGO: pictures, packs.ROWS: rows}, {}, {})

    limits = {EGO: 100, packs.ROWS: 10}
    assert have_room([record(30, 50, 5), record(30, 50, 5)], limits, 30)
    assert not have_room([record(30, 50, 5), record(30, 51, 5)], limits, 30)
    assert not have_room([record(30, 50, 5), record(30, 50, 6)], limits, 30)
    assert not have_room([record(30 * 1000, 1, 1), record(30 * 25, 1, 1)], limits, 30)
    assert have_room([record(10**6, 1000, 1000)], limits, 30)


@pytest.mark.parametrize("fps", [7, 10, 24, 25, 29, 30, 50, 60, 120])
def test_a_video_file_is_short_enough_for_times_as_float32(fps: int) -> None:
    """Readers add float32 to float64, and compare float32 with a tolerance of 1e-4."""

    def largest_error(seconds: int) -> float:
        frames = np.arange(seconds * fps)
        begins = np.random.default_rng(0).integers(0, frames[-1], 50)
        worst = 0.0
        for begin in [0, *begins.tolist()]:
            ticks = frames[begin:] - begin
            asked = begin / fps + (ticks / fps).astype(np.float32).astype(np.float64)
            there = frames[begin:] / fps
            apart = np.abs(asked.astype(np.float32) - there.astype(np.float32))
            worst = max(worst, float(apart.max()))
            assert (np.round(asked * fps) == frames[begin:]).all()
        return worst

    assert largest_error(packs.MAX_SECONDS) < 1e-4
    if fps == 29:
        assert largest_error(4 * packs.MAX_SECONDS) > 1e-4


def test_threads_do_not_count_as_another_export() -> None:
    plain_settings = LeRobotSettings()
    assert plain_settings.encoded_under() == LeRobotSettings(threads=3).encoded_under()
    assert plain_settings.encoded_under() == LeRobotSettings(video_file_mb=10).encoded_under()
    assert plain_settings.encoded_under() == LeRobotSettings(preset="veryfast").encoded_under()
    assert plain_settings.encoded_under() != LeRobotSettings(preset="fast").encoded_under()
    with pytest.raises(ValueError, match="extra"):
        LeRobotSettings.model_validate({"preest": "fast"})
