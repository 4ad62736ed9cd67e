"""The file aside that a link is fetched into, and what is known of it.

    {id}.part    what has come
    {id}.json    which version of the file that is, and what it is to be called once it is whole
    {id}.lock    locked by the process that fetches it

A sealed part is whole, checked and on the disk. Whoever is killed goes on with the part; one that
was not sealed before the machine went down is not believed. Not here: fetching (`fetch`), the raw
lake (`resources.raw.additions`).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import BinaryIO

from resources.processes import boot_id


class LinkBusyError(Exception):
    """Another process fetches this link."""


@dataclass(frozen=True)
class PartState:
    """etag: strong, of what has come; empty: the server gave none. total: bytes of the whole file;
    None: not said. name, sha256: of a sealed part; license: as a page says."""

    boot: str = ""
    etag: str = ""
    total: int | None = None
    name: str = ""
    sha256: str = ""
    license: str = ""
    status: int | None = None


class LinkPart:
    """A file aside. To be used while `lock` is held."""

    def __init__(self, folder: Path, link_id: str) -> None:
        self.path = folder / f"{link_id}.part"
        self._notes = folder / f"{link_id}.json"
        self._lock = folder / f"{link_id}.lock"
        self.pages = folder / f"{link_id}.page"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Raises LinkBusyError if another process has it."""
        while True:
            with self._lock.open("ab") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise LinkBusyError from None
                # Whoever had it before may have removed the file that we opened.
                is_ours = False
                with suppress(FileNotFoundError):
                    is_ours = os.path.samestat(os.fstat(file.fileno()), self._lock.stat())
                if is_ours:
                    try:
                        yield
                    finally:
                        self._lock.unlink(missing_ok=True)
                    return

    @property
    def state(self) -> PartState:
        """What is known of what has come; of nothing, where it is not to be believed."""
        try:
            found = PartState(**json.loads(self._notes.read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return PartState()
        if not self.path.exists() or not (found.name or found.boot == boot_id()):
            return PartState()
        return found

    @property
    def size(self) -> int:
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    @contextmanager
    def writing(self, at: int, etag: str, total: int | None) -> Iterator[BinaryIO]:
        """The file, to be written on from a byte; what is behind it is cut off."""
        self.path.touch()
        os.truncate(self.path, at)
        self._note(PartState(boot_id(), etag, total))
        with self.path.open("ab") as file:
            yield file

    def seal(self, name: str, license_: str, status: int | None) -> PartState:
        """Have it on the disk, under the name that it gets in the raw lake."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        sealed = replace(
            self.state, name=name, sha256=digest, license=license_, status=status, boot=boot_id()
        )
        self._note(sealed)
        return sealed

    @staticmethod
    def erase(folder: Path, video_id: str, link_ids: Collection[str]) -> None:
        """Remove from a folder what has come of a video, by its content or by its links, unless
        somebody fetches it now: who does, looks for its tombstone before it is published."""
        for name in {path.name.partition(".")[0] for path in folder.iterdir()}:
            part = LinkPart(folder, name)
            if name in link_ids or part.state.sha256.startswith(video_id):
                with suppress(LinkBusyError), part.lock():
                    part.remove()
                    shutil.rmtree(part.pages, ignore_errors=True)

    def drop(self, sha256: str) -> None:
        """Remove what was published and recorded, unless somebody has the link again by now."""
        with suppress(LinkBusyError), self.lock():
            if self.state.sha256 == sha256 or not self.path.exists():  # it was moved there
                self.remove()

    def remove(self) -> None:
        self._notes.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def _note(self, state: PartState) -> None:
        aside = self._notes.with_suffix(".new")
        with aside.open("w") as file:
            json.dump(asdict(state), file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self._notes)
