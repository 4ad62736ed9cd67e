"""A report says what the ledger, the lake and the events hold, of its span and no other."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime

from ego_assets.engine.runner import run_stage
from ego_assets.upkeep.reports.gather import DAY_S, THROUGHPUT, Events, gather, write_report
from resources.lake import file_item_id
from resources.ledger.activity import Activity
from resources.ledger.tables import work
from tests.engine.stage_bench import SHARD, Bench, spec_for

SHORT = "short00000000000-0000"
LONG = "long000000000000-0000"


def rows(report: object, title: str) -> list[tuple[object, ...]]:
    (table,) = [t for t in report.tables if t.title == title]  # type: ignore[attr-defined]
    return [tuple(r) for r in table.rows]


def test_a_report_of_a_day(bench: Bench) -> None:
    bench.behave(SHORT, bad=True)
    run_stage(replace(bench.spec, max_attempts=1), isolate=False)
    events = Events()
    events.runs.update(["success", "success", "failure"])
    events.failing["clips", "covers_every_clip"] += 2
    events.sentence["clips", "covers_every_clip"] = "s1: <b>1 of 2 done"
    events.drift["clips"] = [(time.time() - 60, 0.5), (time.time() - 10, 2.5)]
    now = datetime.now(UTC)
    found = gather(bench.lake, bench.ledger, events, now, 1)
    ((stage, done, failed, quarantined, *_),) = rows(found, THROUGHPUT)
    assert (stage, done, failed, quarantined) == ("object_movements", 3, 0, 1)
    ((_, error, items, example),) = rows(found, "Failures by reason")
    assert (error, items) == ("ContractError", 1)
    assert "touch_share" in str(example)
    assert rows(found, "Quarantine now") == [("object_movements", 1)]
    assert rows(found, "Drift") == [("clips", 2, 2.5)]
    assert rows(found, "Failing checks")[0][2:] == (2, "s1: <b>1 of 2 done")
    assert {r[1] for r in rows(found, "Slowest clips")} >= {LONG}
    assert found.facts["runs"] == "1 failure, 2 success"
    assert all(p.startswith(b"\x89PNG") for p in found.pictures.values())
    assert len(found.pictures) == 3
    written = write_report(bench.lake, bench.ledger, events, now, 1)
    page = bench.lake.storage.read(written.html_key).decode()
    assert "ContractError" in page
    assert "<b>1 of 2" not in page
    assert len(page) < 300_000


def test_another_day_is_not_in_it(bench: Bench) -> None:
    run_stage(bench.spec, isolate=False)
    later = datetime.fromtimestamp(time.time() + 2 * DAY_S, UTC)
    found = gather(bench.lake, bench.ledger, Events(), later, 1)
    assert rows(found, THROUGHPUT) == []
    assert found.pictures == {}
    assert found.facts["videos taken in"] == "0 (0.0 hours)"
    hours = Activity(bench.ledger, 0.0, later.timestamp()).done_by_hour()["object_movements"]
    assert sum(hours.values()) == 4
    assert set(hours) <= {int(time.time() // 3600), int(time.time() // 3600) - 1}


def test_a_video_of_another_day_is_not_taken_in_again(bench: Bench) -> None:
    """One of two videos of a shard is looked at again a day later."""
    spec = spec_for("video_manifest", bench.lake, bench.ledger, bench.spec.shard)
    run_stage(spec, isolate=False)
    uris = [f["uri"] for f in bench.lake.read_shard(SHARD)["files"]]
    now = time.time()
    with bench.ledger.transaction() as connection:
        before = work.c.item_id == file_item_id(uris[0])
        connection.execute(work.update().where(before).values(finished_at=now - DAY_S))
    until = datetime.fromtimestamp(now + 60, UTC)
    rejected, seen = [], []
    for days in (1, 2):
        found = gather(bench.lake, bench.ledger, Events(), until, days)
        rejected.append(sum(int(str(n)) for _, n in rows(found, "Rejected videos")))
        seen.append(rejected[-1] + int(found.facts["videos taken in"].split()[0]))
    assert seen == [1, 2]
