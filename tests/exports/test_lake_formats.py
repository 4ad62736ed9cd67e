"""`ego export` of a lake to formats other than LeRobot."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
from click.testing import CliRunner

from dagster_project.cli.data.exports import export
from dagster_project.cli.program import main
from dagster_project.data_sets.assets import DATA_SETS
from resources.storage import Storage
from tests.exports.bars import number_in
from tests.exports.lerobot_reader import tree
from tests.exports.numbered_lake import MadeVideo, make
from tests.exports.test_coco import masks_of
from tests.exports.test_lake_export import of
from tests.exports.test_webdataset import numbers_of, samples


def test_webdataset_has_the_rows_of_the_lake(tmp_path: Path) -> None:
    lake = make(tmp_path, MadeVideo(count=90))
    report = lake.export("--threads", "1", to="webdataset")
    assert (report["episodes"], report["frames"], report["skipped"]) == (1, 90, {})
    ((key, sample),) = samples(tmp_path / "out").items()
    assert key == lake.tables["episodes"][0]["episode_id"]
    arrays = np.load(io.BytesIO(sample["npz"]))
    assert numbers_of(sample["mp4"]) == arrays["source_frame"].tolist() == list(range(90))
    right = of(lake.tables["episode_hands"], "right")
    at = json.loads(sample["json"])["names"]["observation.state"].index("right_wrist_x")
    for frame, state in zip(arrays["source_frame"], arrays["observation.state"], strict=True):
        wrist = right[frame]["camera_from_hand_m"]
        assert state[at : at + 3] == pytest.approx(wrist, abs=1e-5)
    checked = CliRunner().invoke(main, ["export", "check", str(tmp_path / "out"), "--json"])
    assert (checked.exit_code, json.loads(checked.stdout)) == (0, {})
    before = tree(tmp_path / "out")
    assert lake.export("--threads", "1", to="webdataset")["encoded"] == 0
    assert tree(tmp_path / "out") == before


def test_no_command_has_an_option_twice() -> None:
    for name, command in export.commands.items():
        options = [option for parameter in command.params for option in parameter.opts]
        assert len(options) == len(set(options)), name


def test_webdataset_of_frames_is_asked_for_by_an_option(tmp_path: Path) -> None:
    from PIL import Image

    lake = make(tmp_path, MadeVideo(count=90))
    lake.export("--content", "frames", "--every", "10", to="webdataset")
    found = samples(tmp_path / "out")
    assert len(found) == 9
    for sample in found.values():
        picture = np.asarray(Image.open(io.BytesIO(sample["jpg"])))
        assert number_in(picture) == json.loads(sample["json"])["source_frame"]


def test_check_says_which_file_was_cut_off(tmp_path: Path) -> None:
    make(tmp_path, MadeVideo(count=90)).export("--threads", "1", to="webdataset")
    shard = tmp_path / "out" / "train-000000.tar"
    shard.write_bytes(shard.read_bytes()[:1024])
    checked = CliRunner().invoke(main, ["export", "check", str(tmp_path / "out")])
    assert checked.exit_code == 1
    assert checked.stdout.startswith("train-000000.tar has 1,024 bytes instead of ")


def clips_of(video: MadeVideo) -> dict[str, list[dict[str, Any]]]:
    return {"clips": [dict(clip) for clip in video.clips]}


CONTENT = {"coco": {"every": 45}, "webdataset": {"hand": "robot"}}
FORM = {"webdataset": {"content": "frames", "every": 30}, "egodex": {"max_side_px": 96}}
FORM["mcap"] = {"pictures": "jpeg"}


@pytest.mark.parametrize(
    "name", ["lerobot", "webdataset", "egodex", "coco", "mcap", "rerun", "egoverse"]
)
def test_assets_write_what_their_launchpad_says(tmp_path: Path, name: str) -> None:
    video = MadeVideo(count=90)
    lake = make(tmp_path, video, more=masks_of(video) | clips_of(video)).lake
    (asset,) = (each for each in DATA_SETS if each.key.to_user_string() == f"{name}_dataset")
    config = {"content": CONTENT.get(name, {}), "form": FORM.get(name, {})}
    with dg.DagsterInstance.ephemeral() as instance:
        done = dg.materialize(
            [asset],
            instance=instance,
            resources={"storage": Storage(lake_root=str(lake.root))},
            run_config={"ops": {f"{name}_dataset": {"config": config}}},
            selection=[asset],
        )
    (event,) = done.asset_materializations_for_node(f"{name}_dataset")
    assert event.metadata["episodes written"].value == 1
    out = lake.root / "exports" / name
    assert event.metadata["folder"].value == str(out)
    found = {
        "lerobot": lambda: len(list(out.rglob("*.mp4"))) == 1,
        "webdataset": lambda: len(samples(out)) == 3,
        "egodex": lambda: len(list(out.rglob("*.hdf5"))) == 1,
        "coco": lambda: len(list(out.rglob("*.jpg"))) == 2,
        "egoverse": lambda: len(list(out.glob("*.zarr"))) == 1,
        "rerun": lambda: len(list(out.glob("*.rrd"))) == 1,
        "mcap": lambda: b"foxglove.CompressedImage" in next(out.glob("*.mcap")).read_bytes(),
    }
    assert found[name]()


@pytest.mark.parametrize("name", ["mcap", "rerun", "egoverse", "vitra"])
def test_formats_take_only_the_footage_that_is_asked_for(tmp_path: Path, name: str) -> None:
    """Nothing is said of whose footage this is, so none of it has a consent."""
    video = MadeVideo(count=90)
    lake = make(tmp_path, video, more=masks_of(video) | clips_of(video))
    assert "has no episodes" in lake.export("--person", "somebody", ok=False, to=name)
