"""Passes over files whose content was forgotten: they enter no shard, whatever they are called, and
neither the lake nor the ledger keeps their names.

Only files that have the size of a forgotten one are read for that. Where one was found is kept as a
hash of its name, size and version, so that it is read and told of once. Not here: forgetting
(`ego_assets.upkeep.erasure`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from resources.lake import Lake, file_item_id
from resources.lake.s3.client import s3_errors
from resources.ledger import Ledger
from resources.ledger.contents import Contents, Tombstone
from resources.ledger.raw_files import RawFiles, Seen
from resources.raw.presence import RawAwayError, RawGoneError, RawRefusedError
from resources.raw.reader import RawChangedError, RawReader, is_remote, look
from resources.raw.scratch import Scratch
from resources.raw.tombstones import agree


@dataclass
class PassedOver:
    """Files that hold a forgotten video, {uri: video_id}. new: those that nobody was told of;
    undecided: those that there was no time to read."""

    files: dict[str, str] = field(default_factory=dict)
    new: list[str] = field(default_factory=list)
    undecided: set[str] = field(default_factory=set)


def pass_over(
    lake: Lake,
    ledger: Ledger,
    files: Mapping[str, int],
    known: Iterable[str] = (),
    is_late: Callable[[], bool] = lambda: False,
) -> PassedOver:
    """Find, among files ({uri: size in bytes}), those whose content was forgotten.

    known: files that are in shards, which are not looked at.
    """
    found = PassedOver()
    if not agree(lake, ledger):
        return found
    in_shards = set(known)
    tombstones = Contents(ledger).tombstones(files.values())
    by_size: dict[int, list[Tombstone]] = {}
    for tombstone in tombstones.values():
        by_size.setdefault(tombstone.byte_size, []).append(tombstone)
    suspects = [u for u, size in files.items() if size in by_size and u not in in_shards]
    seen = RawFiles(ledger)
    marks = seen.left_alone(map(file_item_id, suspects))
    for uri in suspects:
        if is_late():
            found.undecided.add(uri)
            continue
        with suppress(RawAwayError, RawGoneError, RawRefusedError, OSError, *s3_errors()):
            _judge(uri, by_size[files[uri]], marks, seen, found)
    return found


def _judge(
    uri: str,
    tombstones: list[Tombstone],
    marks: Mapping[str, int],
    seen: RawFiles,
    found: PassedOver,
) -> None:
    state = look(uri)
    file = Seen(file_item_id(uri), uri, state.byte_size, state.version, waits=False)
    if marks.get(file.file_id) == file.mark:
        found.files[uri] = ""
        return
    video_id = _forgotten_video(uri, tombstones)
    if video_id is None:
        return
    found.files[uri] = video_id
    found.new.append(uri)
    if state.text:  # else it may be another file a moment later, and look the same
        seen.leave_alone(file)


def _forgotten_video(uri: str, tombstones: list[Tombstone]) -> str | None:
    """The forgotten video that a file holds. One that was never read is known by its name."""
    unread = {t.video_id for t in tombstones if not t.sha256}
    if (name := file_item_id(uri)) in unread:
        return name
    hashes = {t.sha256: t.video_id for t in tombstones if t.sha256}
    if not hashes:
        return None
    with suppress(RawChangedError):
        sha256 = RawReader().sha256(uri)
        if sha256 in hashes:
            if is_remote(uri):
                Scratch.of_machine().erase(sha256)
            return hashes[sha256]
    return None
