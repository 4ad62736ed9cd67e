"""The asset `lerobot_dataset` as Dagster runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dagster_project.data_sets.assets import DATA_SETS
from ego_assets.exports.lerobot.settings import LeRobotFiles
from resources.storage import Storage
from tests.exports.lerobot_reader import read
from tests.exports.made_lake import Made, MadeVideo, add_shard, make

(LEROBOT,) = (each for each in DATA_SETS if each.key.to_user_string() == "lerobot_dataset")


def materialize(made: Made, content: dict[str, Any] | None = None, **config: Any) -> dict[str, Any]:
    """The metadata of a materialization."""
    given = {"ops": {"lerobot_dataset": {"config": config | {"content": content or {}}}}}
    done = dg.materialize(
        [LEROBOT],
        resources={"storage": Storage(lake_root=str(made.lake.root))},
        run_config=given,
    )
    (event,) = done.asset_materializations_for_node("lerobot_dataset")
    return {name: value.value for name, value in event.metadata.items()}


def lake_of_two(folder: Path) -> Made:
    """A lake of two shards, an episode each; the second is of the split test."""
    made = make(folder, MadeVideo(count=60))
    add_shard(
        made, "20261130-0001", MadeVideo(count=60, video_id="00000000000000b2"), test_share=1.0
    )
    return made


def test_it_writes_into_the_lake_and_says_what_it_did(tmp_path: Path) -> None:
    made = lake_of_two(tmp_path)
    folder = made.lake.root / "exports/lerobot"
    said = materialize(made)
    assert said == {
        "folder": str(folder),
        "episodes written": 1,
        "frames": 60,
        "encoded now": 1,
        "kept from before": 0,
        "resumed": 0,
        "removed": 0,
    }
    assert read(folder).info["splits"] == {"train": "0:1"}
    assert materialize(made)["kept from before"] == 1


def test_the_split_is_named_as_it_was_chosen(tmp_path: Path) -> None:
    made = lake_of_two(tmp_path)
    for split, count in (("test", 1), ("all", 2)):
        out = tmp_path / split
        assert materialize(made, {"split": split}, out=str(out))["episodes written"] == count
        assert read(out).info["splits"] == {split: f"0:{count}"}
    assert "split" not in LeRobotFiles.model_fields


def test_what_is_left_out_is_in_the_metadata(tmp_path: Path) -> None:
    made = lake_of_two(tmp_path)
    (tmp_path / "00000000000000b2.mp4").unlink()
    said = materialize(made, {"split": "all"})
    assert (said["episodes written"], said["left out count"]) == (1, 1)
    assert "00000000000000b2" in str(said["left out"])


def test_a_lake_without_episodes_of_the_split_fails_without_a_retry(tmp_path: Path) -> None:
    made = make(tmp_path, MadeVideo(count=60))
    with pytest.raises(dg.Failure, match="no episodes of the split validation") as caught:
        materialize(made, {"split": "validation"})
    assert caught.value.allow_retries is False
