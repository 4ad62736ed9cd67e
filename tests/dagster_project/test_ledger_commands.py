"""A ledger that is lost, damaged or older than its lake, as a person sees and mends it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from dagster_project import runs
from dagster_project.cli import main
from dagster_project.jobs import register_videos
from resources.compute import Compute
from resources.lake import Lake
from resources.ledger import Ledger, State
from resources.raw_lake import RawLake
from resources.storage import Storage
from tests.engine.raw_bench import RawBench
from tests.support.instances import dagster_instance
from tests.support.rendered import small_sample
from tests.upkeep.test_audit import ITEMS, TABLE, Bench

DIFFER = "the ledger and the lake differ in 1 table of a shard: `ego verify --repair`"


def ego(*arguments: str, status: int = 0) -> str:
    done = CliRunner().invoke(main, list(arguments))
    assert done.exit_code == status, done.output
    return done.output


def found(*arguments: str) -> Any:
    return json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)


@pytest.fixture(autouse=True)
def _own_dagster_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def folder(bench: Bench) -> Path:
    return bench.lake.root / "_ledger"


def file(bench: Bench) -> Path:
    return folder(bench) / "ledger.sqlite"


def test_a_lost_ledger_is_made_again_by_the_next_command(bench: Bench) -> None:
    lake = str(bench.lake.root)
    shutil.rmtree(folder(bench))
    said = ego("status", "--lake", lake)
    assert "was lost, and is made again: 4 results in the lake, 4 of them entered" in said
    assert {e.state for e in bench.ledger.entries()} == {State.DONE}
    assert "was lost" not in ego("status", "--lake", lake)
    assert ego("retry", "--lake", lake).strip() == "nothing to do"


def test_a_run_says_that_it_makes_a_lost_ledger_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = RawBench(tmp_path, videos=1)
    made.run(stages=("probe",))
    shutil.rmtree(made.lake.root / "_ledger")
    monkeypatch.setattr(
        runs, "run_shards", lambda root, shards, *_, **__: runs.Summary(root, shards)
    )
    notes: list[str] = []
    runs.run_paths([made.raw], made.lake.location, tell=lambda p: notes.append(p.note))
    assert any("was lost, and is made again" in note for note in notes)


def test_the_job_that_registers_videos_makes_a_lost_ledger_again(tmp_path: Path) -> None:
    made = RawBench(tmp_path, videos=1)
    made.run(stages=("probe",))
    shutil.rmtree(made.lake.root / "_ledger")
    resources = {
        "raw_lake": RawLake(folders=[str(made.raw)]),
        "storage": Storage(lake_root=made.lake.location),
        "compute": Compute(),
    }
    with dagster_instance(tmp_path) as instance:
        assert register_videos.execute_in_process(resources=resources, instance=instance).success
    assert made.counts(State.DONE) == [1, 0, 0]


def test_rebuild_ledger_enters_what_is_not_known_and_can_be_repeated(bench: Bench) -> None:
    lake = str(bench.lake.root)
    shutil.rmtree(folder(bench))
    made = found("rebuild-ledger", "--lake", lake)
    assert made["tables"][TABLE] == {"found": 4, "entered": 4}
    assert (made["problems"], made["put_aside"]) == ([], [])
    with bench.ledger.transaction() as connection:
        connection.execute(sa.text(f"DELETE FROM work WHERE unit_id = '{ITEMS[1]}'"))
    assert found("rebuild-ledger", "--lake", lake)["tables"][TABLE]["entered"] == 1
    assert found("rebuild-ledger", "--lake", lake)["tables"][TABLE]["entered"] == 0
    assert "4 results in the lake, 0 of them entered" in ego("rebuild-ledger", "--lake", lake)
    assert ego("verify", "--lake", lake).startswith("0 problems")


def test_an_older_ledger_is_seen_and_mended(bench: Bench, tmp_path: Path) -> None:
    lake = str(bench.lake.root)
    ego("status", "--lake", lake)  # the ledger is whole from now on
    shutil.copytree(folder(bench), tmp_path / "backup")
    bench.work_again("two", "g")
    assert "differ" not in ego("status", "--lake", lake)
    shutil.rmtree(folder(bench))
    shutil.copytree(tmp_path / "backup", folder(bench))
    assert DIFFER in ego("status", "--lake", lake)
    told = found("status", "--lake", lake)["differences"]
    assert (told["tables_of_shards"], told["first"][0]["table"]) == (1, TABLE)
    said = ego("stale", "--lake", lake)
    assert DIFFER in said
    assert "0 stale" not in said
    assert "newer: clips" in ego("verify", "--lake", lake, status=1)
    assert "entered 4 results" in ego("verify", "--lake", lake, "--repair")
    assert "differ" not in ego("status", "--lake", lake)
    assert {e.run_id for e in bench.ledger.entries()} == {"two"}


def _text(path: Path) -> None:
    path.write_text("these are the notes of the meeting\n" * 200)


def _middle(path: Path) -> None:
    """Overwritten by a program that thought it was free space."""
    data = bytearray(path.read_bytes())
    third = len(data) // 3
    data[third : 2 * third] = os.urandom(third)
    path.write_bytes(data)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _no_table(path: Path) -> None:
    with sa.create_engine(f"sqlite:///{path}").begin() as connection:
        connection.execute(sa.text("DROP TABLE work"))


@pytest.mark.parametrize("damage", [_text, _middle, _cut, _no_table])
def test_a_damaged_ledger_is_named_and_put_aside(
    bench: Bench, damage: Callable[[Path], None]
) -> None:
    lake = str(bench.lake.root)
    bench.ledger.expect(TABLE, "another", [(f"{n:016d}", None) for n in range(2000)])
    for path in folder(bench).iterdir():
        if path != file(bench):
            path.unlink()
    damage(file(bench))
    told = 0
    for command in (["status"], ["verify"], ["stale"], ["retry"], ["quarantine", "ls"]):
        done = CliRunner().invoke(main, [*command, "--lake", lake])
        if done.exit_code == 0 and damage is _middle:
            continue  # it needs nothing of what is damaged
        assert done.output.startswith("Error: the ledger ")
        assert done.output.count("\n") == 1
        assert "`ego rebuild-ledger`" in done.output
        told += 1
    assert told
    damaged = file(bench).read_bytes()
    (aside,) = found("rebuild-ledger", "--lake", lake)["put_aside"]
    assert Path(aside).name.startswith("ledger.sqlite.damaged-")
    assert Path(aside).read_bytes() == damaged
    assert ego("verify", "--lake", lake).startswith("0 problems")
    assert {e.state for e in bench.ledger.entries()} == {State.DONE}


def test_an_empty_file_is_a_ledger_that_was_lost(bench: Bench) -> None:
    for path in folder(bench).iterdir():
        path.unlink()
    file(bench).touch()
    assert "was lost, and is made again" in ego("status", "--lake", str(bench.lake.root))
    assert len(bench.ledger.entries()) == 4


def test_what_belongs_to_a_damaged_ledger_goes_with_it(bench: Bench) -> None:
    """What a killed process left in the log is of the damaged file, not of the new one."""
    with sa.create_engine(bench.ledger.url).connect() as left_open:
        left_open.execute(sa.text("SELECT 1 FROM work"))
        _text(file(bench))
        log = file(bench).with_name("ledger.sqlite-wal")
        log.write_bytes(b"x" * 100)
        aside = found("rebuild-ledger", "--lake", str(bench.lake.root))["put_aside"]
    assert len(aside) >= 1
    assert not log.exists() or log.read_bytes()[:1] != b"x"
    assert {e.state for e in bench.ledger.entries()} == {State.DONE}


def test_a_run_on_a_damaged_ledger_says_so(bench: Bench, tmp_path: Path) -> None:
    _text(file(bench))
    video = tmp_path / "a.mp4"
    video.write_bytes(b"no video")
    said = ego("run", str(video), "--lake", str(bench.lake.root), status=1)
    assert "is damaged" in said
    assert "Traceback" not in said


def test_what_cannot_be_a_database_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EGO_LEDGER_URL", f"sqlite:///{bench.lake.root}/clips")
    said = ego("status", "--lake", str(bench.lake.root), status=1)
    assert said.startswith("Error: EGO_LEDGER_URL holds no URL of a database that lasts: ")


@pytest.mark.heavy
def test_nothing_is_computed_again_after_a_loss(tmp_path: Path) -> None:
    """The whole graph, twice: rows, files and what is done are as they were."""
    video = small_sample(tmp_path / "raw")
    lake_root = tmp_path / "lake"
    first = found("run", str(video), "--lake", str(lake_root))
    assert first["ok"]

    def files() -> dict[str, bytes]:
        left_out = {"_ledger", ".dagster", "_locks", "_baselines"}
        return {
            str(p.relative_to(lake_root)): p.read_bytes()
            for p in lake_root.rglob("*")
            if p.is_file() and not left_out & set(p.relative_to(lake_root).parts)
        }

    before, ledger = files(), Ledger.beside(lake_root)
    known = {(e.stage, e.item_id): (e.fingerprint, e.run_id, e.state) for e in ledger.entries()}
    shutil.rmtree(lake_root / "_ledger")
    again = found("run", str(video), "--lake", str(lake_root))
    assert again["ok"]
    assert (again["rows"], again["clips"]) == (first["rows"], first["clips"])
    assert files() == before
    told = {(e.stage, e.item_id): (e.fingerprint, e.run_id, e.state) for e in ledger.entries()}
    assert told == known
    assert found("status", "--lake", str(lake_root))["differences"]["tables_of_shards"] == 0
    assert Lake(lake_root).shards() == first["shards"]
