"""Gathers the report of a day or a week from the ledger, the lake and Dagster's events.

Memory is bounded: the database counts, and shards are read one by one. Not here: pages
(`ego_assets.upkeep.reports.page`), reading Dagster's events (`sensors.report_events`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from ego_assets.catalog import TABLES
from ego_assets.upkeep.reports.page import PageTable, Report, html_page, markdown_page
from ego_assets.vision import plots
from resources.lake import Lake
from resources.ledger import Ledger, State
from resources.ledger.activity import Activity

FOLDER = "reports"
THROUGHPUT = "Throughput and time by stage (tables of one pass each count the whole pass)"
LISTED = 20
DAY_S = 86_400.0


@dataclass
class Events:
    """What Dagster's events say of the span: failing checks, {(table, check): shards} and the last
    sentence of each; drift, {table: [(when, times what is usual)]}; runs by how they ended.
    """

    runs: Counter[str] = field(default_factory=Counter)
    failing: Counter[tuple[str, str]] = field(default_factory=Counter)
    sentence: dict[tuple[str, str], str] = field(default_factory=dict)
    drift: dict[str, list[tuple[float, float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Written:
    """Where a report lies in the lake, and its text."""

    markdown_key: str
    html_key: str
    markdown: str
    facts: dict[str, str]


def write_report(lake: Lake, ledger: Ledger, events: Events, until: datetime, days: int) -> Written:
    """Gather the report of the `days` before `until` and put it into the lake.

    The same span again replaces it.
    """
    report = gather(lake, ledger, events, until, days)
    name = f"{until.astimezone(UTC):%Y%m%d-%H%M}-{days}d"
    keys = [f"{FOLDER}/{name}.{kind}" for kind in ("md", "html")]
    markdown = markdown_page(report)
    lake.storage.write(keys[0], markdown.encode())
    lake.storage.write(keys[1], html_page(report).encode())
    return Written(keys[0], keys[1], markdown, dict(report.facts))


def gather(lake: Lake, ledger: Ledger, events: Events, until: datetime, days: int) -> Report:
    """The report of the `days` before `until`."""
    end = until.timestamp()
    activity = Activity(ledger, end - days * DAY_S, end)
    stages = {s.stage: s for s in activity.stages()}
    taken = _taken_in(lake, activity)
    waiting = ledger.counts()
    quarantine = {t: waiting.get(t, {}).get(State.QUARANTINED, 0) for t in TABLES}
    bad = sum(s.failed + s.quarantined for s in stages.values())
    spent = sorted(stages.values(), key=lambda s: -s.seconds)
    last = stages.get(list(TABLES)[-1])
    facts = {
        "span": f"{datetime.fromtimestamp(end - days * DAY_S, UTC):%Y-%m-%d %H:%M} to "
        f"{until.astimezone(UTC):%Y-%m-%d %H:%M} UTC",
        "videos taken in": f"{taken.accepted:,} ({taken.hours:.1f} hours)",
        "videos rejected": f"{sum(taken.rejected.values()):,}",
        "clips through the whole graph": f"{last.done if last else 0:,}",
        "work items failed or put in quarantine": f"{bad:,}",
        "in quarantine now": f"{sum(quarantine.values()):,}",
        "runs": ", ".join(f"{n} {s}" for s, n in sorted(events.runs.items())) or "none",
    }
    tables = [
        PageTable(
            THROUGHPUT,
            ("stage", "done", "failed", "quarantined", "hours of work", "mean s", "slowest s"),
            [
                (
                    s.stage,
                    s.done,
                    s.failed,
                    s.quarantined,
                    s.seconds / 3600,
                    s.seconds / max(s.done, 1),
                    s.slowest_s,
                )
                for s in spent
            ],
            "Nothing was done.",
        ),
        PageTable(
            "Failures by reason",
            ("stage", "error", "work items", "for example"),
            [(r.stage, r.error_class, r.items, r.example) for r in activity.reasons(LISTED)],
        ),
        PageTable("Rejected videos", ("reason", "videos"), taken.rejected.most_common(LISTED)),
        PageTable(
            "Quarantine now",
            ("stage", "work items"),
            [(t, n) for t, n in quarantine.items() if n],
            "Empty.",
        ),
        PageTable(
            "Failing checks",
            ("table", "check", "times", "the last one said"),
            [
                (*key, times, events.sentence.get(key, ""))
                for key, times in events.failing.most_common(LISTED)
            ],
        ),
        PageTable(
            "Drift",
            ("table", "shards judged", "largest, times what is usual"),
            [(t, len(v), max(d for _, d in v)) for t, v in sorted(events.drift.items())],
            "No shard had a baseline to be compared with.",
        ),
        PageTable(
            "Slowest clips",
            ("stage", "work item", "shard", "seconds"),
            [(u.stage, u.item_id, u.shard, u.seconds) for u in activity.slowest(10)],
        ),
    ]
    kind = {1: "Daily", 7: "Weekly"}.get(days, f"{days}-day")
    hours_spent = {s.stage: s.seconds / 3600 for s in spent}
    pictures = _pictures(activity.done_by_hour(), hours_spent, events, end, days)
    return Report(f"{kind} report of {lake.location}", facts, tables, pictures)


@dataclass
class _Taken:
    accepted: int = 0
    hours: float = 0.0
    rejected: Counter[str] = field(default_factory=Counter)


def _taken_in(lake: Lake, activity: Activity) -> _Taken:
    """Of the videos that were looked at: how much is good, and why the rest is not."""
    taken = _Taken()
    for shard in activity.shards("video_manifest"):
        items = activity.items("video_manifest", shard)
        for item, row in lake.rows_of_files(shard).items():
            if item not in items:
                continue  # one of another day in a shard that ran again
            if row["accepted"]:
                taken.accepted += 1
                taken.hours += (row["duration_s"] or 0.0) / 3600
            else:
                taken.rejected[row["reject_reason"] or "unknown"] += 1
    return taken


def _pictures(
    done: dict[str, dict[int, int]],
    hours_spent: dict[str, float],
    events: Events,
    end: float,
    days: int,
) -> dict[str, bytes]:
    hours = np.arange(int((end - days * DAY_S) // 3600), int(end // 3600) + 1)
    before = "hours before the end"
    found: dict[str, bytes] = {}
    if done:
        counts = {t: np.array([done[t].get(int(h), 0) for h in hours]) for t in TABLES if t in done}
        title = "Work items done in an hour"
        found[title] = plots.plot_counts(hours - end / 3600, counts, before, "work items", title)
        title = "Hours of work by stage"
        found[title] = plots.plot_shares(hours_spent, "hours", title)
    if events.drift:
        title = "Drift of each shard from the good ones before it (1: a shift)"
        series = {
            t: (np.array([(w - end) / 3600 for w, _ in v]), np.array([d for _, d in v]))
            for t, v in sorted(events.drift.items())
        }
        found[title] = plots.plot_scatter(series, 1.0, before, "times what is usual", title)
    return found
