"""`ego run` over raw files that move, vanish and come back, as a person uses it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dagster_project.cli import main
from dagster_project.run_progress import Progress, Watch
from dagster_project.runs import run_shards
from ego_assets.catalog import TABLES
from resources.lake import Lake
from resources.ledger import Ledger, State
from tests.engine.raw_bench import RawBench, is_missed, wait_until, write_video
from tests.support.numbered_video import write_numbered

EGO = str(Path(sys.executable).with_name("ego"))


def ego(*arguments: str, status: int = 0) -> Any:
    done = subprocess.run([EGO, *arguments, "--json"], capture_output=True, text=True, timeout=500)
    assert done.returncode == status, f"{done.stdout}\n{done.stderr[-4000:]}"
    return json.loads(done.stdout or "null")  # what makes no sense is only told on stderr


def ego_here(*arguments: str, status: int = 0) -> Any:
    """As `ego`, without a process of its own: for what computes nothing."""
    done = CliRunner().invoke(main, [*arguments, "--json"])
    assert done.exit_code == status, done.output
    return json.loads(done.stdout or "null")


@contextmanager
def in_background(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [EGO, *arguments, "--json"], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


def make_videos(folder: Path, names: str) -> None:
    folder.mkdir()
    for number, name in enumerate(names):
        write_video(folder / f"{name}.mp4", frames=12 + number, light=60 + 9 * number)


def rows(lake: Path) -> dict[str, list[dict[str, Any]]]:
    """All rows, but for what is named after the lake's folder or its shard."""
    found = Lake(lake)
    return {
        table: sorted(
            (
                {k: v for k, v in row.items() if k not in {"uri", "shard"}}
                for shard in found.shards()
                for row in found.read(table, shard).to_pylist()
            ),
            key=str,
        )
        for table in TABLES
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder with the lake of a run over three raw videos, and with these; all rows."""
    folder = tmp_path_factory.mktemp("undisturbed")
    make_videos(folder / "raw", "abc")
    summary = ego("run", str(folder / "raw"), "--lake", str(folder / "lake"))
    assert summary["clips"]["done"] == 3
    return folder, rows(folder / "lake")


@pytest.mark.heavy
def test_a_retry_knows_files_by_where_they_are_now(tmp_path: Path) -> None:
    """As `ego retry` does, which names no files."""
    bench = RawBench(tmp_path)
    bench.run(stages=("probe",))
    for path in [*bench.raw.iterdir()]:
        path.rename(path.with_name(f"new_{path.name}"))
    bench.register()
    write_video(bench.raw / "new_a.mp4", frames=20, light=200)
    old = bench.video("new_a.mp4")["video_id"]
    summary = run_shards(bench.lake.location, bench.lake.shards())
    assert summary.videos == {"total": 3, "accepted": 3, "rejected": 0}
    assert summary.ok
    (replaced,) = summary.replaced
    assert (replaced["uri"], replaced["was"]) == (str(bench.raw / "new_a.mp4"), old)
    assert replaced["video_id"] == bench.video("new_a.mp4")["video_id"] != old


def test_the_terminal_says_once_that_a_folder_is_away(tmp_path: Path) -> None:
    bench = RawBench(tmp_path)
    bench.run(stages=("probe",))
    (shard,) = bench.lake.shards()
    told: list[Progress] = []
    watch = Watch(bench.ledger, told.append)
    watch.look({shard: "run"})
    bench.raw.rename(tmp_path / "kept")
    bench.make(stages=("probe",))
    watch.look({shard: "run"})
    watch.look({shard: "run"})
    (note,) = [p.note for p in told if p.note]
    assert f"{bench.raw} is away" in note


@pytest.mark.slow
def test_files_that_move_and_vanish_are_no_dead_end(
    undisturbed: tuple[Path, dict[str, Any]],
) -> None:
    folder, before = undisturbed
    raw, lake = folder / "raw", folder / "lake"
    work = {(e.stage, e.item_id): (e.state, e.finished_at) for e in Ledger.beside(lake).entries()}
    (raw / "b.mp4").rename(raw / "z.mp4")
    (raw / "c.mp4").unlink()
    summary = ego_here("run", str(raw), "--lake", str(lake))
    assert summary["moved"] == [{"uri": str(raw / "z.mp4"), "was_at": str(raw / "b.mp4")}]
    (gone,) = summary["gone"]
    assert gone["uri"] == str(raw / "c.mp4")
    assert summary["videos"] == {"total": 2, "accepted": 2, "rejected": 0}
    assert rows(lake) == before
    summary = ego_here("run", str(raw), "--lake", str(lake))
    assert (summary["moved"], summary["gone"], summary["failures"]) == ([], [], [])
    raw.rename(folder / "renamed")
    summary = ego_here("run", str(folder / "renamed"), "--lake", str(lake))
    assert len(summary["moved"]) == 2
    ego_here("run", str(raw), "--lake", str(lake), status=2)
    assert rows(lake) == before
    assert ego_here("retry", "--lake", str(lake)) == {"shards": []}
    assert ego_here("stale", "--lake", str(lake)) == {}
    assert ego_here("status", "--lake", str(lake))["failures"] == []
    assert ego_here("verify", "--lake", str(lake))["problems"] == []
    again = {(e.stage, e.item_id): (e.state, e.finished_at) for e in Ledger.beside(lake).entries()}
    assert again == work


@pytest.mark.slow
def test_files_that_arrive_in_parts_are_taken_once_they_are_whole(tmp_path: Path) -> None:
    """No rejection sticks, and no row is left of what was there in between."""
    raw, lake, fast = tmp_path / "raw", tmp_path / "lake", {"movflags": "faststart"}
    whole = {
        "a.mp4": write_numbered(tmp_path / "a.mp4", 30, mux=fast).read_bytes(),
        "b.mp4": write_numbered(tmp_path / "b.mp4", 36, options={"g": "5"}).read_bytes(),
    }
    raw.mkdir()
    (raw / ".a.mp4.Xk3f9Q").write_bytes(whole["a.mp4"][:-100])  # as rsync names it
    for name, data in whole.items():
        (raw / name).write_bytes(data[: len(data) * 6 // 10])
    summary = ego("run", str(raw), "--lake", str(lake))
    assert summary["videos"] == {"total": 2, "accepted": 1, "rejected": 1}
    cut = {r["reject_reason"]: r["missing_s"] for r in rows(lake)["video_manifest"]}
    assert cut.keys() == {None, "truncated"} and cut[None] > 0.2
    for name, data in whole.items():
        (raw / name).write_bytes(data)
    summary = ego("run", str(raw), "--lake", str(lake))
    assert summary["videos"] == {"total": 2, "accepted": 2, "rejected": 0}
    assert summary["clips"]["failed"] == 0
    found = rows(lake)
    assert {r["frame_count"]: r["missing_s"] for r in found["video_manifest"]} == {
        30: None,
        36: None,
    }
    videos = {r["video_id"] for r in found["video_manifest"]}
    for table in ("clips", "footage"):
        assert {r["video_id"] for r in found[table]} == videos, table
    assert ego_here("status", "--lake", str(lake))["failures"] == []


@pytest.mark.heavy
def test_a_raw_folder_that_comes_and_goes_during_a_run(
    undisturbed: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """As a mount point does that is left empty."""
    raw, lake, kept = tmp_path / "raw", tmp_path / "lake", tmp_path / "kept"
    make_videos(raw, "abc")
    ledger = Ledger.beside(lake)
    with in_background("run", str(raw), "--lake", str(lake)) as process:
        over = lambda: process.poll() is not None  # noqa: E731
        wait_until(lambda: over() or [*lake.glob("shards/*.json")])
        for _ in range(10):
            raw.rename(kept)
            raw.mkdir()
            wait_until(lambda: over() or is_missed(ledger))
            raw.rmdir()
            kept.rename(raw)
            wait_until(lambda: over() or not is_missed(ledger))
        said, _ = process.communicate()
    assert process.returncode == 0, said
    summary = json.loads(said)
    assert (summary["failures"], summary["gone"], summary["problems"]) == ([], [], [])
    assert {e.state for e in ledger.entries()} == {State.DONE}
    assert rows(lake) == undisturbed[1]
    (shard,) = summary["shards"]
    uris = Lake(lake).read("video_manifest", shard)["uri"].to_pylist()
    assert [str(Path(uri).parent) for uri in uris] == [str(raw)] * 3
