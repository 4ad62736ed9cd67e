"""Training leaves out what people rejected, as exports do."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

import ego_assets as ego
from ego_assets.exports.grid import ExportError
from ego_assets.exports.settings import ContentSettings
from ego_assets.training import EpisodeDataset, EpisodeStream, WindowSettings
from tests.reviews.judged_lake import JudgedLake

Use = Literal["use", "ignore", "only_accepted"]
NO_PICTURES = WindowSettings(size=None)


@pytest.fixture
def judged(tmp_path: Path) -> JudgedLake:
    return JudgedLake.build(tmp_path)


def read(judged: JudgedLake, use: Use) -> list[str]:
    """Names of the episodes that both data sets have."""
    lake, content = ego.open(judged.lake.location), ContentSettings(split="all", reviews=use)
    dataset = EpisodeDataset(lake, NO_PICTURES, content)
    stream = EpisodeStream(lake, NO_PICTURES, content)
    names = sorted(episode.episode_id for episode in dataset.episodes)
    assert sorted({sample["episode_id"] for sample in stream}) == names
    return names


def test_rejected_episodes_are_not_trained_on(judged: JudgedLake) -> None:
    first, second, third = judged.episodes
    judged.judge(first, verdict="reject", reason="no hands")
    judged.judge(second)
    assert read(judged, "use") == [second, third]
    assert read(judged, "only_accepted") == [second]
    assert read(judged, "ignore") == [first, second, third]


def test_it_is_said_why_nothing_can_be_trained_on(judged: JudgedLake) -> None:
    for name in judged.episodes:
        judged.judge(name, verdict="reject", reason="no hands")
    with pytest.raises(ExportError, match=r"none of 3 .* used.*rejected: no hands"):
        read(judged, "use")
