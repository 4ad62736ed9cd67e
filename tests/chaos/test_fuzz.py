"""Thousands of damaged media files at the boundary: probe and decoder say what is wrong, or work.

Each runs in a child with a memory limit. A child that dies (libav is C) is allowed for, and
counted; a hang, another exception than ours, or a file written is not.

EGO_FUZZ_INPUTS sets how many inputs; 600 unless told, 10,000 take some minutes.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import shutil
import socket
from multiprocessing.connection import Connection
from pathlib import Path

import av
import numpy as np
import pytest

from ego_assets.media.decode import ClipFrames
from ego_assets.operator import BadInputError
from ego_assets.videos.inspection import RejectReason, probe_video
from ego_assets.videos.settings import ManifestSettings

pytestmark = [pytest.mark.slow, pytest.mark.chaos]
INPUTS = int(os.environ.get("EGO_FUZZ_INPUTS", "600"))
CHILDREN = 2
LIMIT_S = 60.0
MEMORY_BYTES = 2 * 2**30
SMALL = 48_000
SUFFIXES = (".mp4", ".mkv", ".avi", ".ts")
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.chaos.test_fuzz"])


def seeds_of(real: Path | None, folder: Path) -> list[bytes]:
    """Small files of several containers and codecs."""
    found = []
    for name, codec in (
        ("a.mp4", "mpeg4"),
        ("b.mkv", "mjpeg"),
        ("c.avi", "mpeg4"),
        ("d.ts", "mpeg2video"),
    ):
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height = 48, 32
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            for n in range(8):
                picture = np.full((32, 48, 3), n * 20, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
            container.mux(stream.encode())
        found.append((folder / name).read_bytes())
    if real is not None:
        odd = sorted((real / "odd").iterdir())
        found += [p.read_bytes() for p in odd if p.is_file() and 0 < p.stat().st_size < SMALL]
    return found


def mutate(dice: random.Random, seeds: list[bytes], port: int, secret: Path) -> bytes:
    """A few changes: bits, blocks taken, doubled or joined, lengths, and words that point away."""
    data = bytearray(dice.choice(seeds))
    words = [
        f"http://127.0.0.1:{port}/x".encode(),
        f"file://{secret}".encode(),
        f"concat:{secret}|{secret}".encode(),
        b"#EXTM3U\n#EXTINF:1,\n" + str(secret).encode() + b"\n",
        b"ffconcat version 1.0\nfile '" + str(secret).encode() + b"'\n",
    ]
    for _ in range(dice.randint(1, 6)):
        place = dice.randrange(len(data)) if data else 0
        kind = dice.randrange(8)
        if kind < 2:
            for _ in range(dice.randint(1, 30)):
                data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        elif kind == 2:
            head = min(len(data), 4096)  # containers keep their structure at the front
            data[dice.randrange(head)] = dice.choice([0, 1, 0x7F, 0x80, 0xFF])
        elif kind == 3:
            data[place : place + 4] = dice.choice([2**31 - 1, 2**32 - 1, 0, 8]).to_bytes(4, "big")
        elif kind == 4:
            del data[place : place + dice.randint(1, 2000)]
        elif kind == 5:
            data[place:place] = data[place : place + dice.randint(1, 2000)]
        elif kind == 6:
            data[place:] = dice.choice(seeds)[place:]
        else:
            word = dice.choice(words)
            if dice.random() < 0.5:
                place = 0
            data[place : place + len(word)] = word
        if not data:
            data = bytearray(b"\0")
    return bytes(data)


def look_at(path: Path) -> str:
    """What the pipeline does with a raw file; only our own words may come of it."""
    row = probe_video(path, ManifestSettings())
    if not row["accepted"]:
        return RejectReason(row["reject_reason"]).value
    try:
        frames = ClipFrames(path, 0, min(row["frame_count"], 12))
        for frame in frames.read(max_side_px=64):
            assert frame.image.dtype == np.uint8
    except BadInputError:
        return "bad input"
    return "accepted"


def child(connection: Connection, folder: str) -> None:
    """Looks at the files that it is told of, and answers with a word."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    os.chdir(folder)
    while True:
        try:
            path = connection.recv()
        except EOFError:
            return
        try:
            connection.send(("ok", look_at(Path(path))))
        except MemoryError:
            connection.send(("ok", "wants too much memory"))  # its item ends in quarantine
        except Exception as error:
            connection.send(("error", f"{type(error).__name__}: {error}"))


class Child:
    """A process that may die, and is then replaced."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.start()

    def start(self) -> None:
        self.pipe, theirs = FORKS.Pipe()
        self.process = FORKS.Process(target=child, args=(theirs, str(self.folder)))
        self.process.start()
        theirs.close()

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def test_damaged_files_are_refused_or_read(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    try:
        real = request.getfixturevalue("real_data")
    except pytest.skip.Exception:
        real = None  # then only with what is made here
    made = tmp_path / "seeds"
    made.mkdir()
    seeds = seeds_of(real, made)
    shutil.rmtree(made)
    inputs, sandbox = tmp_path / "inputs", tmp_path / "sandbox"
    inputs.mkdir()
    sandbox.mkdir()
    secret = tmp_path / "secret.txt"
    secret.write_text("planted\n")
    dice = random.Random(1234)
    words: dict[str, int] = {}
    deaths = 0
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(0)
        port = listener.getsockname()[1]
        children = [Child(sandbox) for _ in range(CHILDREN)]
        for number in range(0, INPUTS, CHILDREN):
            files = []
            for worker in children:
                path = (
                    inputs / f"{number + len(files)}{dice.choice(['.mp4', '.mkv', '.avi', '.ts'])}"
                )
                path.write_bytes(mutate(dice, seeds, port, secret))
                files.append(path)
                worker.pipe.send(str(path))
            for worker, path in zip(children, files, strict=True):
                assert worker.pipe.poll(LIMIT_S), f"{path.name} of seed 1234 hangs"
                try:
                    state, word = worker.pipe.recv()
                except (EOFError, ConnectionResetError):
                    state, word = "died", str(worker.process.exitcode)
                    deaths += 1
                    worker.stop()
                    worker.start()
                assert state != "error", f"{path.name} of seed 1234: {word}"
                words[word] = words.get(word, 0) + 1
                path.unlink()
        for worker in children:
            worker.stop()
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert not list(sandbox.iterdir())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["inputs", "sandbox", "secret.txt"]
    print(f"{INPUTS} inputs, {deaths} deaths of a child, {words}")
    assert words.get("accepted", 0) > INPUTS // 50, "mutated beyond recognition: nothing is tested"
    assert len(words) >= 4
    assert deaths < INPUTS // 100
