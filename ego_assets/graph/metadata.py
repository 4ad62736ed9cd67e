"""What a stage did, as a person reads it in the UI: numbers, failures, files, columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import dagster as dg

from ego_assets.catalog import TABLES
from ego_assets.engine.outcome import StageReport
from ego_assets.engine.plan import StageSpec
from resources.lake import Lake

LISTED_FAILURES = 50
LISTED_VIDEOS = 100
READ_SLOWLY = "read slowly"
"""Name of metadata: files whose storage is slow."""


def report_metadata(report: StageReport) -> dict[str, Any]:
    """What a stage did, as a person reads it at the UI."""
    metadata: dict[str, Any] = {
        "units": report.units,
        "done": report.done,
        "already done": report.skipped,
        "retried": report.retried,
        "quarantined": report.quarantined,
        "blocked": report.blocked,
        "raw file gone": report.gone,
        "worker deaths": report.worker_deaths,
        "seconds": round(report.seconds, 2),
        "units per minute": round(report.units_per_minute, 1),
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
        metadata["moved files"] = files_table(report.moved_files, "was at", "is at")
    if report.gone_files:
        metadata["files that are gone"] = files_table(report.gone_files, "file", "why")
    if report.failures:
        records = [
            dg.TableRecord({"unit": f.unit_id, "state": f.state, "reason": f.reason[:300]})
            for f in report.failures[:LISTED_FAILURES]
        ]
        metadata["failed units"] = dg.MetadataValue.table(records)
    return metadata


def files_table(files: Mapping[str, str], name: str, value: str) -> dg.TableMetadataValue:
    rows = [dg.TableRecord({name: n, value: v}) for n, v in [*files.items()][:LISTED_VIDEOS]]
    schema = dg.TableSchema([dg.TableColumn(name, "string"), dg.TableColumn(value, "string")])
    return dg.MetadataValue.table(rows, schema=schema)


def degraded_metadata(report: StageReport, spec: StageSpec, real: StageSpec) -> dict[str, Any]:
    """What a person must know of a stage that went on without a GPU."""
    return {
        "degraded": f"made by {spec.backend} in place of {real.backend}: {spec.provisional}",
        "waiting for a GPU": report.waiting,
        "what brings the real result": f"{report.waiting} units of shard {spec.shard} are pending "
        "in the ledger: materialize this partition again when a GPU is free (`ego status` lists "
        "them; nightly_retry_schedule and `ego retry` do it, too)",
    }


def raw_videos_table(lake: Lake, shard: str) -> dg.TableMetadataValue:
    """Where the videos of a shard lie, and why some were rejected; those come first."""
    columns = ["uri", "video_id", "duration_s", "accepted", "reject_reason", "reject_detail"]
    rows = lake.read("video_manifest", shard, columns=columns).to_pylist()
    names = ("file", "video", "seconds", "rejected")
    records = [
        dg.TableRecord(
            {
                "file": r["uri"],
                "video": r["video_id"] or "",
                "seconds": "" if r["duration_s"] is None else f"{r['duration_s']:.1f}",
                "rejected": ""
                if r["accepted"]
                else f"{r['reject_reason']}: {r['reject_detail'] or ''}"[:300],
            }
        )
        for r in sorted(rows, key=lambda r: (r["accepted"], r["uri"]))
    ]
    schema = dg.TableSchema([dg.TableColumn(name, "string") for name in names])
    return dg.MetadataValue.table(records[:LISTED_VIDEOS], schema=schema)


def clips_table(lake: Lake, shard: str) -> dg.TableMetadataValue:
    """The clips of a shard: of which file, from when to when, and why they begin there."""
    columns = ["video_id", "uri", "accepted"]
    rows = lake.read("video_manifest", shard, columns=columns).to_pylist()
    files = {row["video_id"]: row["uri"] for row in rows if row["accepted"]}
    clips = lake.read("clips", shard).sort_by("clip_id").to_pylist()
    names = ("clip", "file", "from", "to", "begins with")
    records = [
        dg.TableRecord(
            {
                "clip": clip["clip_id"],
                "file": files.get(clip["video_id"], ""),
                "from": f"{clip['start_pts_s']:.1f} s",
                "to": f"{clip['end_pts_s']:.1f} s",
                "begins with": clip["split_reason"],
            }
        )
        for clip in clips[:LISTED_VIDEOS]
    ]
    schema = dg.TableSchema([dg.TableColumn(name, "string") for name in names])
    return dg.MetadataValue.table(records, schema=schema)


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
