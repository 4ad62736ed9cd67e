"""What a stage did, as a person reads it in the UI: numbers, failures, files, columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import dagster as dg

from ego_assets.catalog import TABLES
from ego_assets.engine.outcome import StageReport
from ego_assets.engine.plan import StageSpec
from ego_assets.environment import serves_pictures
from resources.lake import Lake
from resources.raw.places import accepted_uris

LISTED_FAILURES = 50
LISTED_VIDEOS = 100
GUIDE_URL = "/guide"
"""Of the pages of `docs/`, on the web server of `ego up`."""
READ_SLOWLY = "read slowly"
"""Name of metadata: files whose storage is slow."""


def report_metadata(report: StageReport) -> dict[str, Any]:
    """What a stage did, as a person reads it at the UI."""
    metadata: dict[str, Any] = {
        "units": report.items,
        "done": report.done,
        "already done": report.skipped,
        "retried": report.retried,
        "quarantined": report.quarantined,
        "blocked": report.blocked,
        "raw file gone": report.gone,
        "worker deaths": report.worker_deaths,
        "seconds": round(report.seconds, 2),
        "units per minute": round(report.items_per_minute, 1),
        "video seconds per second": round(report.video_s_per_s, 2),
        "peak memory of a worker, MiB": round(report.peak_rss_bytes / 2**20),
    }
    if report.taken_over:
        metadata["taken over from the lake"] = report.taken_over
    for what in ("decoded by", "mapped on"):
        if found := Counter(n[what] for n in report.notes.values() if what in n):
            metadata[what] = "; ".join(f"{name} ({n} clips)" for name, n in found.items())
    if report.slow:
        metadata[READ_SLOWLY] = "\n".join(list(report.slow.values())[:LISTED_FAILURES])
    if report.moved_files:
        metadata["moved files"] = text_table(
            ("was at", "is at"), list(report.moved_files.items())[:LISTED_VIDEOS]
        )
    if report.gone_files:
        metadata["files that are gone"] = text_table(
            ("file", "why"), list(report.gone_files.items())[:LISTED_VIDEOS]
        )
    if report.failures:
        records = [
            dg.TableRecord({"unit": f.item_id, "state": f.state, "reason": f.reason[:300]})
            for f in report.failures[:LISTED_FAILURES]
        ]
        metadata["failed units"] = dg.MetadataValue.table(records)
    return metadata


def look_up(page: str, name: str) -> dict[str, Any]:
    """A link to what a page of the guide says of a check, where the web server has it."""
    if not serves_pictures():  # and then no guide either
        return {}
    return {"look it up": dg.MetadataValue.url(f"{GUIDE_URL}/{page}#{name}")}


def text_table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> dg.TableMetadataValue:
    """A table of text, with these columns."""
    records = [dg.TableRecord(dict(zip(names, row, strict=True))) for row in rows]
    schema = dg.TableSchema([dg.TableColumn(name, "string") for name in names])
    return dg.MetadataValue.table(records, schema=schema)


def degraded_metadata(report: StageReport, spec: StageSpec, real: StageSpec) -> dict[str, Any]:
    """What a person must know of a stage that went on without a GPU."""
    return {
        "degraded": f"made by {spec.backend} in place of {real.backend}: {spec.provisional}",
        "waiting for a GPU": report.waiting,
        "what brings the real result": f"{report.waiting} work items of shard {spec.shard} are "
        "pending in the ledger: materialize this partition again when a GPU is free (`ego status` "
        "lists them; nightly_retry_schedule and `ego retry` do it, too)",
    }


def raw_videos_table(lake: Lake, shard: str) -> dg.TableMetadataValue:
    """Where the videos of a shard lie, and why some were rejected; those come first."""
    columns = ["uri", "video_id", "duration_s", "accepted", "reject_reason", "reject_detail"]
    rows = lake.read("video_manifest", shard, columns=columns).to_pylist()
    shown = [
        (
            r["uri"],
            r["video_id"] or "",
            "" if r["duration_s"] is None else f"{r['duration_s']:.1f}",
            "" if r["accepted"] else f"{r['reject_reason']}: {r['reject_detail'] or ''}"[:300],
        )
        for r in sorted(rows, key=lambda r: (r["accepted"], r["uri"]))
    ]
    return text_table(("file", "video", "seconds", "rejected"), shown[:LISTED_VIDEOS])


def clips_table(lake: Lake, shard: str) -> dg.TableMetadataValue:
    """The clips of a shard: of which file, from when to when, and why they begin there."""
    files = accepted_uris(lake, shard)
    clips = lake.read("clips", shard).sort_by("clip_id").to_pylist()
    shown = [
        (
            clip["clip_id"],
            files.get(clip["video_id"], ""),
            f"{clip['start_pts_s']:.1f} s",
            f"{clip['end_pts_s']:.1f} s",
            clip["split_reason"],
        )
        for clip in clips[:LISTED_VIDEOS]
    ]
    return text_table(("clip", "file", "from", "to", "begins with"), shown)


def table_schema(table: str) -> dg.TableSchema:
    """The table's columns for the UI, from the contract."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=c.name,
                type=str(c.type),
                description=f"{c.description} [{c.unit}]" if c.unit else c.description,
                constraints=dg.TableColumnConstraints(nullable=c.nullable),
            )
            for c in TABLES[table].columns()
        ]
    )
