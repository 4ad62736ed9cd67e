"""The scratch space: copies of remote raw files, for as long as somebody reads them, and a while.

Shared by all processes of a machine and bounded in bytes: an object is fetched once however many
read it. A copy in use is held by a shared lock that the kernel drops when its reader dies; what
nobody holds goes, the longest unused first, when room is needed, and at the latest after a week.
Not here: what is raw (`raw`).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, BinaryIO

from resources.environment import scratch_folder, scratch_gigabytes
from resources.lake.s3.client import make_client, read_body

EXPIRES_S = 7 * 86_400.0
PATIENCE_S = 900.0
"""How long a reader waits for room that others hold."""
PART_BYTES = 16 * 2**20
CONNECTIONS = 4
_LOCK, _READY, _SHA256 = ".lock", "ready", ".sha256"

Moved = Callable[[int, float], None]
"""Told of bytes that came, and the seconds that they took; of zeros while we wait for room."""
_moved: ContextVar[Moved | None] = ContextVar("moved", default=None)

Part = tuple[str, tuple[int | str, ...]]
"""An object of S3: its uri and its (size in bytes, ETag)."""


class ScratchError(RuntimeError):
    """No copy could be made; the message says what to do."""


class Scratch:
    """A folder of at most `max_bytes` of copies."""

    def __init__(self, root: Path, max_bytes: int) -> None:
        self.root = root
        self.max_bytes = max_bytes

    @staticmethod
    def of_machine() -> Scratch:
        """The folder EGO_SCRATCH (default: of this user, in the temporary folder), bounded by
        EGO_SCRATCH_GB (default: half of what is free on its disk). Raises ScratchError,
        EnvironmentVariableError."""
        given_gb = scratch_gigabytes()
        root = Path(scratch_folder() or default_root()).expanduser()
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = root.lstat()
        except OSError as error:
            raise ScratchError(
                f"the folder {root} for copies of remote files cannot be made "
                f"({error.strerror}): set EGO_SCRATCH to one that can"
            ) from error
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise ScratchError(f"{root} is not a folder of yours: set EGO_SCRATCH to one that is")
        if given_gb:
            return Scratch(root, int(given_gb * 1e9))
        scratch = Scratch(root, 0)
        scratch.max_bytes = (shutil.disk_usage(root).free + scratch.used_bytes()) // 2
        return scratch

    @contextmanager
    def hold(self, parts: Sequence[Part], moved: Moved | None = None) -> Iterator[Path]:
        """A copy of the first object, kept while the block runs; the second, if there is one, is
        its calibration and lies beside it. Raises ScratchError, botocore's errors."""
        _moved.set(moved)
        name = hashlib.sha256(repr(list(parts)).encode()).hexdigest()[:32]
        while True:
            with self._lock(name, fcntl.LOCK_SH):
                folder = self.root / name
                if (folder / _READY).exists():
                    os.utime(folder / _READY)
                    yield folder / _names(parts)[0]
                    return
            with self._lock(name, fcntl.LOCK_EX):
                # The shared lock is taken afresh: who evicts may come between, and then we fetch
                # once more.
                if not (self.root / name / _READY).exists():
                    self._fetch(name, parts)

    @contextmanager
    def own_folder(self, name: str) -> Iterator[Path]:
        """A folder for what is no copy; deleted like one where nobody has used it for long."""
        with self._lock(name, fcntl.LOCK_SH):
            folder = self.root / name
            folder.mkdir(mode=0o700, exist_ok=True)
            (folder / _READY).touch()
            yield folder

    def sha256(self, path: Path) -> str:
        """Of a copy that is held; read once."""
        noted = path.with_name(path.name + _SHA256)
        with suppress(FileNotFoundError):
            return noted.read_text()
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        aside = noted.with_name(f"{noted.name}.{os.getpid()}")
        aside.write_text(digest)
        aside.replace(noted)
        return digest

    def erase(self, sha256: str) -> int:
        """Delete the copies that have these bytes, or belong to the video that has them, and that
        nobody holds. Returns how many are held, and still there."""
        held = 0
        for noted in self.root.glob(f"*/*{_SHA256}"):
            with suppress(FileNotFoundError):
                if noted.read_text() != sha256:
                    continue
                try:
                    with self._lock(noted.parent.name, fcntl.LOCK_EX | fcntl.LOCK_NB):
                        shutil.rmtree(noted.parent, ignore_errors=True)
                except BlockingIOError:
                    held += 1
        return held

    def used_bytes(self) -> int:
        """Of all copies, with those that are being made at their full size."""
        sizes = 0
        for path in self.root.glob("*/*"):
            with suppress(FileNotFoundError):
                sizes += path.stat().st_size
        return sizes

    # -- inside ------------------------------------------------------------------------------

    def _fetch(self, name: str, parts: Sequence[Part]) -> None:
        """Fill a copy's folder; we hold its lock alone."""
        folder = self.root / name
        shutil.rmtree(folder, ignore_errors=True)  # of a fetch that was killed
        names = _names(parts)
        self._reserve(folder, {n: int(p[1][0]) for n, p in zip(names, parts, strict=True)})
        try:
            for target, part in zip(names, parts, strict=True):
                _download(part, folder / target)
            (folder / _READY).touch()
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _reserve(self, folder: Path, sizes: dict[str, int]) -> None:
        """Make room and take it, as sparse files of full size. Raises ScratchError."""
        wanted = sum(sizes.values())
        if wanted > self.max_bytes:
            raise ScratchError(
                f"{', '.join(sizes)} has {wanted / 1e9:.2f} GB and the scratch space {self.root} "
                f"at most {self.max_bytes / 1e9:.2f} GB: raise EGO_SCRATCH_GB, or set EGO_SCRATCH "
                "to a folder on a larger disk"
            )
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with self._lock("room", fcntl.LOCK_EX):
                self._evict(wanted)
                if self.used_bytes() + wanted <= self.max_bytes:
                    folder.mkdir()
                    for name, size in sizes.items():
                        with (folder / name).open("xb") as file:
                            file.truncate(size)
                    return
            if time.monotonic() > deadline:
                raise ScratchError(
                    f"no room for {wanted / 1e9:.2f} GB in the scratch space {self.root} for "
                    f"{PATIENCE_S:.0f} s: others hold all of its {self.max_bytes / 1e9:.2f} GB; "
                    "raise EGO_SCRATCH_GB, or run fewer workers"
                )
            time.sleep(0.2)
            _tell(0, 0.0)

    def _evict(self, wanted: int) -> None:
        """Delete what nobody holds: the expired, and the longest unused while room is needed."""
        entries = []
        for folder in self.root.iterdir():
            if folder.is_dir():
                ready = folder / _READY
                used = ready.stat().st_mtime if ready.exists() else 0.0
                entries.append((used, folder))
        for used, folder in sorted(entries):
            is_needed = self.used_bytes() + wanted > self.max_bytes
            if not is_needed and time.time() - used < EXPIRES_S:
                continue
            with suppress(BlockingIOError), self._lock(folder.name, fcntl.LOCK_EX | fcntl.LOCK_NB):
                shutil.rmtree(folder, ignore_errors=True)
                (self.root / (folder.name + _LOCK)).unlink(missing_ok=True)

    @contextmanager
    def _lock(self, name: str, how: int) -> Iterator[None]:
        path = self.root / (name + _LOCK)
        while True:
            with path.open("ab") as file:
                fcntl.flock(file, how)
                # An eviction may have unlinked the file that we waited for.
                if _is_same(file, path):
                    yield
                    return


def note_video(copy: Path, sha256: str) -> None:
    """Note that a copy that is held belongs to the video of these bytes, and is erased with it."""
    noted = copy.with_name(f"{copy.name}.{sha256[:16]}{_SHA256}")
    aside = noted.with_name(f"{noted.name}.{os.getpid()}")
    aside.write_text(sha256)
    aside.replace(noted)


def default_root() -> Path:
    """One folder for each user of the machine."""
    return Path(tempfile.gettempdir()) / f"ego-scratch-{os.getuid()}"


def _is_same(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _names(parts: Sequence[Part]) -> list[str]:
    """Of the copies: the video's own name where it is harmless, so that messages show it."""
    name = Path(parts[0][0].rpartition("/")[2])
    text = name.name
    if not (text.isascii() and text.isprintable() and 0 < len(text) <= 100) or text[0] == ".":
        suffix = name.suffix if name.suffix.isalnum() else ""
        name = Path(f"video{suffix}")
    beside = Path(parts[-1][0]).suffix  # also of a calibration of the whole folder
    return [name.name, f"{name.stem}.camera{beside}"][: len(parts)]


def _tell(byte_count: int, seconds: float) -> None:
    if (moved := _moved.get()) is not None:
        moved(byte_count, seconds)


def _download(part: Part, path: Path) -> None:
    """Fetch an object in parts, of one version, and check the bytes where its ETag allows it."""
    uri, (size, etag) = part[0], (int(part[1][0]), str(part[1][1]))
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    client = make_client()

    def fetch(start: int) -> int:
        end = min(start + PART_BYTES, size) - 1
        where = {"Bucket": bucket, "Key": key, "IfMatch": etag, "Range": f"bytes={start}-{end}"}
        data = _get(client, uri, where)
        if len(data) != end - start + 1:
            raise ScratchError(f"{uri}: asked for {end - start + 1} bytes, got {len(data)}")
        os.pwrite(file.fileno(), data, start)
        return len(data)

    with path.open("r+b") as file:
        with ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="fetch") as pool:
            began = time.monotonic()
            for byte_count in pool.map(fetch, range(0, size, PART_BYTES)):
                _tell(byte_count, time.monotonic() - began)
                began = time.monotonic()
        file.seek(0)
        plain = etag.strip('"')
        if len(plain) == 32 and "-" not in plain and not _is_encrypted(client, bucket, key):
            digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
            if digest.hexdigest() != plain:
                raise ScratchError(f"{uri}: the bytes that came have another checksum")


def _get(client: Any, uri: str, where: dict[str, str]) -> bytes:
    from botocore.exceptions import ClientError

    try:
        return read_body(client, **where)
    except ClientError as error:
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 412:
            raise ScratchError(f"{uri} was replaced while it was fetched") from error
        raise


def _is_encrypted(client: Any, bucket: str, key: str) -> bool:
    """With keys of a key service the ETag is no MD5 of the bytes."""
    head = client.head_object(Bucket=bucket, Key=key)
    return head.get("ServerSideEncryption", "AES256") != "AES256" or "SSECustomerAlgorithm" in head
