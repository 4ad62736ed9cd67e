"""What a terminal of 80 or 40 columns shows is readable, and what a person copies is whole."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from pseudo_terminal import on_terminal

from dagster_project.cli import main
from ego_assets.catalog import BACKENDS
from tests.support.linked_weights import link_default_weights
from tests.upkeep.test_audit import ITEMS, SHARD, TABLE, Bench

RUN_A, RUN_B = (f"46b2a307-fe62-41ba-a3f1-4e9c0c0365c{n}" for n in "ab")


def ego(*arguments: str) -> str:
    done = CliRunner(env={"COLUMNS": "80"}).invoke(main, list(arguments))
    assert done.exit_code == 0, done.output
    return done.stdout


def is_narrow(told: str, columns: int = 80) -> bool:
    """No line is longer than the terminal, but for one that is a single path or URL."""
    return all(len(line) <= columns or " " not in line.strip() for line in told.splitlines())


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.setenv("EGO_BACKENDS", "")


@pytest.fixture
def lake(tmp_path: Path) -> list[str]:
    """A lake with a table that two runs have made, and a clip in quarantine."""
    bench = Bench(tmp_path)
    for run, fingerprint in ((RUN_A, "g"), (RUN_B, "h")):
        bench.work_again(run, fingerprint)
    attempt = bench.ledger.start(TABLE, ITEMS[1], fingerprint="i", worker="w", run_id=RUN_B)
    error = f"/data/{'long_name_of_a_folder/' * 5}video.mp4 ends early, " + "as it seems, " * 9
    bench.ledger.fail(TABLE, ITEMS[1], attempt, error_class="Bad", error=error, quarantine=True)
    return ["--lake", str(bench.lake.root)]


def test_doctor_does_not_cut_what_is_to_be_copied(
    tmp_path: Path, packaged_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link_default_weights(tmp_path / "weights")
    monkeypatch.setenv("EGO_WEIGHTS", str(tmp_path / "weights"))
    told = ego("doctor", "--lake", str(tmp_path / "lake"))
    urls = {u for e in BACKENDS.values() for u in re.findall(r"https://[^\s;,)]+", e.source)}
    assert urls
    for url in urls:
        assert url in told
    assert f"{tmp_path}/weights/sam2.1-hiera-small/model.safetensors" in told
    assert "…" not in told
    assert is_narrow(told)


def test_doctor_does_not_warn_of_models_that_nobody_chose(
    tmp_path: Path, packaged_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link_default_weights(tmp_path / "weights")
    monkeypatch.setenv("EGO_WEIGHTS", str(tmp_path / "weights"))
    lines = ego("doctor", "--lake", str(tmp_path / "lake")).splitlines()
    of_models = [line for line in lines if re.match(r"\w+ +(segmenter|hand_estimator): ", line)]
    states = {line.split()[2].rstrip(":"): line.split()[0] for line in of_models}
    assert states["sam2"] == states["hamer"] == "unused"
    assert states["landmarks"] == "ok"
    assert lines.index(of_models[-1]) > max(i for i, s in enumerate(lines) if s.startswith("ok"))


def test_history_shows_whole_run_ids(lake: list[str]) -> None:
    told = ego("history", *lake)
    assert f"{SHARD} {TABLE}\n" in told
    for run in (RUN_A, RUN_B):
        assert f"{run}: 4 units" in told
    assert is_narrow(told)


def test_diff_is_readable(lake: list[str]) -> None:
    told = ego("diff", RUN_A[:-1] + "a", RUN_B, *lake)
    assert f"A: {RUN_A}\nB: {RUN_B}\n" in told
    assert f"{SHARD} {TABLE}\n" in told
    assert "rows: 12 in A, 12 in B; 12 equal, 0 changed, 0 only in A" in re.sub(r"\s+", " ", told)
    assert is_narrow(told)


def test_quarantine_shows_whole_names(lake: list[str]) -> None:
    told = ego("quarantine", "ls", *lake)
    assert f"{TABLE} {ITEMS[1]}\n" in told
    assert f"/data/{'long_name_of_a_folder/' * 5}video.mp4" in told
    assert is_narrow(told)


SEVERAL = """
import json, sys
from contextlib import suppress
from dagster_project.cli import main
for command in json.loads(sys.argv[1]):
    with suppress(SystemExit):
        main(command)
    print("--- end")
"""


@pytest.mark.slow
@pytest.mark.parametrize("columns", [80, 40])
def test_listings_are_readable_on_a_terminal(lake: list[str], tmp_path: Path, columns: int) -> None:
    commands = (
        ["status", *lake],
        ["history", *lake],
        ["diff", RUN_A, RUN_B, *lake],
        ["quarantine", "ls", *lake],
        ["doctor", *lake],
    )
    program = [sys.executable, "-c", SEVERAL, json.dumps(commands)]
    with on_terminal(program, columns, EGO_WEIGHTS=str(tmp_path / "weights")) as terminal:
        assert terminal.end() == 0, terminal.shown
        shown = terminal.shown.replace("\r\n", "\n").split("--- end\n")
    status, history, diff, quarantine, doctor = shown[:5]
    for told in shown:
        assert is_narrow(told, columns), told
        assert "…" not in told, told
        assert not re.search(r"\w-\n *\w", told), "no word is broken"
    words = re.sub(r"\s+", " ", status)
    for table, expected in (("clips", 3), ("hand_poses", 0)):
        if columns == 80:
            assert re.search(rf"\b{table}( \d+){{2}} {expected}( \d+){{3}} ", words), status
        else:
            done = f"{expected} done, 1 quarantined" if expected else "no units yet"
            assert re.search(rf"\b{table}: [\d.]+ % done \({done}\)", words), status
    for run in (RUN_A, RUN_B):
        assert run in history
        assert run in diff
    assert "12 in A, 12 in B; 12 equal, 0 changed" in re.sub(r"\s+", " ", diff)
    assert f"{TABLE} {ITEMS[1]}\n" in quarantine
    assert f"/data/{'long_name_of_a_folder/' * 5}video.mp4" in quarantine
    assert f"{tmp_path}/weights/sam2.1-hiera-small/model.safetensors" in doctor
