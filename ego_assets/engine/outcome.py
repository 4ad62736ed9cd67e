"""What a stage did to a shard: counts, failures, notes. Not here: how it was done (`runner`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ego_assets.engine.plan import WorkItem
from ego_assets.engine.workers.messages import Ended, Progress, TakenOver
from ego_assets.engine.workers.pulse import slow_words


@dataclass(frozen=True)
class Failure:
    """An item that ended badly, or could not start."""

    item_id: str
    state: str
    reason: str


@dataclass
class StageReport:
    """What a stage did to a shard. `rows` are those now in the lake; taken_over: results that were
    there, and that the ledger did not know of; outdone: why rows that were published count for
    nothing; moved_files: {old uri: new uri} of raw files that were found elsewhere; gone_files:
    {uri: why}, of those that it was not known of."""

    stage: str
    shard: str
    items: int = 0
    done: int = 0
    skipped: int = 0
    retried: int = 0
    quarantined: int = 0
    blocked: int = 0
    gone: int = 0
    waiting: int = 0
    taken_over: int = 0
    worker_deaths: int = 0
    seconds: float = 0.0
    video_s: float = 0.0
    peak_rss_bytes: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    outdone: list[str] = field(default_factory=list)
    notes: dict[str, dict[str, Any]] = field(default_factory=dict)
    slow: dict[str, str] = field(default_factory=dict)
    """{item: what to say of how slowly its file is read}."""
    moved_files: dict[str, str] = field(default_factory=dict)
    gone_files: dict[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        return self.quarantined + self.blocked

    @property
    def items_per_minute(self) -> float:
        return 60 * self.done / self.seconds if self.done else 0.0

    @property
    def video_s_per_s(self) -> float:
        return self.video_s / self.seconds if self.done else 0.0


class Tally:
    """Enters what workers say into a report.

    A take that is begun again passes over what this run has done: that is not counted twice.
    warn: told at once of a file that is read slower than `min_bytes_per_s`.
    """

    def __init__(
        self,
        report: StageReport,
        items: Iterable[WorkItem] = (),
        min_bytes_per_s: float = 0.0,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self.report = report
        self.items = {u.item_id: u for u in items}
        self.min_bytes_per_s = min_bytes_per_s
        self.warn = warn
        self._done: set[str] = set()

    def note(self, message: Any) -> None:
        """Enter one message; those that are not of how an item ended are passed over."""
        report = self.report
        if isinstance(message, TakenOver) and message.why:
            report.outdone.append(message.why)
        if isinstance(message, Progress):
            self._note_reading(message)
        if not isinstance(message, Ended):
            return
        report.peak_rss_bytes = max(report.peak_rss_bytes, message.peak_rss_bytes)
        if message.state == "done":
            self._done.add(message.item_id)
            report.done += 1
            report.video_s += self.items[message.item_id].video_s
            if message.notes:
                report.notes[message.item_id] = message.notes
        elif message.state == "skipped":
            report.skipped += message.item_id not in self._done
            self._done.add(message.item_id)
        elif message.state == "failed":
            report.retried += 1
        elif message.state == "gone":
            report.gone += 1
            reason = message.error or "its raw file is gone"
            report.failures.append(Failure(message.item_id, message.state, reason))
        else:
            report.quarantined += 1
            reason = message.error or "unknown"
            report.failures.append(Failure(message.item_id, message.state, reason))

    def _note_reading(self, read: Progress) -> None:
        item = self.items.get(read.item_id)
        uri = str(item.payload.get("uri", read.item_id)) if item else read.item_id
        words = slow_words(uri, read.byte_count, read.reading_s, self.min_bytes_per_s)
        if words and read.item_id not in self.report.slow and self.warn:
            self.warn(words)
        if words:
            self.report.slow[read.item_id] = words


_SUMMED = (
    *("items", "done", "skipped", "retried", "quarantined", "blocked", "gone", "taken_over"),
    *("worker_deaths", "seconds", "video_s", "failures", "outdone"),
)


def merged(reports: Sequence[StageReport]) -> StageReport:
    """Of the parts of a stage, one after another."""
    first, *others = reports
    total = replace(first)
    for other in others:
        for name in _SUMMED:
            setattr(total, name, getattr(total, name) + getattr(other, name))
        total.waiting = max(total.waiting, other.waiting)  # each counts those of the shard
        total.peak_rss_bytes = max(total.peak_rss_bytes, other.peak_rss_bytes)
        total.rows = other.rows
        total.notes = total.notes | other.notes
        total.slow = total.slow | other.slow
        total.moved_files = total.moved_files | other.moved_files
        total.gone_files = total.gone_files | other.gone_files
    return total
