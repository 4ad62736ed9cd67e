"""An export that dies while it deletes, a folder that says something untrue, what is told."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from ego_assets.exports import publishing
from ego_assets.exports.episode import ExportEpisode
from ego_assets.exports.grid import ExportError
from ego_assets.exports.lerobot import packs
from ego_assets.exports.lerobot.contents import PROVENANCE
from ego_assets.exports.lerobot.settings import LeRobotSettings
from ego_assets.exports.lerobot.writer import write_dataset
from tests.exports.lerobot_reader import tree
from tests.exports.numbered import EGO, episode


class KilledError(BaseException):
    """Stands for a process that is no more: nothing is changed after it."""


@contextmanager
def dying_at_deletion(number: int) -> Iterator[list[str]]:
    """Let nothing be deleted, moved or made any more from the nth deletion on."""
    left, died = number, []

    def mortal(name: str, real: Any) -> Any:
        def call(*args: Any, **more: Any) -> Any:
            nonlocal left
            if name in ("unlink", "rmdir") and not died:
                if not left:
                    died.append(name)
                left -= 1
            if died:
                raise KilledError
            return real(*args, **more)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in ("unlink", "rmdir", "rename", "replace", "mkdir"):
            patch.setattr(os, name, mortal(name, getattr(os, name)))
        yield died


def episodes(*numbers: int) -> list[ExportEpisode]:
    return [episode(f"e{n}", 4, 100 * n, size=(32, 18)) for n in numbers]


def test_an_export_that_is_killed_at_any_deletion_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packs, "MAX_SECONDS", 0.2)  # one episode a file
    write_dataset(tmp_path / "whole", episodes(0, 1))
    write_dataset(tmp_path / "whole", episodes(1, 2))
    for number in itertools.count(step=2):
        folder = tmp_path / str(number)
        write_dataset(folder, episodes(0, 1))
        with dying_at_deletion(number) as died, suppress(KilledError):
            write_dataset(folder, episodes(1, 2))
        if not died:
            break
        write_dataset(folder, episodes(1, 2))
        assert tree(folder) == tree(tmp_path / "whole"), number
    assert number > 8


def test_an_export_that_is_killed_while_it_discards_other_settings_goes_on(tmp_path: Path) -> None:
    small = LeRobotSettings(max_side_px=16)
    write_dataset(tmp_path / "whole", episodes(0, 1))
    for number in itertools.count():
        folder = tmp_path / str(number)
        stop_after_first(folder, episodes(0, 1))
        with dying_at_deletion(number) as died, suppress(KilledError):
            stop_after_first(folder, episodes(0, 1), small)
        if not died:
            break
        write_dataset(folder, episodes(0, 1))
        assert tree(folder) == tree(tmp_path / "whole"), number
    assert number > 3


@pytest.mark.parametrize("lost", ["records.parquet", "rows.parquet", "0.mp4"])
def test_an_episode_that_waits_without_one_of_its_files_is_encoded_again(
    tmp_path: Path, lost: str
) -> None:
    stop_after_first(tmp_path, episodes(0, 1))
    (part,) = (tmp_path / publishing.STAGING / "parts").iterdir()
    (part / lost).unlink()
    report = write_dataset(tmp_path, episodes(0, 1))
    assert (report.encoded, report.resumed) == (2, 0)


def stop_after_first(
    folder: Path, made: list[ExportEpisode], settings: LeRobotSettings | None = None
) -> None:
    """Encode one episode, and stop as Ctrl-C does."""

    def stop(what: str, frames: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(folder, made, settings, progress=stop)


def test_what_was_encoded_before_a_stop_is_told_of(tmp_path: Path) -> None:
    stop_after_first(tmp_path, episodes(0, 1))
    told: list[str] = []
    report = write_dataset(tmp_path, episodes(0, 1), progress=lambda what, _: told.append(what))
    assert told == ["resumed", "encoded", "joined"]
    assert (report.resumed, report.encoded, report.kept) == (1, 1, 0)


@pytest.mark.parametrize(
    "name",
    [
        "../victim",
        "/tmp/victim",
        "data/../../victim",
        "notes.txt",
        "data/chunk-000/file-007.parquet",
    ],
)
def test_a_name_that_no_pack_has_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "out"
    write_dataset(folder, episodes(0))
    (tmp_path / "victim").write_text("keep me")
    (folder / "notes.txt").write_text("keep me, too")
    said = json.loads((folder / PROVENANCE).read_text())
    said["packs"][0]["sizes"][name] = 1
    (folder / PROVENANCE).write_text(json.dumps(said))
    with pytest.raises(ExportError, match="is no file of pack 0"):
        write_dataset(folder, episodes(1))
    assert (tmp_path / "victim").exists() and (folder / "notes.txt").exists()


@pytest.mark.parametrize(
    "journal",
    [
        {"moves": {}, "deletes": ["../victim"]},
        {"moves": {}, "deletes": ["notes.txt"]},
        {"moves": {"../victim": "plan.json"}, "deletes": []},
        {"moves": {"meta/info.json": "../../victim"}, "deletes": []},
        {"moves": {"meta/info.json": "VICTIM"}, "deletes": []},
        ["victim"],
    ],
)
def test_a_journal_that_names_other_files_is_refused(tmp_path: Path, journal: Any) -> None:
    folder, victim = tmp_path / "out", tmp_path / "victim"
    write_dataset(folder, episodes(0))
    victim.write_text("keep me")
    (folder / "notes.txt").write_text("keep me, too")
    (folder / publishing.STAGING).mkdir()
    text = json.dumps(journal).replace("VICTIM", str(victim))
    (folder / publishing.STAGING / "journal.json").write_text(text)
    before = tree(folder)
    with pytest.raises(ExportError, match=r"journal\.json .*elete .*ego_export"):
        write_dataset(folder, episodes(0))
    assert tree(folder) == before and victim.read_text() == "keep me"


def test_all_folders_are_on_the_disk_before_the_journal_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[str] = set()
    at_the_end: list[set[str]] = []
    real_sync, real_discard = publishing.sync, publishing.discard

    def watched(path: Path) -> None:
        real_sync(path)
        if path.is_relative_to(tmp_path):
            synced.add(str(path.relative_to(tmp_path)))

    def discarded(folder: Path) -> None:
        at_the_end.append(set(synced))
        real_discard(folder)

    monkeypatch.setattr(publishing, "sync", watched)
    monkeypatch.setattr(publishing, "discard", discarded)
    write_dataset(tmp_path, episodes(0))
    folders = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_dir()}
    assert {".", "data/chunk-000", f"videos/{EGO}/chunk-000"} <= folders | {"."}
    assert folders | {"."} <= at_the_end[-1]
