"""What steps ask for: from tags, against what there is."""

from __future__ import annotations

import re

import pytest

from dagster_project.executors.step_needs import (
    ImpossibleNeedsError,
    StepNeeds,
    check_possible,
    needs_of,
    run_priority,
)
from resources.devices.gpu import find_gpus


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"ego/gpus": "-1"}, "step s: tag ego/gpus='-1' must be a number"),
        ({"ego/gpus": "one"}, "step s: tag ego/gpus='one' must be a number"),
        ({"ego/gpus": "nan"}, "must be a number"),
        ({"ego/gpus": "inf"}, "must be a number"),
        ({"ego/gpus": "1.5"}, "ego/gpus=1.5 must be a share up to 1 or a whole number"),
        ({"ego/cpus": "all"}, "ego/cpus='all' must be a number"),
        ({"ego/gpu_memory_gb": "8"}, "without a GPU: set ego/gpus"),
        ({"ego/degrades": "maybe"}, "tag ego/degrades='maybe' must be true or false"),
        ({"ego/gpu": "1"}, "there is no tag ego/gpu; use ego/gpus"),
    ],
)
def test_needs_that_make_no_sense(tags: dict[str, str], words: str) -> None:
    with pytest.raises(ImpossibleNeedsError, match=re.escape(words)):
        needs_of("s", tags, {})


def test_tags_beat_defaults_and_change_nothing_shared() -> None:
    defaults = {"gpus": 1.0, "gpu_memory_gb": 16.0, "cpus": 2.0}
    tags = {"ego/gpus": "0", "ego/cpus": "4", "other": "x"}
    assert needs_of("s", tags, defaults) == StepNeeds(0, 0, 4)
    assert needs_of("s", {}, defaults) == StepNeeds(1, 16, 2)
    assert needs_of("s", {"ego/gpus": "0.5"}, defaults) == StepNeeds(0.5, 16, 2)
    assert defaults == {"gpus": 1.0, "gpu_memory_gb": 16.0, "cpus": 2.0}
    assert tags == {"ego/gpus": "0", "ego/cpus": "4", "other": "x"}


def test_what_the_machine_has_not() -> None:
    check_possible("s", StepNeeds(4, 80), find_gpus(4))
    with pytest.raises(ImpossibleNeedsError, match="more than this machine has"):
        check_possible("s", StepNeeds(2), find_gpus(1))
    with pytest.raises(ImpossibleNeedsError, match=r"step s: .*none that works"):
        check_possible("s", StepNeeds(0.5), [])


@pytest.mark.parametrize(
    ("tags", "priority"),
    [
        ({}, 0),
        ({"dagster/priority": "-10"}, -10),
        ({"ego/priority": "3", "dagster/priority": "-10"}, 3),
    ],
)
def test_priority_of_a_run(tags: dict[str, str], priority: int) -> None:
    assert run_priority(tags) == priority


def test_a_priority_that_is_no_number() -> None:
    with pytest.raises(ImpossibleNeedsError, match="priority 'high' must be a whole number"):
        run_priority({"ego/priority": "high"})
