"""`--set` and `--config` say what the launchpad would, and are checked before anything starts."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from dagster_project import runs
from dagster_project.cli import main
from dagster_project.cli.stage_settings import read_settings
from dagster_project.run_summary import Summary
from dagster_project.runs import Options
from resources.lake import Lake


def test_the_command_line_goes_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("hand_poses: {smoothing_s: 0.3}\nclips: {max_clip_s: 10}\n")
    found = read_settings(["hand_poses.smoothing_s=0.2"], file)
    assert found == {"hand_poses": {"smoothing_s": 0.2}, "clips": {"max_clip_s": 10.0}}


def test_a_table_names_the_stage_that_makes_it() -> None:
    found = read_settings(["hand_masks.max_objects=3", "clips.threshold=null"], None)
    assert found == {"segmentation": {"max_objects": 3}, "clips": {"threshold": None}}


def test_the_run_has_them_as_the_launchpad_would_give_them(tmp_path: Path) -> None:
    settings = {"clips": {"max_clip_s": 10.0}}
    config = Options(settings=settings, force=True).run_config(Lake(tmp_path))
    assert config["ops"]["clips"] == {"config": {"max_clip_s": 10.0, "force": True}}
    assert config["ops"]["hand_poses"] == {"config": {"force": True}}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("hand_pose.smoothing_s=0.2", "there is no stage hand_pose; did you mean hand_poses?"),
        ("hand_poses.smoothing=2", "did you mean smoothing_s?"),
        ("hand_poses.smoothing_s=many", "hand_poses.smoothing_s: Input should be"),
        ("detections.max_objects=-1", "greater than or equal to 0"),
        ("hand_poses.smoothing_s", "give STAGE.SETTING=VALUE"),
        ("hand_poses.smoothing_s=[", "the value is no YAML"),
    ],
)
@pytest.mark.parametrize("command", ["run", "retry"])
def test_what_makes_no_sense_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, given: str, words: str
) -> None:
    monkeypatch.setattr(runs, "run_shards", lambda *_, **__: pytest.fail("it began"))
    monkeypatch.setattr(runs, "run_paths", lambda *_, **__: pytest.fail("it began"))
    lake = Lake(tmp_path / "lake")
    lake.write_shard("20260101-0000", {"files": []})
    places = [str(tmp_path)] if command == "run" else []
    arguments = [command, *places, "--lake", lake.location, "--set", given]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2, done.output
    assert words in " ".join(done.output.split())


@pytest.mark.parametrize(
    "text", ["- hand_poses", "hand_poses: 2", "hand_poses: {1: 2}", "a: [", "hand_posse: {a: 1}"]
)
def test_a_file_that_makes_no_sense_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    done = CliRunner().invoke(
        main, ["run", str(tmp_path), "--lake", str(tmp_path / "lake"), "--config", str(file)]
    )
    assert done.exit_code == 2, done.output
    assert "settings.yaml" in done.output


def test_the_program_hands_them_to_the_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[object] = []

    def run_paths(_: object, lake: str, **options: object) -> Summary:
        given.append(options["settings"])
        return Summary(lake, [], videos={"total": 0, "accepted": 0, "rejected": 0}, clips={})

    monkeypatch.setattr(runs, "run_paths", run_paths)
    monkeypatch.setattr("dagster_project.cli.program.report", lambda *_: None)
    arguments = [
        "run",
        str(tmp_path),
        "--lake",
        str(tmp_path / "lake"),
        "--set",
        "clips.overlap_s=1",
    ]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert given == [{"clips": {"overlap_s": 1.0}}]


def test_settings_are_given_a_name() -> None:
    found = read_settings(["hand_poses.side_px=960", "clips.threshold=25"], None, "wide-cuts")
    assert found["hand_poses"] == {"side_px": 960, "profile": "wide-cuts"}
    assert found["clips"]["profile"] == "wide-cuts"
    for given, name, words in (
        ([], "wide-cuts", "name the settings of --set or --config"),
        (["clips.threshold=25"], "two words", "String should match pattern"),
    ):
        with pytest.raises(click.UsageError, match=words):
            read_settings(given, None, name)
