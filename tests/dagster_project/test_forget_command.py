"""`ego forget` as a person uses it: on a lake of `ego run`, with what Dagster remembers of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from dagster_project.cli import main
from dagster_project.home import open_instance
from resources.lake import Lake
from resources.ledger import Ledger
from resources.ledger.contents import Tombstone
from resources.raw import tombstones
from resources.raw.places import files_of
from resources.raw.tombstones import Left
from tests.engine.raw_bench import write_video
from tests.support.erased import bytes_with

EGO = [sys.executable, "-c", "from dagster_project.entry import main; main()"]


def ego(*arguments: str, status: int = 0) -> Any:
    done = subprocess.run([*EGO, *arguments, "--json"], capture_output=True, text=True, timeout=500)
    assert done.returncode == status, f"{done.stdout}\n{done.stderr[-4000:]}"
    return json.loads(done.stdout)


def ego_here(*arguments: str, status: int = 0) -> str:
    done = CliRunner().invoke(main, list(arguments))
    assert done.exit_code == status, done.output
    return done.stdout if "--json" in arguments else done.output


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with raw videos, and the lake that `ego run` made of them; one of the videos."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "raw").mkdir()
    for number, name in enumerate(("anna's kitchen ä", "b")):
        write_video(folder / "raw" / f"{name}.mp4", frames=12 + number, light=60 + 9 * number)
    ego("run", str(folder / "raw"), "--lake", str(folder / "lake"))
    (row,) = [
        r
        for shard in Lake(folder / "lake").shards()
        for r in Lake(folder / "lake").read("video_manifest", shard).to_pylist()
        if "anna" in r["uri"]
    ]
    return folder, row["video_id"]


def work(lake: str, video: str) -> list[str]:
    """What the ledger says of files, videos and clips, but for those of one video."""
    entries = Ledger.of(lake).entries()
    (row,) = [e for e in entries if e.stage == "video_manifest" and e.item_id in items(lake)]
    mine = [e for e in entries if e.video_id and not e.item_id.startswith(video)]
    return [str((e.stage, e.item_id, e.state, e.run_id, e.started_at)) for e in (row, *mine)]


def items(lake: str) -> set[str]:
    """The files of the other video."""
    found = Lake(lake)
    files = [f for shard in found.shards() for f in files_of(found, shard)]
    return {f.item for f in files if f.uri.endswith("/b.mp4")}


def run_ids(lake: str) -> list[str]:
    with open_instance(lake) as instance:
        return [run.run_id for run in instance.get_runs()]


def test_it_says_what_it_would_erase_and_asks(finished: tuple[Path, str]) -> None:
    folder, video = finished
    lake = str(folder / "lake")
    shown = ego_here("forget", video, "--lake", lake, status=1)
    assert video in shown
    assert "anna's kitchen" in shown
    assert "raw files are not touched" in shown
    assert "cannot be taken back" in shown
    assert len(bytes_with(folder / "lake", video)) > 10
    assert "no video" in ego_here("forget", "nobody.mp4", "--lake", lake, "--yes", status=2)


def test_a_run_that_is_under_way_is_waited_for(finished: tuple[Path, str]) -> None:
    folder, video = finished
    lake = str(folder / "lake")
    (shard,) = Lake(lake).shards()
    with open_instance(lake) as instance:
        run = dg.DagsterRun(
            "whole_graph", tags={"dagster/partition": shard}, status=dg.DagsterRunStatus.STARTED
        )
        instance.add_run(run)
        shown = ego_here("forget", video, "--lake", lake, "--yes", status=1)
        assert f"run {run.run_id} of shard {shard} is under way" in shown
        # As is one of a video whose erasure was interrupted, whoever goes on with it.
        tombstones.write(Lake(lake), Tombstone(video, "", 1, "2026-05-02"), Left())
        shown = ego_here("verify", "--repair", "--lake", lake, status=1)
        assert f"run {run.run_id} of shard {shard} is under way" in shown
        (folder / "new.mp4").write_bytes(b"no shard has this one")
        shown = ego_here("forget", str(folder / "new.mp4"), "--lake", lake, "--yes", status=1)
        assert f"run {run.run_id} of shard {shard} is under way" in shown
        assert len(bytes_with(folder / "lake", video)) > 10
        shutil.rmtree(folder / "lake" / "_forgotten")
        with Ledger.of(lake).transaction() as connection:
            connection.execute(sa.text("DELETE FROM forgotten"))
        instance.delete_run(run.run_id)


def test_neither_the_lake_nor_dagster_has_a_byte_of_it_and_nothing_is_done_again(
    finished: tuple[Path, str], tmp_path: Path
) -> None:
    folder, video = finished
    lake = str(folder / "lake")
    raw = folder / "raw"
    before = work(lake, video)
    found = json.loads(
        ego_here("forget", str(raw / "anna's kitchen ä.mp4"), "--lake", lake, "--yes", "--json")
    )
    assert [each["video_id"] for each in found["erased"]] == [video]
    for word in (video, "anna"):
        assert bytes_with(folder / "lake", word) == []
    assert "0 problems" in ego_here("verify", "--lake", lake)
    assert (raw / "anna's kitchen ä.mp4").exists()
    shutil.copy(raw / "anna's kitchen ä.mp4", raw / "anna 2.mp4")
    summary = ego("run", str(raw), "--lake", lake)
    assert sorted(Path(uri).name for uri in summary["forgotten"]) == [
        "anna 2.mp4",
        "anna's kitchen ä.mp4",
    ]
    assert summary["videos"] == {"total": 1, "accepted": 1, "rejected": 0}
    assert work(lake, video) == before
    runs = run_ids(lake)  # what is made of whole shards was made again, once
    ego_here("run", str(raw), "--lake", lake)
    assert run_ids(lake) == runs
    assert bytes_with(folder / "lake", "anna") == []
    only = ego_here("run", str(raw / "anna 2.mp4"), "--lake", lake, "--json")
    assert json.loads(only)["ok"]
    (folder / "lake" / "_forgotten" / f"{video}.json").unlink()
    assert "has no tombstone" in ego_here("verify", "--lake", lake, status=1)
    ego_here("verify", "--repair", "--lake", lake)
    assert "0 problems" in ego_here("verify", "--lake", lake)
