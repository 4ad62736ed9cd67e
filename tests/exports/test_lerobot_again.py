"""An export that is run again: unchanged, longer, shorter, changed, killed, on a full disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ego_assets.exports import publishing
from ego_assets.exports.episode import ExportEpisode
from ego_assets.exports.files import alone_in
from ego_assets.exports.lerobot import packs
from ego_assets.exports.lerobot.contents import PROVENANCE
from ego_assets.exports.lerobot.settings import LeRobotSettings
from ego_assets.exports.lerobot.writer import write_dataset
from tests.exports.bars import number_in
from tests.exports.lerobot_reader import Tree, read, tree
from tests.exports.numbered import EGO, SIDE, episode

SIZE = (64, 36)


@pytest.fixture(autouse=True)
def _small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two episodes of ten frames a file."""
    monkeypatch.setattr(packs, "MAX_SECONDS", 0.7)


def episodes(*numbers: int, **changes: Any) -> list[ExportEpisode]:
    return [episode(f"e{n}", 10, 100 * n, size=SIZE, **changes) for n in numbers]


def unreadable(made: ExportEpisode) -> ExportEpisode:
    """The same episode, whose pictures must not be asked for again."""

    def fail() -> Iterator[Any]:
        raise AssertionError(f"{made.episode_id} was decoded again")

    return ExportEpisode(**(vars(made) | {"pictures": {EGO: fail}}))


def numbers_of(folder: Path) -> list[int]:
    """Numbers of the episodes, from all rows, which show what they say."""
    found = read(folder)
    for row in found.rows:
        assert number_in(found.picture(row, EGO)) == row["number"]
    firsts = [found.rows[e["dataset_from_index"]]["number"] for e in found.episodes]
    assert len(found.rows) == 10 * len(firsts)
    return [first // 100 for first in firsts]


def changed(before: Tree, folder: Path) -> set[str]:
    after = tree(folder)
    return {name for name in before | after if before.get(name) != after.get(name)}


def videos(names: set[str]) -> set[str]:
    return {name for name in names if name.endswith(".mp4")}


def file_of(number: int) -> str:
    return f"videos/{EGO}/chunk-000/file-{number:03d}.mp4"


def test_run_again_it_changes_no_byte_and_decodes_nothing(tmp_path: Path) -> None:
    write_dataset(tmp_path, episodes(0, 1, 2))
    before = tree(tmp_path)
    times = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    report = write_dataset(tmp_path, [unreadable(e) for e in episodes(0, 1, 2)])
    assert (report.kept, report.encoded, report.written, report.deleted) == (3, 0, [], [])
    assert not changed(before, tmp_path)
    assert times == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}


def test_new_episodes_get_files_of_their_own(tmp_path: Path) -> None:
    write_dataset(tmp_path, episodes(0, 1, 2))
    before = tree(tmp_path)
    known = [unreadable(e) for e in episodes(0, 1, 2)]
    report = write_dataset(tmp_path, [*episodes(7), *known, *episodes(8, 9)])
    assert (report.kept, report.encoded, report.removed) == (3, 3, 0)
    assert numbers_of(tmp_path) == [0, 1, 2, 7, 8, 9]
    assert videos(changed(before, tmp_path)) == {file_of(2), file_of(3)}
    assert not {n for n in changed(before, tmp_path) if "data/" in n and "file-00" in n} - {
        "data/chunk-000/file-002.parquet",
        "data/chunk-000/file-003.parquet",
    }


def test_an_episode_that_is_gone_leaves_the_others_as_they_are_encoded(tmp_path: Path) -> None:
    write_dataset(tmp_path, episodes(0, 1, 2, 3, 4))
    before = tree(tmp_path)
    report = write_dataset(tmp_path, [unreadable(e) for e in episodes(0, 1, 3, 4)])
    assert (report.kept, report.encoded, report.removed) == (4, 0, 1)
    assert numbers_of(tmp_path) == [0, 1, 3, 4]
    assert videos(changed(before, tmp_path)) == {file_of(1)}


def test_an_episode_that_changed_is_made_again_and_its_file_joined_again(tmp_path: Path) -> None:
    write_dataset(tmp_path, episodes(0, 1, 2))
    before = tree(tmp_path)
    words = episode("e0", 10, 0, size=SIZE, task="another task")
    report = write_dataset(tmp_path, [words, *(unreadable(e) for e in episodes(1, 2))])
    assert (report.kept, report.encoded, report.removed) == (2, 1, 1)
    assert numbers_of(tmp_path) == [1, 2, 0]
    assert videos(changed(before, tmp_path)) == {file_of(0), file_of(2)}
    assert "another task" in read(tmp_path).tasks


def test_files_that_hold_nothing_any_more_are_deleted(tmp_path: Path) -> None:
    write_dataset(tmp_path, episodes(0, 1, 2, 3))
    report = write_dataset(tmp_path, episodes(0, 1))
    assert file_of(1) in report.deleted
    assert numbers_of(tmp_path) == [0, 1]
    assert {n for n in tree(tmp_path) if n.endswith(".mp4")} == {file_of(0)}
    stats = json.loads((tmp_path / "meta/stats.json").read_text())
    assert stats["number"]["max"] == [109]


@pytest.mark.parametrize("lost", [file_of(0), "data/chunk-000/file-000.parquet"])
def test_a_file_that_was_lost_or_cut_short_is_made_again(tmp_path: Path, lost: str) -> None:
    write_dataset(tmp_path, episodes(0, 1, 2))
    os.truncate(tmp_path / lost, 100)
    write_dataset(tmp_path, episodes(0, 1, 2))
    assert sorted(numbers_of(tmp_path)) == [0, 1, 2]
    (tmp_path / PROVENANCE).unlink()
    with pytest.raises(ValueError, match="holds other files"):
        write_dataset(tmp_path, episodes(0))


def test_other_settings_encode_all_again(tmp_path: Path) -> None:
    write_dataset(tmp_path, episodes(0, 1), LeRobotSettings(crf=20))
    assert write_dataset(tmp_path, episodes(0, 1), LeRobotSettings(crf=20, threads=1)).encoded == 0
    report = write_dataset(tmp_path, episodes(0, 1), LeRobotSettings(crf=40, max_side_px=32))
    assert (report.encoded, report.kept, report.removed) == (2, 0, 2)
    assert read(tmp_path).info["features"][EGO]["shape"] == [18, 32, 3]


def test_the_source_of_each_episode_is_kept(tmp_path: Path) -> None:
    write_dataset(tmp_path, episodes(0, 1), provenance={"lake": "s3://lake"})
    said = json.loads((tmp_path / PROVENANCE).read_text())
    assert said["provenance"] == {"lake": "s3://lake"}
    records = packs.read_records(tmp_path / "meta/ego_episodes/chunk-000/file-000.parquet")
    assert [r.provenance["video_id"] for r in records] == ["video of e0", "video of e1"]
    assert [r["ego_episode_id"] for r in read(tmp_path).episodes] == ["e0", "e1"]


def test_columns_and_cameras_may_come_in_any_order(tmp_path: Path) -> None:
    made = episodes(0, 1, 2, cameras=(EGO, SIDE))

    def turned(made: ExportEpisode) -> ExportEpisode:
        both = {name: dict(reversed(vars(made)[name].items())) for name in ("columns", "pictures")}
        return replace(made, **both)

    with pytest.raises(ValueError, match="no task"):
        write_dataset(tmp_path, [*made[:2], replace(made[2], task="")])
    report = write_dataset(tmp_path, [turned(made[0]), made[1], turned(made[2])])
    assert report.encoded == 1
    assert write_dataset(tmp_path, [made[0], *map(turned, made[1:])]).encoded == 0
    found = read(tmp_path)
    for row in found.rows:
        assert number_in(found.picture(row, EGO)) == row["number"]
        assert number_in(found.picture(row, SIDE)) == 65535 - row["number"]


@pytest.mark.parametrize("stop", ["encoded", "joined"])
def test_an_export_that_was_killed_goes_on_and_ends_as_if_it_had_not_been(
    tmp_path: Path, stop: str
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    write_dataset(whole, episodes(*range(7)))
    write_dataset(whole, episodes(*range(11)))
    write_dataset(killed, episodes(*range(7)))
    before = tree(killed)
    for left in range(2):
        assert run_and_kill(killed, 11, stop, left) == -signal.SIGKILL
        assert not {n for n in changed(before, killed) if not n.startswith(publishing.STAGING)}
    again = write_dataset(killed, episodes(*range(11)))
    assert again.encoded < 2
    assert tree(killed) == tree(whole)


@pytest.mark.parametrize("left", range(0, 12, 3))
def test_an_export_that_was_killed_while_files_got_their_names_goes_on(
    tmp_path: Path, left: int
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        write_dataset(folder, episodes(0, 1, 2, 3))
    write_dataset(whole, episodes(0, 2, 3, 4))
    assert run_and_kill(killed, 5, "renamed", left, skipped=1) == -signal.SIGKILL
    write_dataset(killed, [unreadable(e) for e in episodes(0, 2, 3, 4)])
    assert tree(killed) == tree(whole)


def run_and_kill(folder: Path, count: int, stop: str, left: int, skipped: int = -1) -> int:
    """Export in a process that is killed after it has done something `left` more times."""
    done = subprocess.run(
        [sys.executable, __file__, str(folder), str(count), stop, str(left), str(skipped)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def main(folder: str, count: str, stop: str, left: str, skipped: str) -> None:
    remaining = int(left)

    def count_down(what: str) -> None:
        nonlocal remaining
        if what == stop:
            if not remaining:
                os.kill(os.getpid(), signal.SIGKILL)
            remaining -= 1

    packs.MAX_SECONDS = 0.7
    replace = Path.replace

    def counted(self: Path, target: Any) -> Any:
        if Path(folder).is_dir() and publishing.STAGING not in str(target):
            count_down("renamed")
        return replace(self, target)

    Path.replace = counted  # type: ignore[method-assign]
    numbers = [n for n in range(int(count)) if n != int(skipped)]
    write_dataset(Path(folder), episodes(*numbers), progress=lambda what, _: count_down(what))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root may mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("room", [0, 4096, 40_000, 60_000, 90_000])
def test_a_full_disk_is_named_with_the_path_and_the_export_goes_on_later(
    small_disk: Path, tmp_path: Path, room: int
) -> None:
    folder, ballast = small_disk / "out", small_disk / "ballast"
    made = episodes(*range(8))
    with ballast.open("wb") as file:
        file.truncate(0)
        file.write(b"x" * (2**20 - room - 16384))
    with pytest.raises(OSError, match="No space left") as caught:
        write_dataset(folder, made)
    assert str(small_disk) in str(caught.value.filename)
    assert not (folder / "meta").exists()
    ballast.unlink()
    write_dataset(folder, made)
    assert numbers_of(folder) == list(range(8))


def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError) as caught:
        write_dataset(tmp_path / "file" / "out", episodes(0))
    assert str(tmp_path / "file") in str(caught.value)


def test_two_exports_into_one_folder_are_refused(tmp_path: Path) -> None:
    with alone_in(tmp_path), pytest.raises(ValueError, match="another export"):
        write_dataset(tmp_path, episodes(0))


if __name__ == "__main__":
    main(*sys.argv[1:])
