"""The messages to and from another environment: whole ones arrive, others are refused."""

from __future__ import annotations

import ast
import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ego_assets.models.weights import WeightsError
from ego_assets.objects.foundationpose import child as bridge
from ego_assets.objects.foundationpose.bridge import Bridge
from ego_assets.objects.foundationpose.child import MessageError, receive, send
from resources.devices.gpu import find_gpus
from resources.devices.leases import LeaseBook, Request


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


Pair = tuple[socket.socket, socket.socket]


def raw(header: Any, version: int = 1, magic: bytes = b"EGOM", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return bridge._PREFIX.pack(magic, version, len(text) if length is None else length) + text


def test_a_message_arrives_as_it_was(pair: Pair) -> None:
    arrays = {
        "image": np.arange(24, dtype=np.uint8).reshape(2, 4, 3),
        "depth": np.array([[0.5, np.inf]], np.float32),
        "turned": np.arange(6.0).reshape(2, 3).T,
        "none": np.zeros((0, 4, 4)),
        "one": np.array(3.0),
    }
    send(pair[0], {"op": "look", "text": "größer"}, arrays)
    header, found = receive(pair[1], 10)
    assert (header["op"], header["text"]) == ("look", "größer")
    assert list(found) == list(arrays)
    for name, value in arrays.items():
        assert found[name].dtype == value.dtype
        assert np.array_equal(found[name], value)
        assert found[name].shape == value.shape


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (raw({}, magic=b"\x80\x04\x95."), "no message begins with"),
        (raw({}, version=2), "version 2 of the format, this side 1"),
        (raw({}, length=2**31), "a header of 2147483648 bytes"),
        (raw(b"not json"), "a header that cannot be read"),
        (raw({"op": "look"}), "a header that cannot be read"),
        (raw({"arrays": 3}), "a header that cannot be read"),
        (raw(b"[" * 100_000), "a header that cannot be read"),
        (raw(b'{"arrays": [["a", "|u1", [1e999]]]}'), "a header that cannot be read"),
        (raw({"arrays": [["a", "|u1", [0, 2**70]]]}), "at most 536870912 are taken"),
        (raw({"arrays": [["a", "|O", [1]]]}), "unknown type or shape"),
        (raw({"arrays": [["a", "<f8", [-1]]]}), "unknown type or shape"),
        (raw({"arrays": [["a", "|u1", [1] * 40]]}), "unknown type or shape"),
        (raw({"arrays": [["a", "<f8", [2**32, 2**32]]]}), "at most 536870912 are taken"),
        (raw({"arrays": [["a", "<f8", [2**25]], ["b", "<f8", [2**26]]]}), "at most 536870912"),
    ],
)
def test_what_is_no_message_is_refused(pair: Pair, message: bytes, words: str) -> None:
    pair[0].sendall(message)
    with pytest.raises(MessageError, match=words):
        receive(pair[1], 10)


GREETS = f"""
import socket, sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from ego_assets.objects.foundationpose.child import send
control = socket.socket(fileno=int(sys.argv[1]))
send(control, {{}}, {{}})
control.recv(1)
"""


def test_the_process_has_the_lease_of_its_device_until_it_is_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "greets.py").write_text(GREETS)
    book = LeaseBook(tmp_path / "leases")
    lease = book.ask(Request(1), find_gpus(1))
    assert lease.poll()
    monkeypatch.setenv("EGO_LEASE", lease.path)
    process = Bridge("", tmp_path / "greets.py", tmp_path)
    process.start()
    lease.release()
    assert len(book.holders()) == 1, "a second owner"
    process.close()
    assert book.holders() == []


def test_the_interpreter_is_not_looked_for_in_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    for folder in ("bin", "."):
        (tmp_path / folder / "their_python").write_text(f"#!/bin/sh\necho from {folder}; exit 1\n")
        (tmp_path / folder / "their_python").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(WeightsError, match="last words: from bin"):
        Bridge("their_python", tmp_path / "script.py", tmp_path).start()


def test_half_a_message(pair: Pair) -> None:
    pair[0].sendall(raw({"arrays": [["a", "<f8", [10]]]}) + b"only this")
    with pytest.raises(TimeoutError):
        receive(pair[1], 0.05)
    pair[0].close()
    with pytest.raises(EOFError):
        receive(pair[1], 10)


def test_what_is_not_sent(pair: Pair) -> None:
    with pytest.raises(MessageError, match=r"a is \|O"):
        send(pair[0], {}, {"a": np.array([object()])})
    with pytest.raises(MessageError, match="too long"):
        send(pair[0], {"text": "x" * bridge.MAX_HEADER_BYTES}, {})


def test_the_script_runs_under_an_older_python_without_us() -> None:
    source = Path(bridge.__file__).read_text()
    tree = ast.parse(source, feature_version=(3, 8))
    names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    roots = {n.partition(".")[0] for n in names}
    assert roots - sys.stdlib_module_names == {"numpy", "trimesh"}
    assert ast.get_docstring(tree)
    # What grammar alone does not show: keywords of newer functions.
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call)]
    assert not [k for c in calls for k in c.keywords if k.arg == "strict"]
