"""A folder of files an episode: killed, run again, damaged, someone else's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ego_assets.exports.folder import (
    EpisodeFiles,
    ExportFolder,
    ExportReport,
    damaged_files,
    write_episodes,
)
from ego_assets.exports.grid import ExportError
from tests.exports.lerobot_reader import tree


def files_of(name: str, text: str, asked: Callable[[str], None]) -> EpisodeFiles:
    def make(folder: Path) -> None:
        asked(name)
        (folder / "words.txt").write_text(text)
        (folder / "more.txt").write_text(text * 2)

    return EpisodeFiles(name, text, len(text), make, lambda file: f"{name}/{file}")


def write(out: Path, episodes: dict[str, str], asked: Callable[[str], None]) -> ExportReport:
    with ExportFolder.opened(out, "words") as folder:
        made = [files_of(name, text, asked) for name, text in episodes.items()]
        return write_episodes(folder, made, lambda each: each, {}, {}, lambda what, frames: None)


def run_and_die(out: str, before: str) -> None:
    """Killed when the files of an episode are asked for."""

    def asked(name: str) -> None:
        if name == before:
            os.kill(os.getpid(), 9)

    write(Path(out), {"a": "one", "b": "two", "c": "three"}, asked)


def test_what_was_made_before_a_kill_is_not_made_again(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.exports.test_export_folder", str(tmp_path), "c"]
    assert subprocess.run(command).returncode == -9
    assert not list(tmp_path.glob("[abc]"))
    asked: list[str] = []
    write(tmp_path, {"a": "one", "b": "two", "c": "three"}, asked.append)
    assert asked == ["c"] and damaged_files(tmp_path) == {}
    assert sorted(tree(tmp_path)) == [
        *(f"{n}/{file}.txt" for n in "abc" for file in ("more", "words")),
        "ego_export.json",
    ]


def test_files_that_are_missing_or_short_are_made_again(tmp_path: Path) -> None:
    episodes = {"a": "one", "b": "two", "c": "three"}
    write(tmp_path, episodes, lambda name: None)
    whole = tree(tmp_path)
    (tmp_path / "a" / "more.txt").unlink()
    (tmp_path / "b" / "words.txt").write_text("tw")
    assert damaged_files(tmp_path) == {
        "a/more.txt": "is missing",
        "b/words.txt": "has 2 bytes instead of 3",
    }
    asked: list[str] = []
    report = write(tmp_path, episodes, asked.append)
    assert asked == ["a", "b"] and (report.kept, report.encoded) == (1, 2)
    assert tree(tmp_path) == whole


def test_episodes_that_are_gone_are_deleted_with_their_folder(tmp_path: Path) -> None:
    write(tmp_path, {"a": "one", "b": "two"}, lambda name: None)
    report = write(tmp_path, {"b": "two"}, lambda name: None)
    assert report.deleted == ["a/more.txt", "a/words.txt"] and report.removed == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "ego_export.json"]


def test_an_error_leaves_the_export_as_it_was(tmp_path: Path) -> None:
    write(tmp_path, {"a": "one"}, lambda name: None)
    before = tree(tmp_path)

    def fail(name: str) -> None:
        raise OSError(28, "No space left on device", "somewhere")

    with pytest.raises(OSError, match="somewhere"):
        write(tmp_path, {"a": "other"}, fail)
    staged = {name for name in tree(tmp_path) if name.startswith(".ego_export")}
    assert {name: data for name, data in tree(tmp_path).items() if name not in staged} == before


def unreadable(name: str) -> None:
    raise ExportError(f"{name} does not decode")


def test_what_is_no_longer_wanted_goes_also_where_nothing_is_left(tmp_path: Path) -> None:
    write(tmp_path, {"a": "one", "b": "two"}, lambda name: None)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ExportError, match=r"no episodes: .* \(2\) are deleted"):
        write(tmp_path, {}, lambda name: None)
    assert list(tree(tmp_path)) == ["notes.txt"]


def test_what_is_left_goes_along_only_if_another_has_to(tmp_path: Path) -> None:
    write(tmp_path, {"a": "one", "b": "two"}, lambda name: None)
    before = tree(tmp_path)
    with pytest.raises(ExportError, match="none of 2 episodes can be written; a: a does not"):
        write(tmp_path, {"a": "other", "b": "other"}, unreadable)
    assert tree(tmp_path) == before
    with pytest.raises(ExportError, match=r"b: b does not decode.* \(2\) are deleted"):
        write(tmp_path, {"b": "other"}, unreadable)
    assert not tree(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"parts": 1}'])
def test_an_index_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "ego_export.json").write_text(text)
    with pytest.raises(ValueError, match=r"ego_export\.json cannot be read"):
        write(tmp_path, {"a": "one"}, lambda name: None)


def test_an_export_to_another_format_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"a": "one"}, lambda name: None)
    with (
        pytest.raises(ValueError, match="to words, not to coco"),
        ExportFolder.opened(tmp_path, "coco"),
    ):
        pass


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(Path(__file__).parents[2])
    yield


if __name__ == "__main__":
    run_and_die(*sys.argv[1:])
