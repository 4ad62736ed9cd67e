"""Frames with empty hands are told from the annotations, and what is said to be held from masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import accuracy, real_hands, real_objects
from benchmarks.real_objects import (
    FALSE,
    HELD,
    TOUCHED,
    ObjectScores,
    frames_with_empty_hands,
    says_held,
)
from ego_assets.vision.rle import encode_mask


def row(x: int, y: int) -> dict[str, Any]:
    mask = np.zeros((80, 100), bool)
    mask[y : y + 20, x : x + 20] = True
    return {"height_px": 80, "width_px": 100, "area_px": 400, "rle": encode_mask(mask)}


def test_an_object_beside_a_hand_is_held_and_one_further_off_is_not() -> None:
    assert says_held([row(31, 10)], [row(10, 10)])
    assert not says_held([row(60, 10)], [row(10, 10)])
    assert not says_held([row(31, 10)], [])


def test_hands_are_empty_where_they_are_seen_and_nothing_is_touched() -> None:
    def frame(
        index: int, *, complete: bool = True, hands: tuple[bool, ...] = (False,), **touch: bool
    ) -> dict[str, Any]:
        objects = [{"touched": False, "by_robot": False} | touch]
        seen = [{"difficult": is_difficult} for is_difficult in hands]
        return {"frame_index": index, "complete": complete, "hands": seen, "objects": objects}

    entry = {
        "frames": [
            frame(0),
            frame(1, touched=True),
            frame(2, touched=True, by_robot=True),
            frame(3, complete=False),
            frame(4, hands=()),
            frame(5, hands=(True,)),
            frame(6, hands=(True, False)),
        ]
    }
    assert frames_with_empty_hands(entry) == [0, 6]


def test_a_missed_floor_is_the_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "annotations").mkdir(parents=True)
    (tmp_path / "videos").mkdir()
    monkeypatch.setenv("EGO_REAL_DATA", str(tmp_path))
    monkeypatch.setattr(real_hands, "available_tiers", lambda: {"learned": "", "reference": "no"})
    counts = {"touched_n": 4, "touched_ok": 3, "mask_objects_n": 2, "mask_objects_sum": 1.0}
    counts |= {"false_held": 0, "empty_frames": 3}
    scores = ObjectScores({TOUCHED: 0.75, HELD: 0.5, FALSE: 0.0}, {"a_video": counts})
    monkeypatch.setattr(real_objects, "score_objects", lambda *_: scores)
    assert accuracy.main(["--objects-only"]) == 1
    said = capsys.readouterr().out
    assert said.count("FAIL") == 1
    assert "a_video" in said and "3/4" in said
    scores.values[HELD] = 0.7
    assert accuracy.main(["--objects-only"]) == 0
