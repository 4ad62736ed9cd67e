"""Keeps in the lake what came of each link: the table `links` of `ego sql`.

They lie in files of lines in `_links` (`ego_assets.line_files`). Of a link the newest row counts.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Container, Iterable
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime

import pyarrow as pa

from ego_assets.intake.links.outcome import State
from ego_assets.line_files import LineFiles
from resources.lake import Lake

FOLDER = "_links"
TABLE = "links"
MOST_FILES = 64
"""Before they are put together."""
MOST_ROWS = 200
FLUSH_S = 5.0
"""A row waits no longer, nor more rows, before they are written."""


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


_NUMBERS = {"bytes": pa.int64(), "attempts": pa.int32(), "http_status": pa.int32()}
SCHEMA = pa.schema([(f.name, _NUMBERS.get(f.name, pa.string())) for f in fields(LinkRow)])


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


class LinkFiles:
    """The rows of all links of a lake. For many processes at once, a thread each."""

    def __init__(self, lake: Lake) -> None:
        self._files = LineFiles(lake, FOLDER, LinkRow, "rows of links")

    def add(self, rows: Iterable[LinkRow]) -> None:
        """Keep rows: when this returns, they are in the lake."""
        found = [replace(row, time=row.time or now()) for row in rows]
        if found:
            self._files.add(found, now(), uuid.uuid4().hex)
            if len(self._files.keys()) > MOST_FILES:
                self._put_together()

    def newest(self) -> dict[str, LinkRow]:
        """The last row of each link, by its id."""
        return _newest(row for each in self._files.read().values() for row in each)

    def table(self) -> pa.Table:
        """The last row of each link, in the order of links."""
        rows = sorted(self.newest().values(), key=lambda row: row.url)
        return pa.Table.from_pylist([asdict(row) for row in rows], SCHEMA)

    def of_video(self, video_id: str) -> list[LinkRow]:
        """All rows of the links that have had a video, by its content: also of before it came."""
        rows = [row for each in self._files.read().values() for row in each]
        ids = {row.link_id for row in rows if (row.sha256 or "").startswith(video_id)}
        return [row for row in rows if row.link_id in ids]

    def erase(self, link_ids: Container[str]) -> None:
        """Erase all rows of some links."""
        for key, rows in self._files.read().items():
            kept = [row for row in rows if row.link_id not in link_ids]
            if len(kept) < len(rows):
                if kept:
                    self._files.write_together(kept)
                self._files.delete([key])

    def _put_together(self) -> None:
        files = self._files.read()
        rows = _newest(row for each in files.values() for row in each).values()
        self._files.delete(files.keys() - {self._files.write_together(rows)})


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
