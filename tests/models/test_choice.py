"""The machine's file of backends: read once for each version of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ego_assets.models import choice
from ego_assets.models.choice import BackendsFile, BackendsFileError, CommonChoice, machine_choice


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were read, one by one."""
    told: list[str] = []
    read = choice.read_choice

    def counted(file: str | Path) -> CommonChoice:
        told.append(str(file))
        return read(file)

    monkeypatch.setattr(choice, "read_choice", counted)
    return told


def test_a_file_is_read_once_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    file = tmp_path / "backends.yaml"
    file.write_text("{segmenter: sam2, settings: {segmenter: {checkpoint: mine}}}")
    monkeypatch.setenv("EGO_BACKENDS", str(file))
    first = machine_choice()
    first.settings["segmenter"]["checkpoint"] = "spoilt by a caller"
    assert machine_choice().settings == {"segmenter": {"checkpoint": "mine"}}
    assert len(reads) == 1
    # Another file in its place, of the same size and time.
    held = file.stat()
    other = tmp_path / "aside"
    other.write_text(file.read_text().replace("mine", "ours"))
    os.utime(other, ns=(held.st_atime_ns, held.st_mtime_ns))
    other.replace(file)
    assert machine_choice().settings == {"segmenter": {"checkpoint": "ours"}}
    file.write_text("segmenter: sam3")
    assert machine_choice() == BackendsFile(segmenter="sam3")
    assert len(reads) == 3


def test_a_file_that_is_gone_or_wrong_is_told_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    file = tmp_path / "backends.yaml"
    monkeypatch.setenv("EGO_BACKENDS", str(file))
    for text, why in ((None, "No such file"), ("segmenter: sam9", "no segmenter named 'sam9'")):
        if text:
            file.write_text(text)
        for _ in range(2):
            with pytest.raises(BackendsFileError, match=why):
                machine_choice()
    monkeypatch.delenv("EGO_BACKENDS")
    assert machine_choice() == BackendsFile()
