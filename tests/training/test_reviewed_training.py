"""Training leaves out what people rejected, as exports do."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pytest
from pydantic import ValidationError

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


def test_training_goes_on_though_an_episode_was_rejected_since(judged: JudgedLake) -> None:
    judged.judge(judged.episodes[0], verdict="reject", reason="no hands")
    content = ContentSettings(split="all", reviews_until=datetime.now(UTC).isoformat())

    def stream() -> EpisodeStream:
        return EpisodeStream(ego.open(judged.lake.location), NO_PICTURES, content)

    before = stream()
    judged.judge(judged.episodes[1], verdict="reject", reason="dull")
    stream().load_state_dict(before.state_dict())
    assert len(read(judged, "use")) == 1
    content = ContentSettings(split="all")
    with pytest.raises(ValueError, match="reviews_until"):
        stream().load_state_dict(before.state_dict())


def test_a_time_has_its_zone() -> None:
    said = ContentSettings(reviews_until="2026-11-30T13:00:00+01:00").reviews_until
    assert said == "2026-11-30T12:00:00.000000+00:00"
    with pytest.raises(ValidationError, match="time zone"):
        ContentSettings(reviews_until="2026-11-30T13:00:00")


def test_it_is_said_why_nothing_can_be_trained_on(judged: JudgedLake) -> None:
    for name in judged.episodes:
        judged.judge(name, verdict="reject", reason="no hands")
    with pytest.raises(ExportError, match=r"none of 3 .* used.*rejected: no hands"):
        read(judged, "use")
