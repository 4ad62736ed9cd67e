"""A reader sees the old file or the new one, and no key leaves the lake."""

from __future__ import annotations

import threading

import pytest

from resources.lake.storage import LocalStorage, UnsafeKeyError


def test_a_failed_write_leaves_the_old_file(tmp_path):
    storage = LocalStorage(tmp_path)
    storage.write("a/b.bin", b"old")
    with pytest.raises(RuntimeError), storage.open_aside("a/b.bin") as file:
        file.write(b"half of the n")
        raise RuntimeError("killed")
    assert storage.read("a/b.bin") == b"old"
    assert not list((tmp_path / ".aside").iterdir())


def test_create_only_writes_have_one_winner(tmp_path):
    storage = LocalStorage(tmp_path)
    assert storage.write("shards/x.json", b"first", replace=False)
    assert not storage.write("shards/x.json", b"second", replace=False)
    assert storage.read("shards/x.json") == b"first"


@pytest.mark.parametrize(
    "key", ["../x", "/etc/passwd", "a/../../x", "a\nb", "a\x00b", "", "a//b", "x" * 300]
)
def test_unsafe_keys_are_refused(tmp_path, key):
    with pytest.raises(UnsafeKeyError):
        LocalStorage(tmp_path).write(key, b"")


def test_a_folder_that_is_dropped_when_empty_loses_no_file(tmp_path):
    storage = LocalStorage(tmp_path)
    over = threading.Event()

    def drop() -> None:
        while not over.is_set():
            storage.drop_empty("a/b")

    dropper = threading.Thread(target=drop)
    dropper.start()
    try:
        for number in range(300):
            storage.write(f"a/b/{number}", b"x", replace=bool(number % 2))
            assert storage.read(f"a/b/{number}") == b"x"
            storage.delete(f"a/b/{number}")
    finally:
        over.set()
        dropper.join()
    assert list(storage.walk("a")) == []
