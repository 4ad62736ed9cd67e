"""What comes from outside is shown as text: neither rich's markup nor the terminal's sequences."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from dagster_project import doctor
from dagster_project.cli import main
from dagster_project.cli.terminal import plain, report
from dagster_project.doctor import Finding
from dagster_project.runs import Summary
from tests.upkeep.test_audit import ITEMS, TABLE, Bench

ODD = "[/b] [red]x[/red] :smile:"
EVIL = f"{ODD}\x1b[2J\x07"


def ego(*arguments: str, status: int = 0) -> str:
    done = CliRunner(env={"COLUMNS": "300"}).invoke(main, list(arguments))
    assert done.exit_code == status, done.output
    return done.output


@pytest.fixture(autouse=True)
def _own_dagster_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / ODD)


def test_names_of_lakes_and_reasons_of_failures(bench: Bench) -> None:
    lake = str(bench.lake.root)
    bench.work_again(ODD, "g")
    attempt = bench.ledger.start(TABLE, ITEMS[0], fingerprint="h", worker="w", run_id=ODD)
    bench.ledger.fail(TABLE, ITEMS[0], attempt, error_class="x", error=EVIL, quarantine=True)
    bench.ledger.wait_for_gpu("hand_poses", ITEMS[0], EVIL)
    listings = ("status", "quarantine ls", "history", "doctor", "rebuild-ledger")
    for command in (*map(str.split, listings), ["diff", "r", ODD]):
        told = ego(*command, "--lake", lake)
        # A title is as narrow as its table.
        assert re.sub(r"\s+", "", ODD) in re.sub(r"\s+", "", told), command
        assert "\x1b" not in told, command
        assert "\x07" not in told, command
    assert ODD in ego("verify", "--lake", lake)
    assert "\x1b" not in ego("quarantine", "show", ITEMS[0], "--lake", lake)
    assert ODD in ego("report", "--lake", lake)


def test_findings_of_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [Finding(ODD, "ok", EVIL)]
    monkeypatch.setattr(doctor, "examine", lambda *_, **__: found)
    assert ego("doctor").count(ODD) == 2


def test_the_summary_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    summary = Summary(
        lake=f"/data/{ODD}",
        shards=[],
        videos=dict.fromkeys(("total", "accepted", "rejected"), 1),
        clips=dict.fromkeys(("total", "done", "failed", "quarantined"), 1),
        rejected=[{"uri": f"/raw/{ODD}.mp4", "reason": "r", "detail": EVIL}],
        failures=[{"state": "failed", "stage": "s", "unit": "u", "reason": EVIL}],
        waiting_for_gpu={"hand_poses": 1},
        degraded=EVIL,
        problems=[EVIL],
    )
    with pytest.raises(SystemExit):
        report(summary, as_json=False)
    told = capsys.readouterr().out
    assert told.count(":smile:") == 6
    assert "\x1b" not in told


def test_only_control_characters_are_spelled_out() -> None:
    assert plain("a\tb\x1b[1m\nç é 漢 \u202e").plain == "a\tb\\x1b[1m\nç é 漢 \\u202e"
