"""Files aside: what is known of them is believed only where it can be."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ego_assets.intake.links import parts
from ego_assets.intake.links.parts import LinkBusyError, LinkPart, PartState


def filled(folder: Path, data: bytes = b"abc") -> LinkPart:
    part = LinkPart(folder, "a")
    with part.writing(0, '"e"', 10) as file:
        file.write(data)
    return part


def test_a_part_is_written_on(tmp_path: Path) -> None:
    part = filled(tmp_path)
    assert (part.size, part.state.etag, part.state.total) == (3, '"e"', 10)
    with part.writing(2, '"f"', None) as file:
        file.write(b"XY")
    assert part.path.read_bytes() == b"abXY"
    assert part.state.etag == '"f"'


def test_after_the_machine_went_down_a_part_is_believed_only_if_it_is_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = filled(tmp_path)
    monkeypatch.setattr(parts, "boot_id", lambda: "another")
    assert part.state == PartState()
    monkeypatch.undo()
    sealed = part.seal("a.mp4", "", 200)
    monkeypatch.setattr(parts, "boot_id", lambda: "another")
    assert part.state == sealed
    assert sealed.sha256.startswith("ba7816bf")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"other": 1}'])
def test_notes_that_cannot_be_read_are_none(tmp_path: Path, text: str) -> None:
    part = filled(tmp_path)
    (tmp_path / "a.json").write_text(text)
    assert part.state == PartState()
    part.remove()
    assert not list(tmp_path.iterdir())


def test_one_at_a_time_has_a_part(tmp_path: Path) -> None:
    with LinkPart(tmp_path, "a").lock():
        with pytest.raises(LinkBusyError), LinkPart(tmp_path, "a").lock():
            pass
        with LinkPart(tmp_path, "b").lock():
            pass
    with LinkPart(tmp_path, "a").lock():
        pass
    assert not list(tmp_path.iterdir())


def test_what_is_raised_while_it_is_held_gets_out(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), LinkPart(tmp_path, "a").lock():
        raise FileNotFoundError
    assert not list(tmp_path.iterdir())


def test_what_is_aside_of_a_forgotten_video_goes(tmp_path: Path) -> None:
    names = ("of the link", "of the content", "of others", "busy")
    for name in names:
        part = LinkPart(tmp_path, name)
        with part.writing(0, "", None) as file:
            file.write(b"other" if name == "of others" else b"abc")
        part.seal("a.mp4", "", 200)
        part.pages.mkdir()
    part = LinkPart(tmp_path, "half")
    part.path.write_bytes(b"ab")
    with LinkPart(tmp_path, "busy").lock():
        LinkPart.erase(tmp_path, "ba7816bf", {"of the link", "half"})
    found = {path.name for path in tmp_path.iterdir()}
    assert found == {f"{n}{s}" for n in names[2:] for s in (".part", ".json", ".page")}


def test_many_that_come_and_go_are_never_two(tmp_path: Path) -> None:
    inside, most, entered = 0, 0, 0

    def enter() -> None:
        nonlocal inside, most, entered
        for _ in range(200):
            try:
                with LinkPart(tmp_path, "a").lock():
                    inside, entered = inside + 1, entered + 1
                    most = max(most, inside)
                    inside -= 1
            except LinkBusyError:
                pass

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert entered >= 4


def test_what_was_published_is_dropped_unless_somebody_has_the_link_again(tmp_path: Path) -> None:
    part = filled(tmp_path)
    sealed = part.seal("a.mp4", "", 200)
    with LinkPart(tmp_path, "a").lock():
        part.drop(sealed.sha256)
        assert part.path.exists(), "it is in use"
    with part.writing(0, '"f"', None) as file:
        file.write(b"another")
    part.drop(sealed.sha256)
    assert part.path.read_bytes() == b"another"
    sealed = part.seal("a.mp4", "", 200)
    part.drop(sealed.sha256)
    assert not list(tmp_path.iterdir())


def test_of_what_was_moved_away_nothing_is_left(tmp_path: Path) -> None:
    part = filled(tmp_path)
    sealed = part.seal("a.mp4", "", 200)
    part.path.unlink()
    part.drop(sealed.sha256)
    assert not list(tmp_path.iterdir())
