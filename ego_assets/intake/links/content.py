"""What a file that came is, and what it is to be called. Its header is read in a child process."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ego_assets.intake.headers import HeaderReader
from ego_assets.intake.links.lists import Link, stem_of_name, video_suffix
from ego_assets.intake.links.outcome import LinkError

MOST_STEM = 80
_SUFFIXES = {
    "mov": ".mp4",
    "matroska": ".mkv",
    "avi": ".avi",
    "mpegts": ".ts",
    "mpeg": ".mpg",
    "flv": ".flv",
    "asf": ".wmv",
    "ogg": ".ogv",
}
"""By the first of libav's names of a container."""


class ContentReader:
    """Says which container a video has. A context manager, for many threads at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._headers = HeaderReader()

    def __enter__(self) -> ContentReader:
        return self

    def __exit__(self, *given: object) -> None:
        self._headers.__exit__(*given)

    def suffix(self, path: Path) -> str:
        """The usual suffix of what a file is. Raises LinkError if that is no video."""
        with self._lock:
            # Once more, lest it was the machine's fault.
            found = self._headers.header(path) or self._headers.header(path)
        if found is None:
            raise LinkError("whoever reads its header dies, or comes to no end", is_void=True)
        kind = _SUFFIXES.get(found.formats.partition(",")[0])
        if found.fault or kind is None:
            raise LinkError(f"not a video: {found.fault or found.formats}", is_void=True)
        return kind


def stem_of(link: Link) -> str:
    """What the video of a link is called, without its suffix: as the list says, or as the link
    ends, and then so that no other link has the same."""
    if link.name:
        return stem_of_name(link.name)
    last = unquote(urlsplit(link.shown).path, errors="replace").rpartition("/")[2]
    plain = re.sub(r"[^\w.-]+", "_", stem_of_name(last), flags=re.ASCII)
    return f"{plain.strip('._')[:MOST_STEM] or 'video'}-{link.id[:12]}"


def name_of(link: Link, usual: str) -> str:
    """With the suffix that the link has, if it is one of a video, or else the usual one."""
    given = video_suffix(link.name or urlsplit(link.shown).path)
    return f"{stem_of(link)}{given.lower() or usual}"
