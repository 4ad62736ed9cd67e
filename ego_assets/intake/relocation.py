"""Mends the places of raw files whose root was moved: a folder, or a prefix on S3.

A person says so, so that nothing has to be searched for: each file has the same path below the new
root as below the old one. It is looked at there, and its bytes are compared as far as it is asked
for; then its place is put down as that of any moved file (`moves`). Killed at any point, the same
command goes on. Not here: files that were moved one by one, which listings find by themselves.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from ego_assets.intake.moves import Move, Moves, enter_all, relabel
from ego_assets.upkeep.recovery.agreement import note_file
from resources.lake import Lake, file_item_id
from resources.lake.s3.client import s3_errors
from resources.ledger import Ledger
from resources.ledger.raw_files import RawFiles, Seen
from resources.ledger.sources import STAGE, Source, Sources
from resources.raw.places import RawFileOfShard, files_of
from resources.raw.presence import RawAwayError, RawGoneError, RawRefusedError, RawState
from resources.raw.reader import (
    RawReader,
    is_remote,
    look,
    path_of,
    sidecar_of,
    uri_of,
)
from resources.raw.sidecars import sidecar_kinds, sidecar_state
from resources.raw.uris import CAMERA, FOOTAGE

LOOKS_AT_ONCE = 8
CHEAP_BYTES = 8 * 2**20
"""Of a local file: so many are read to compare them, whether that is asked for or not."""
AT_ONCE = 500
"""Files whose places are put down while nobody else may enter any."""


class RelocationError(ValueError):
    """It makes no sense, or cannot be done; nothing was changed. The message says why."""


@dataclass
class Relocation:
    """What came of a relocation. found: {old uri: new uri} of what is at its new place; missing,
    other: {new uri: why} of what is not there, or has other bytes; already: files that are at
    their new places by now. waiting: work items that wait for the files, by shard. is_done: whether
    places were changed."""

    found: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    other: dict[str, str] = field(default_factory=dict)
    already: int = 0
    waiting: dict[str, int] = field(default_factory=dict)
    is_done: bool = False


def relocate(
    lake: Lake,
    ledger: Ledger,
    old: str,
    new: str,
    *,
    check_bytes: bool = False,
    partial: bool = False,
) -> Relocation:
    """Put down that what was below `old` is below `new` now.

    Nothing is changed if a file is missing there, or has other bytes, unless it is `partial`: then
    that file alone stays as it was. check_bytes: read all of them; else the size decides, and the
    next run of a shard reads those once that it does not know by their times. Raises
    RelocationError.
    """
    enter_all(lake, ledger)
    roots, target = _roots(old), _roots(new)[-1]
    if target == roots[0]:
        raise RelocationError(f"{old} and {new} are one place: nothing is to be done")
    roots = [root for root in roots if root != target]  # the old one may be a link to the new one
    found = Relocation()
    files, shards, states = _files_below(lake, roots, target, found)
    if not files and not found.already:
        known = ", ".join(sorted({_folder(f.uri) for f in _all_files(lake)})[:5]) or "none"
        raise RelocationError(f"no raw file of {lake.location} is below {old}: they are in {known}")
    looked = _look_at_all(ledger, files, target, check_bytes)
    moves = [move for move, _, _ in looked if move is not None]
    for _, uri, why in looked:
        if why.startswith(_OTHER):
            found.other[uri] = why
        elif why:
            found.missing[uri] = why
    found.found = {m.source.uri: m.uri for m in moves}
    if (found.missing or found.other) and not partial:
        return found
    for start in range(0, len(moves), AT_ONCE):
        with lake.storage.lock("shards"):
            moved = Moves(lake, ledger).apply(moves[start : start + AT_ONCE])
            for shard in {source.shard for source in moved.removed}:
                _take_out(lake, ledger, shard)
        for shard, items in moved.again.items():
            if items:
                found.waiting[shard] = found.waiting.get(shard, 0) + items
    states |= {move.uri: move.state for move in moves}
    for shard in shards:
        with lake.storage.lock("shards"):
            _agree(lake, ledger, shard, target, states)
    found.is_done = True
    return found


_OTHER = "it has other bytes"


def _agree(
    lake: Lake, ledger: Ledger, shard: str, target: str, states: dict[str, RawState]
) -> None:
    """Let the ledger and the manifest of a shard say what the lake says of its places: somebody may
    have been killed before they did. states: of the files that were looked at, by uri."""
    sources, files = Sources(ledger), RawFiles(ledger)
    known = sources.of_shard(shard)
    news: list[tuple[Seen, str]] = []
    olds: list[tuple[str, str]] = []
    for file in files_of(lake, shard):
        source = known.get(file.item)
        if source is not None and source.uri != file.uri:
            sources.move(source, file.uri, "")
            olds.append((source.uri, shard))
        elif _below(file.uri, target) is None:
            continue
        if file.entered_uri != file.uri:
            olds.append((file.entered_uri, shard))
        state = states.get(file.uri) or _state_of(file.uri)
        if state is not None:
            news.append((_seen(file.uri, state), shard))
    files.moved(olds, news)
    relabel(lake, ledger, shard)


def _take_out(lake: Lake, ledger: Ledger, shard: str) -> None:
    """Take the rows of files out of a manifest whose places the relocated ones have: they were
    copies, and no run of their shard may come."""
    items = [file.item for file in files_of(lake, shard)]
    lake.compact(STAGE, shard, items)
    ledger.forget(STAGE, shard, items)
    note_file(lake, ledger, STAGE, shard)


def _files_below(
    lake: Lake, roots: list[str], target: str, found: Relocation
) -> tuple[list[tuple[RawFileOfShard, str]], list[str], dict[str, RawState]]:
    """Files that are below the old root, each with its path there; the shards that have any, or
    have some at the new root by now; and the states of the files that are there by now."""
    files: list[tuple[RawFileOfShard, str]] = []
    shards: dict[str, None] = {}
    maybe_new: list[tuple[RawFileOfShard, str | None]] = []
    for file in _all_files(lake):
        below = next((b for r in roots if (b := _below(file.uri, r)) is not None), None)
        if _below(file.uri, target) is not None:
            maybe_new.append((file, below))
        elif below is not None:
            files.append((file, below))
        else:
            continue
        shards[file.shard] = None
    with ThreadPoolExecutor(LOOKS_AT_ONCE, thread_name_prefix="look") as pool:
        uris = [file.uri for file, _ in maybe_new]
        looked = zip(uris, pool.map(_state_of, uris), strict=True)
        states = {uri: state for uri, state in looked if state is not None}
    for file, below in maybe_new:
        if below is None or file.uri in states:
            found.already += 1
        else:
            files.append((file, below))
    return files, list(shards), states


def _all_files(lake: Lake) -> Iterator[RawFileOfShard]:
    for shard in lake.shards():
        yield from files_of(lake, shard)


def _state_of(uri: str) -> RawState | None:
    with suppress(*_ABSENT, *s3_errors()):
        return look(uri)
    return None


_ABSENT = (RawAwayError, RawGoneError, RawRefusedError)


def _look_at_all(
    ledger: Ledger,
    files: Iterable[tuple[RawFileOfShard, str]],
    target: str,
    check_bytes: bool,
) -> list[tuple[Move | None, str, str]]:
    """(move, new uri, why it is none) of each file."""
    sources = Sources(ledger)
    known: dict[str, dict[str, Source]] = {}
    for file, _ in files:
        if file.shard not in known:
            known[file.shard] = sources.of_shard(file.shard)

    def look_at(one: tuple[RawFileOfShard, str]) -> tuple[Move | None, str, str]:
        file, below = one
        uri = _joined(target, below)
        source = known[file.shard].get(file.item)
        source = source or Source(file.item, file.shard, file.uri, file.byte_size)
        try:
            state = look(uri)
            is_compared = _is_compared(source, uri, state, check_bytes)
            why = _difference(source, uri, state, is_compared)
        except _ABSENT as error:
            return None, uri, (error.strerror if isinstance(error, OSError) else "") or str(error)
        except (OSError, ValueError) as error:
            return None, uri, f"it cannot be read: {error}"
        except s3_errors() as error:
            return None, uri, f"it cannot be asked for: {error}"
        if why:
            return None, uri, why
        return Move(source, uri, _as_known(source, state, is_compared)), uri, ""

    with ThreadPoolExecutor(LOOKS_AT_ONCE, thread_name_prefix="look") as pool:
        return list(pool.map(look_at, files))


def _difference(source: Source, uri: str, state: RawState, is_compared: bool) -> str:
    """Why a file at a new place is not the one that is known; empty: it is, as far as was asked."""
    if state.byte_size != source.byte_size:
        return f"{_OTHER}: {state.byte_size:,} of them, not {source.byte_size:,}"
    if is_compared:
        sha256 = RawReader().sha256(uri)
        if sha256 != source.sha256:
            return f"{_OTHER}: its SHA-256 is {sha256[:16]}…, not {(source.sha256 or '')[:16]}…"
    if source.sidecar is not None:
        missing = sidecar_kinds(source.sidecar) - sidecar_kinds(sidecar_state(uri))
        for kind in sorted(missing):
            is_one_of = " (or that of its folder)" * (kind == FOOTAGE)
            where = f"{sidecar_of(uri, kind)}{is_one_of}"
            return f"its {_BESIDE[kind]} {where} is not there: copy it, too"
    return ""


_BESIDE = {CAMERA: "calibration", FOOTAGE: "footage file"}


def _is_compared(source: Source, uri: str, state: RawState, check_bytes: bool) -> bool:
    """Whether the bytes of a file are read. One that was renamed with its folder is as it was."""
    if not source.sha256 or (source.state and source.state == state.text):
        return False
    return check_bytes or (not is_remote(uri) and state.byte_size <= CHEAP_BYTES)


def _as_known(source: Source, state: RawState, is_compared: bool) -> RawState:
    """The state of a file, to be believed from now on only if its bytes were compared in it."""
    is_same = bool(source.state) and source.state == state.text
    return state if is_same or is_compared else replace(state, is_racy=True)


def _roots(place: str) -> list[str]:
    """A place as it is written, and last as listings name it, without links. Each ends with a
    slash; that of a folder is a plain path, whatever names are in it."""
    if is_remote(place):
        return [f"{place.rstrip('/')}/"]
    # Not resolved: the old root may have become a link.
    path = Path(os.path.normpath(path_of(place).expanduser().absolute()))
    return list(dict.fromkeys(f"{str(p).rstrip('/')}/" for p in (path, os.path.realpath(path))))


def _below(uri: str, root: str) -> str | None:
    """The path of a file below a root; None if it is not below."""
    if is_remote(uri) != is_remote(root):
        return None
    text = uri if is_remote(uri) else str(path_of(uri))
    return text.removeprefix(root) if text.startswith(root) else None


def _joined(root: str, below: str) -> str:
    return f"{root}{below}" if is_remote(root) else uri_of(Path(root + below))


def _folder(uri: str) -> str:
    return uri.rpartition("/")[0]


def _seen(uri: str, state: RawState) -> Seen:
    return Seen(file_item_id(uri), uri, state.byte_size, state.version)
