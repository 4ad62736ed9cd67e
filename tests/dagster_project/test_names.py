"""A name that is not there is refused, with what may have been meant; options have one name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from dagster_project.cli import main
from resources.ledger import State
from tests.upkeep.test_audit import ITEMS, SHARD, TABLE, Bench

TYPO = f"{ITEMS[1][:-1]}l"


def ego(*arguments: str, status: int = 0) -> str:
    done = CliRunner().invoke(main, list(arguments))
    assert done.exit_code == status, done.output
    return done.output


@pytest.fixture(autouse=True)
def _own_dagster_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """With one item in quarantine."""
    made = Bench(tmp_path)
    attempt = made.ledger.start(TABLE, ITEMS[1], fingerprint="g", worker="w", run_id="r")
    made.ledger.fail(TABLE, ITEMS[1], attempt, error_class="x", error="y", quarantine=True)
    return made


@pytest.mark.parametrize(
    "command",
    [
        ["quarantine", "drop", "--unit", TYPO],
        ["quarantine", "release", "--unit", TYPO],
        ["quarantine", "show", TYPO],
        ["retry", "--unit", TYPO],
    ],
)
def test_a_unit_that_is_not_there(bench: Bench, command: list[str]) -> None:
    told = ego(*command, "--lake", str(bench.lake.root), status=2)
    assert f"no clip, video or file {TYPO}" in told
    assert f"did you mean {ITEMS[1]}?" in told
    (entry,) = bench.ledger.entries(item_id=ITEMS[1])
    assert entry.state is State.QUARANTINED


@pytest.mark.parametrize(
    "command",
    [
        ["quarantine", "ls"],
        ["quarantine", "drop"],
        ["quarantine", "release"],
        ["retry"],
        ["stale"],
        ["verify"],
        ["history"],
        ["diff", "r", "r"],
        ["rollback", "r"],
    ],
)
def test_a_shard_that_is_not_there(bench: Bench, command: list[str]) -> None:
    told = ego(*command, "--shard", "20260101-00000", "--lake", str(bench.lake.root), status=2)
    assert f"there is no shard 20260101-00000 in {bench.lake.root}; did you mean {SHARD}?" in told


@pytest.mark.parametrize(
    "command",
    [
        ["quarantine", "ls", "--table"],
        ["quarantine", "show", ITEMS[1], "--table"],
        ["quarantine", "drop", "--table"],
        ["quarantine", "release", "--stage"],
        ["retry", "--table"],
        ["history", "--table"],
        ["rollback", "r", "--table"],
        ["accept-drift"],
    ],
)
def test_a_table_that_is_not_there(bench: Bench, command: list[str]) -> None:
    told = ego(*command, "hand_pose", "--lake", str(bench.lake.root), status=2)
    assert "there is no table hand_pose; did you mean hand_poses?" in told
    told = ego(*command, "xyz", "--lake", str(bench.lake.root), status=2)
    assert "there is no table xyz: there are video_manifest, clips, " in told


@pytest.mark.parametrize("command", [["rollback"], ["diff", "r"]])
def test_a_run_that_is_not_there(bench: Bench, command: list[str]) -> None:
    bench.work_again("night-0123456789", "g")
    told = ego(*command, "night-0123456788", "--lake", str(bench.lake.root), status=2)
    assert "did you mean night-0123456789?" in told


@pytest.mark.parametrize(
    ("what", "meant"),
    [
        (f"clip/{ITEMS[1]}", "did you mean clips?"),
        (TYPO, f"did you mean {ITEMS[1]}?"),
        (f"{ITEMS[2]}-000", f"did you mean {ITEMS[2]}-0000?"),
        (f"hand_poses/{ITEMS[2]}-000", f"did you mean {ITEMS[2]}-0000?"),
    ],
)
def test_trace_suggests_what_was_meant(bench: Bench, what: str, meant: str) -> None:
    bench.ledger.expect("hand_poses", SHARD, [(f"{ITEMS[2]}-0000", ITEMS[2])])
    assert meant in ego("trace", what, "--lake", str(bench.lake.root), status=2)


def test_every_command_that_takes_a_name_refuses_a_wrong_one(bench: Bench) -> None:
    """Also those to come: by the options and arguments that commands have."""

    def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
        for name, command in group.commands.items():
            if isinstance(command, click.Group):
                yield from commands(command, (*path, name))
            for parameter in command.params:
                if parameter.name in {"shard", "shards", "unit", "stage", "table", "tables"}:
                    yield (*path, name, parameter.name, parameter.opts[0])

    filled = {"rollback": ["r"], "diff": ["r", "r"]}
    found = list(commands(main))
    assert len(found) >= 20
    for *path, kind, option in found:
        given = ["typo"] if option == kind else [option, "typo"]
        if option != "unit":
            given += filled.get(path[-1], [])
        if path[-1] == "show" and kind == "stage":
            given.append(ITEMS[1])
        told = ego(*path, *given, "--lake", str(bench.lake.root), status=2)
        assert "there is no" in told, (path, kind)


def test_what_is_dropped_was_in_quarantine(bench: Bench) -> None:
    lake = ["--lake", str(bench.lake.root)]
    told = ego("quarantine", "drop", "--unit", ITEMS[0], *lake, status=1)
    assert f"nothing of {ITEMS[0]} is in quarantine: {TABLE} is done" in told
    for count in (1, 0):  # a second time changes nothing
        told = ego("quarantine", "drop", "--unit", ITEMS[1], *lake, "--json")
        assert json.loads(told) == {"dropped": count}


@pytest.mark.parametrize("name", ["--table", "--stage"])
def test_a_table_is_named_by_either_option(bench: Bench, name: str) -> None:
    lake = ["--lake", str(bench.lake.root)]
    assert "1 in quarantine" in ego("quarantine", "ls", name, TABLE, *lake)
    assert "0 in quarantine" in ego("quarantine", "ls", name, "hand_poses", *lake)
    assert len(json.loads(ego("history", name, TABLE, *lake, "--json"))) == 1
    assert TABLE in ego("rollback", "r", name, TABLE, *lake)


@pytest.mark.parametrize("command", [["history"], ["rollback"], ["retry"], ["quarantine", "drop"]])
def test_help_shows_one_name(command: list[str]) -> None:
    told = ego(*command, "--help")
    assert "--table" in told
    assert "--stage" not in told


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "segmentor: sam2",
            "segmentor: Extra inputs are not permitted; did you mean segmenter?",
        ),
        ("segmenter: sam22", "no segmenter named 'sam22'"),
        ("segmenter: sam22", "did you mean sam2?"),
        ("settings: {segmentor: {}}", "no operator 'segmentor'; did you mean segmenter?"),
        (
            "{segmenter: sam2, settings: {segmenter: {chekpoint: a}}}",
            "chekpoint: Extra inputs are not permitted; did you mean checkpoint?",
        ),
        ("colour: red", "colour: Extra inputs are not permitted. There are weights_dir"),
    ],
)
def test_a_wrong_name_in_a_backends_file(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "backends.yaml"
    file.write_text(text)
    told = ego("run", "/nowhere", "--backends", str(file), status=2)
    assert words in told
