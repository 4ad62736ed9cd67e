"""Keeps in the lake what came of each link: the table `links` of `ego sql`.

    <lake>/_links/{time}.{id}.jsonl         some rows, written once
    <lake>/_links/together-{sha256}.jsonl   many of them: what the small files said

As with reviews (`ego_assets.reviews.store`), no file is ever changed, and files are put together by
writing their union first: two at once need no lock. Of a link the newest row counts.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
import uuid
from collections.abc import Callable, Container, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime

import pyarrow as pa

from ego_assets.intake.links.outcome import State
from resources.lake import Lake, LakeError

FOLDER = "_links"
TABLE = "links"
TOGETHER = "together-"
MOST_FILES = 64
"""Before they are put together."""
MOST_ROWS = 200
FLUSH_S = 5.0
"""A row waits no longer, nor more rows, before they are written."""
_READERS = 8


@dataclass(frozen=True, slots=True)
class LinkRow:
    """What came of a link. path: uri in the raw lake; time: of this row, ISO 8601, UTC."""

    link_id: str
    url: str
    state: State
    reason: str = ""
    path: str | None = None
    bytes: int | None = None
    sha256: str | None = None
    license: str = ""
    source: str = ""
    fetched_at: str | None = None
    attempts: int = 0
    http_status: int | None = None
    time: str = ""


_FIELDS = frozenset(field.name for field in fields(LinkRow))
_NUMBERS = {"bytes": pa.int64(), "attempts": pa.int32(), "http_status": pa.int32()}
SCHEMA = pa.schema([(f.name, _NUMBERS.get(f.name, pa.string())) for f in fields(LinkRow)])


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


class LinkFiles:
    """The rows of all links of a lake. For many processes at once, a thread each."""

    def __init__(self, lake: Lake) -> None:
        self._storage = lake.storage
        self._known: dict[str, tuple[LinkRow, ...]] = {}

    def add(self, rows: Iterable[LinkRow]) -> None:
        """Keep rows: when this returns, they are in the lake."""
        found = [replace(row, time=row.time or now()) for row in rows]
        if found:
            when = "".join(c for c in now()[:26] if c.isdigit())
            self._storage.write(f"{FOLDER}/{when}.{uuid.uuid4().hex}.jsonl", _lines(found))
            if len(self._storage.list(FOLDER)) > MOST_FILES:
                self._put_together()

    def newest(self) -> dict[str, LinkRow]:
        """The last row of each link, by its id."""
        return _newest(row for each in self._read().values() for row in each)

    def table(self) -> pa.Table:
        """The last row of each link, in the order of links."""
        rows = sorted(self.newest().values(), key=lambda row: row.url)
        return pa.Table.from_pylist([asdict(row) for row in rows], SCHEMA)

    def of_video(self, video_id: str) -> list[LinkRow]:
        """All rows of the links that have had a video, by its content: also of before it came."""
        rows = [row for each in self._read().values() for row in each]
        ids = {row.link_id for row in rows if (row.sha256 or "").startswith(video_id)}
        return [row for row in rows if row.link_id in ids]

    def erase(self, link_ids: Container[str]) -> None:
        """Erase all rows of some links."""
        for key, rows in self._read().items():
            kept = [row for row in rows if row.link_id not in link_ids]
            if len(kept) < len(rows):
                if kept:
                    self._write_together(kept)
                self._storage.delete(key)

    def _read(self) -> dict[str, tuple[LinkRow, ...]]:
        """What each file says. A file never changes, so each is read once."""
        while True:
            keys, known = self._storage.list(FOLDER), self._known
            missing = [key for key in keys if key not in known]
            try:
                with ThreadPoolExecutor(_READERS) as pool:
                    read = list(pool.map(self._storage.read, missing))
            except FileNotFoundError:  # they were put together after the listing
                continue
            new = {key: _parsed(key, data) for key, data in zip(missing, read, strict=True)}
            found = {key: new[key] if key in new else known[key] for key in keys}
            self._known = found
            return found

    def _put_together(self) -> None:
        files = self._read()
        target = self._write_together(_newest(r for each in files.values() for r in each).values())
        for key in files.keys() - {target}:
            self._storage.delete(key)

    def _write_together(self, rows: Iterable[LinkRow]) -> str:
        data = _lines(rows)
        key = f"{FOLDER}/{TOGETHER}{hashlib.sha256(data).hexdigest()}.jsonl"
        self._storage.write(key, data, replace=False)
        return key


class Recorder:
    """Collects rows of many threads, and writes them a few at a time."""

    def __init__(self, files: LinkFiles) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._waiting: list[tuple[LinkRow, Callable[[], None] | None]] = []
        self._written = time.monotonic()

    def add(self, row: LinkRow, then: Callable[[], None] | None = None) -> None:
        """Have a row written soon. then: called once it is in the lake."""
        with self._lock:
            self._waiting.append((replace(row, time=now()), then))

    def flush(self, *, is_last: bool = False) -> None:
        """Write what waits, if it is much or has waited long. For one thread."""
        is_due = time.monotonic() - self._written >= FLUSH_S
        if not (is_last or is_due or len(self._waiting) >= MOST_ROWS):
            return
        with self._lock:
            rows, self._waiting = self._waiting, []
        self._files.add(row for row, _ in rows)
        self._written = time.monotonic()
        for _, then in rows:
            if then is not None:
                then()


def _newest(rows: Iterable[LinkRow]) -> dict[str, LinkRow]:
    found: dict[str, LinkRow] = {}
    for row in rows:
        if (other := found.get(row.link_id)) is None or other.time < row.time:
            found[row.link_id] = row
    return found


def _lines(rows: Iterable[LinkRow]) -> bytes:
    return "".join(f"{json.dumps(asdict(r), ensure_ascii=False)}\n" for r in rows).encode()


def _parsed(key: str, data: bytes) -> tuple[LinkRow, ...]:
    try:
        said = [json.loads(line) for line in data.decode().split("\n") if line]
        # A newer release may say more.
        return tuple(LinkRow(**{k: v for k, v in each.items() if k in _FIELDS}) for each in said)
    except (ValueError, TypeError, AttributeError) as error:
        raise LakeError(
            f"{key} holds no rows of links ({error}): move the file out of {FOLDER} and look at it"
        ) from error
