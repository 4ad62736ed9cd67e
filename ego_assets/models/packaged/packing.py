"""Packs weights into one archive for a machine without a network, and unpacks it there.

Here: the archive and what is let out of it. Not here: fetching.

An archive may come from anywhere: only files that this project declares are taken out of it, and
only if their hashes are the declared ones. Its own manifest is for people, and decides nothing.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ego_assets.models.packaged.declaration import PACKAGED, PackagedFile, PackagedWeights
from ego_assets.models.packaged.fetching import is_there
from ego_assets.models.packaged.landing import FetchError, write

MANIFEST = "manifest.json"


def pack(root: Path, file: Path) -> list[str]:
    """Put all packaged weights that are there into an archive, and return their names. Raises
    FetchError if there are none."""
    held = [each for each in PACKAGED.values() if is_there(root, each)]
    if not held:
        raise FetchError(f"no weights below {root}: run `ego weights fetch --default` first")
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        # Weights are often links into a cache: what is packed is what they lead to.
        with tarfile.open(aside, "w", dereference=True) as archive:
            content = json.dumps(_manifest(held), indent=1).encode()
            entry = tarfile.TarInfo(MANIFEST)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
            for path in _contents(held):
                archive.add(root / path, path, recursive=False, filter=_plain)
        aside.replace(file)
    finally:
        with suppress(FileNotFoundError):
            aside.unlink()
    return [each.name for each in held]


def _contents(held: Iterable[PackagedWeights]) -> dict[str, PackagedFile]:
    return {path: file for each in held for path, file in each.contents.items()}


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without owner and time, so that the same weights make the same archive."""
    plain = tarfile.TarInfo(entry.name)
    plain.size = entry.size
    return plain


def _manifest(held: list[PackagedWeights]) -> dict[str, object]:
    hashes = {path: file.sha256 for path, file in _contents(held).items()}
    return {"weights": [each.name for each in held], "sha256": hashes}


def unpack(file: Path, root: Path) -> tuple[list[str], list[str]]:
    """Bring the weights of an archive below `root`: (names of the weights that are there now,
    entries that were left out because they are not declared). Raises FetchError."""
    declared = _contents(PACKAGED.values())
    left_out = []
    try:
        with tarfile.open(file, "r:") as archive:
            for entry in archive:
                known = declared.get(entry.name)
                if known is None or not entry.isreg() or entry.size != known.size:
                    if entry.name != MANIFEST:
                        left_out.append(entry.name)
                    continue
                source = archive.extractfile(entry)
                assert source is not None  # a regular file has one
                write(root / entry.name, source, known)
    except (tarfile.TarError, EOFError) as error:
        raise FetchError(f"{file} cannot be read as an archive of weights: {error}") from error
    return [each.name for each in PACKAGED.values() if is_there(root, each)], left_out
