"""Frames side by side: in order, bounded, and the same however many threads there are."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ego_assets.catalog import TABLES
from ego_assets.hands.landmarks.estimator import LandmarksHandEstimator
from ego_assets.hands.settings import HandPoseSettings
from ego_assets.masks.landmarks.segmenter import LandmarksSegmenter
from ego_assets.masks.settings import SegmentSettings
from ego_assets.objects.baseline.movements import BaselineMovementEstimator
from ego_assets.objects.baseline.poses import BaselineObjectPoseEstimator
from ego_assets.objects.settings import MovementSettings, ObjectPoseSettings
from ego_assets.operator import ClipInput
from ego_assets.vision import threads
from samples import load_truth
from tests.support.rendered import small_sample
from tests.support.sample_input import clip_input, empty_tables, intrinsics_of


@pytest.fixture(autouse=True)
def _no_limit_left_behind() -> Iterator[None]:
    of_opencv = cv2.getNumThreads()
    yield
    threads.limit_threads(of_opencv)
    threads._threads.limit = 0


def test_results_come_in_order_and_items_are_not_taken_far_ahead() -> None:
    threads.limit_threads(3)
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(50):
            taken.append(number)
            yield number

    found = threads.each(lambda n: n * n, items())
    for number in range(50):
        assert next(found) == number**2
        assert len(taken) <= number + 6
    assert list(found) == []


def test_work_is_done_by_as_many_threads_as_are_allowed() -> None:
    threads.limit_threads(3)
    meeting = threading.Barrier(3, timeout=60)
    assert list(threads.each(lambda n: meeting.wait() >= 0, range(3))) == [True] * 3
    threads.limit_threads(1)
    assert (
        list(threads.each(lambda _: threading.get_ident(), range(3))) == [threading.get_ident()] * 3
    )


def test_an_error_comes_out_where_its_result_would() -> None:
    threads.limit_threads(2)

    def work(number: int) -> int:
        if number == 2:
            raise ValueError("two")
        return number

    found = threads.each(work, range(9))
    assert [next(found), next(found)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(found)


def test_opencv_has_its_threads_back_when_the_last_one_is_through() -> None:
    threads.limit_threads(2)
    with threads.side_by_side():
        with threads.side_by_side():
            assert cv2.getNumThreads() == 1
        assert cv2.getNumThreads() == 1
    assert cv2.getNumThreads() == 2


def all_rows(clip: ClipInput) -> dict[str, Any]:
    """What the operators make of a clip, each fed with those before it, and what they carry."""
    from dataclasses import replace

    found: dict[str, Any] = {}
    tables = dict(empty_tables(clip).tables)
    for operator in (
        LandmarksSegmenter(SegmentSettings(work_side_px=320)),
        LandmarksHandEstimator(HandPoseSettings()),
        BaselineObjectPoseEstimator(ObjectPoseSettings()),
        BaselineMovementEstimator(MovementSettings()),
    ):
        output = operator.process(replace(clip, tables=tables), None)
        for table, rows in output.tables.items():
            tables[table] = TABLES[table].from_rows(rows)
            found[table] = rows
        found[type(operator).__name__] = {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in output.carried.items()
        }
    return found


def test_rows_do_not_depend_on_the_number_of_threads(tmp_path: Path, hand_nets: Path) -> None:
    path = small_sample(tmp_path)
    clip = clip_input(path, intrinsics_of(load_truth(path)))
    found = []
    for count in (1, 4):
        threads.limit_threads(count)
        found.append(all_rows(clip))
    assert found[0]["hand_masks"]
    assert found[0]["object_masks"]
    assert found[0] == found[1]
