"""The report on cameras of real videos: each frame once, by its reason, and floors that decide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import accuracy, real_cameras
from benchmarks.real_cameras import camera_table, count_cameras, measure_cameras, values_of


def camera(frame: int, scale: str = "metric", reason: str | None = None) -> dict[str, Any]:
    motion = "unknown" if reason else "moving"
    return {
        "frame_index": frame,
        "is_valid": reason is None,
        "invalid_reason": reason,
        "motion_kind": motion,
        "scale_kind": scale,
    }


def hand(frame: int, is_valid: bool = True, is_wearer: bool | None = True) -> dict[str, Any]:
    return {"frame_index": frame, "is_valid": is_valid, "is_wearer": is_wearer}


MADE = count_cameras(
    [camera(0), camera(1, "arbitrary"), camera(2, reason="no parallax"), camera(3, "metric_hands")],
    [hand(0), hand(0), hand(1), hand(2), hand(3), hand(3, is_valid=False), hand(3, is_wearer=None)],
)


def test_frames_are_counted_by_what_they_have_and_hands_by_where_they_are() -> None:
    assert (MADE.valid, MADE.frames) == (3, 4)
    assert (MADE.motion, MADE.reasons) == ({"moving": 3}, {"no parallax": 1})
    assert MADE.scales == {"metric": 1, "arbitrary": 1, "metric_hands": 1}
    assert (MADE.placed, MADE.hands) == (3, 5)
    table = camera_table({"a_video": MADE})
    assert "3/4" in table and "3/5" in table and "no parallax 1" in table


def test_a_long_video_counts_for_more_and_hands_may_be_missing() -> None:
    long = count_cameras([camera(f) for f in range(16)], [])
    shares = {name: value for (_, name), value in values_of([MADE, long]).items()}
    assert shares["real videos, frames with a valid camera"] == pytest.approx(19 / 20)
    assert shares["real videos, mean over videos of that share"] == pytest.approx(7 / 8)
    assert shares["real videos, wearer's valid hands with a place in metres"] == pytest.approx(0.6)
    assert not any("hands" in name for _, name in values_of([long]))


def test_a_missed_floor_is_the_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "videos").mkdir()
    monkeypatch.setenv("EGO_REAL_DATA", str(tmp_path))
    monkeypatch.setattr(real_cameras, "measure_cameras", lambda _: {"a_video": MADE})
    assert accuracy.main(["--cameras-only"]) == 1
    said = capsys.readouterr().out
    assert said.count("FAIL") == 2 and "a_video" in said


def test_a_real_video_is_measured_through_the_chain(
    real_data: Path, packaged_weights: Path
) -> None:
    found = measure_cameras(real_data, ["hands_kneading_dough"])
    assert list(found) == ["hands_kneading_dough"]
    counts = found["hands_kneading_dough"]
    # Nothing but dough and arms is in view: what is made of it is no camera's path.
    assert (counts.frames, counts.valid) == (50, 0)
