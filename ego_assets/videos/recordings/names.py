"""Names that say which chapter of which recording a file is.

Only those of GoPro are known: no other maker documents names that tell a chapter from the next
recording (docs/adr/0038). Not here: whether a file is what its name says (`evidence`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from resources.raw.uris import is_remote, path_of, uri_of

_NEW = re.compile(r"(G[HXLS])(\d\d)(\d{4})", re.IGNORECASE | re.ASCII)
_FIRST = re.compile(r"(GO)PR(\d{4})", re.IGNORECASE | re.ASCII)
_NEXT = re.compile(r"(GP)(\d\d)(\d{4})", re.IGNORECASE | re.ASCII)

MAX_CHAPTERS = 99


@dataclass(frozen=True)
class ChapterName:
    """uri: of the file; recording: what its name shares with those of the other chapters of the
    recording; index: of the chapter, from 0."""

    uri: str
    recording: str
    index: int

    def sibling(self, index: int) -> ChapterName:
        """The name of another chapter, in the same folder."""
        folder, stem, suffix = _parts(self.uri)
        kind, number = stem[:2], stem[-4:]
        if self.recording.startswith("GOPR"):
            name = f"GP{index:02d}{number}" if index else f"GOPR{number}"
            name = name.lower() if kind.islower() else name
        else:
            name = f"{kind}{index + 1:02d}{number}"
        return ChapterName(_join(self.uri, folder, name + suffix), self.recording, index)

    def before(self) -> list[ChapterName]:
        """The chapters before this one, the nearest first."""
        return [self.sibling(index) for index in range(self.index - 1, -1, -1)]

    def after(self) -> list[ChapterName]:
        """The chapters that may come after this one: a name has room for 99."""
        return [self.sibling(index) for index in range(self.index + 1, MAX_CHAPTERS)]


def chapter_of(uri: str) -> ChapterName | None:
    """What the name of a file says; None: not that it is a chapter.

    GX010012.MP4, GX020012.MP4 … (also GH, GL, GS), of older cameras GOPR0012.MP4, GP010012.MP4 …:
    GoPro, "Camera File Naming Convention". Recordings in a loop (GHAA0012.MP4) have no chapters.
    """
    _, stem, _ = _parts(uri)
    if found := _NEW.fullmatch(stem):
        kind, chapter, number = found.groups()
        if chapter != "00":
            return ChapterName(uri, f"{kind.upper()}{number}", int(chapter) - 1)
    elif found := _FIRST.fullmatch(stem):
        return ChapterName(uri, f"GOPR{found[2]}", 0)
    elif (found := _NEXT.fullmatch(stem)) and found[2] != "00":
        return ChapterName(uri, f"GOPR{found[3]}", int(found[2]))
    return None


def folder_of(uri: str) -> str:
    """Of a raw file, local or not."""
    return uri.rpartition("/")[0]


def _parts(uri: str) -> tuple[str, str, str]:
    """(folder, stem, suffix)"""
    if not is_remote(uri):
        path = path_of(uri)
        return str(path.parent), path.stem, path.suffix
    folder, _, name = uri.rpartition("/")
    stem, dot, suffix = name.rpartition(".")
    return (folder, stem, dot + suffix) if dot else (folder, name, "")


def _join(like: str, folder: str, name: str) -> str:
    return f"{folder}/{name}" if is_remote(like) else uri_of(path_of(like).with_name(name))
