"""Tar files whose bytes depend on their content alone: no times, no owners, one order.

The files of a sample follow each other and share their name up to the first dot.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from ego_assets.exports.files import naming
from ego_assets.exports.grid import ExportError

MAX_NAME = 100
"""Longer names need headers that some readers of shards do not know."""


@dataclass(frozen=True)
class TarFiles:
    """Files of a tar, by their places in it."""

    path: Path
    first: int
    files: int


class ShardWriter:
    """Writes one tar."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> ShardWriter:
        with naming(self._path):
            self._tar = tarfile.open(self._path, "w", format=tarfile.USTAR_FORMAT)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with naming(self._path):
            self._tar.close()

    def add(self, name: str, data: bytes | Path) -> None:
        """Add a file. Raises ExportError for a name that is too long."""
        if len(name.encode()) > MAX_NAME:
            raise ExportError(f"the name {name} is longer than {MAX_NAME} bytes")
        info = tarfile.TarInfo(name)  # mode 644, no owner, time 0
        if isinstance(data, Path):
            info.size = data.stat().st_size
            with naming(self._path), data.open("rb") as file:
                self._tar.addfile(info, file)
        else:
            info.size = len(data)
            with naming(self._path):
                self._tar.addfile(info, io.BytesIO(data))

    def copy(self, sources: Sequence[TarFiles]) -> None:
        """Add files of other tars. Raises ExportError if a tar has fewer."""
        for part in sources:
            with naming(part.path), tarfile.open(part.path, "r:") as source:
                last = part.first + part.files
                found = 0
                for place, info in enumerate(source):
                    if part.first <= place < last:
                        with naming(self._path):
                            self._tar.addfile(info, source.extractfile(info))
                        found += 1
                    if place + 1 >= last:
                        break
            if found != part.files:
                raise ExportError(
                    f"{part.path} has {found} of {part.files} files from file "
                    f"{part.first} on: it was changed. Delete it, and export again"
                )
