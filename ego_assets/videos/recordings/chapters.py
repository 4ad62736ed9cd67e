"""Chapters: files that a camera has made of one recording (docs/adr/0038).

Here: what the manifest says of a file's recording, and whether that has become more. Not here:
names (`names`), the comparison of two files (`evidence`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import av

from ego_assets.media.containers import open_media, unless_of_storage
from ego_assets.operator import BadInputError
from ego_assets.videos.recordings.evidence import HeaderFacts, follows, header_facts
from ego_assets.videos.recordings.names import chapter_of, folder_of
from resources.raw.presence import RawGoneError, RawRefusedError
from resources.raw.reader import is_remote, look, path_of, raw_version
from resources.raw.s3.remote_file import RemoteFile

COLUMNS = ("recording_id", "chapter_index", "recording_start_s")


def recording_columns(
    uri: str,
    path: Path,
    known_id: Callable[[Iterable[str]], str | None] = lambda _: None,
    stream_index: int | None = None,
) -> dict[str, Any]:
    """Columns of `video_manifest` on the recording that a file is a chapter of; null if it is none.

    uri: where the file lies, beside the chapters before it; path: where it can be read. known_id:
    the recording that rows of the manifest have for one of these uris, which stays: a recording
    that was moved keeps its id. Raises BadInputError if the file cannot be understood, OSError if
    one cannot be read.
    """
    nothing = dict.fromkeys(COLUMNS)
    name = chapter_of(uri)
    if name is None:
        return nothing
    with open_media(path) as container:
        later = header_facts(container, stream_index)
    start_s: float | None = 0.0
    before = name.before()
    for chapter in before:
        found = _facts_at(chapter.uri, stream_index)
        if found is None:
            start_s = None
            break
        if not follows(found, later):
            return nothing
        if start_s is not None:
            start_s = None if found.duration_s is None else start_s + found.duration_s
        later = found
    relatives = [name, *before, name.sibling(name.index + 1)]
    named = f"{folder_of(uri)}/{name.recording}"
    recording = known_id(each.uri for each in relatives)
    recording = recording or hashlib.sha256(named.encode("utf-8", "surrogateescape")).hexdigest()
    return {
        "recording_id": recording[:16],
        "chapter_index": name.index,
        "recording_start_s": start_s,
    }


def newly_there(uri: str, row: Mapping[str, Any]) -> list[Any]:
    """Versions of the chapters before a file whose row does not know where in its recording it
    begins, if all of them are there by now; else nothing."""
    if not row.get("chapter_index") or row.get("recording_start_s") is not None:
        return []
    name = chapter_of(uri)
    versions = [raw_version(chapter.uri) for chapter in name.before()] if name else []
    return [] if None in versions else versions


def _facts_at(uri: str, stream_index: int | None) -> HeaderFacts | None:
    """Of a chapter before; None if it is not there, or says nothing (it may still be written)."""
    with suppress(RawGoneError, RawRefusedError, BadInputError):
        look(uri)
        try:
            if not is_remote(uri):
                with open_media(path_of(uri)) as container:
                    return header_facts(container, stream_index)
            with RemoteFile(uri) as file, open_media(file) as container:
                return header_facts(container, stream_index)
        except av.FFmpegError as error:
            unless_of_storage(error, path_of(uri))
    return None
