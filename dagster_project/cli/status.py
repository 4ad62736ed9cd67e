"""What `ego status` says of a lake: as one object for scripts, and in words."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from dagster_project.cli.terminal import check_line, count_of, hanging, plain, waiting
from ego_assets.catalog import TABLES
from ego_assets.galleries.files import GalleryFiles, url_of
from ego_assets.quality.failed import failed_checks
from ego_assets.upkeep.overview import (
    Footage,
    files_of_entries,
    progress,
    waiting_files,
)
from ego_assets.upkeep.profiles import Profiles
from ego_assets.upkeep.recovery.differences import Differences
from resources.lake import Lake
from resources.ledger import Ledger, State
from resources.ledger.adoption import Counts

TABLE_WIDTH = 78
"""Columns that the table of units by state needs."""
NAMED = 10
"""Files that wait and checks that failed, on a terminal; --json has more. Galleries of so many of
the newest shards are looked for."""


def describe(
    lake: Lake,
    ledger: Ledger,
    shown: int,
    differences: Differences,
    counts: Counts,
    footage: Footage,
    profiles: Profiles,
) -> dict[str, Any]:
    """Return all that is known, of failures, files and profiles no more than `shown`."""
    bad = ledger.entries(states=[State.QUARANTINED, State.FAILED], limit=shown)
    tables = progress(lake, footage, counts)
    shards = lake.shards()
    open_files = waiting_files(ledger, footage, counts)
    checks = failed_checks(lake, TABLES)
    begun = {shard for _, shard in counts}
    newest = [shard for shard in reversed(shards) if shard in begun][:NAMED]
    galleries = GalleryFiles(lake)
    made = {shard: galleries.page(shard) for shard in newest if galleries.has_page(shard)}
    return {
        "lake": lake.location,
        "shards": shards,
        "shards_not_begun": [s for s in shards if s not in begun],
        "files": sum(map(len, footage.files.values())),
        "footage_s": round(footage.seconds, 2),
        "shards_not_read": footage.not_read,
        "stages": {t: {s.value: p.states.get(s, 0) for s in State} for t, p in tables.items()},
        "percent": {t: p.percent for t, p in tables.items()},
        "failures": [
            {
                "stage": e.stage,
                "shard": e.shard,
                "unit": e.item_id,
                "file": file,
                "state": e.state.value,
                "attempts": e.attempts,
                "reason": (e.error or "").split("\n", 1)[0],
            }
            for e, file in zip(bad, files_of_entries(ledger, footage, bad), strict=True)
        ],
        "galleries": {"looked_at": newest, "made": made},
        "checks": {"failed": len(checks), "first": checks[:shown]},
        "profiles": profiles.rows[:shown],
        "profiles_counted": _counted(profiles)[:shown],
        "profiles_not_read": profiles.not_read,
        "waiting": {"files": len(open_files), "first": open_files[:shown]},
        "waiting_for_gpu": [
            {"stage": stage, "shard": shard, "units": units, "reason": why}
            for stage, shard, units, why in ledger.waiting_for_gpu()
        ],
        "differences": {
            "tables_of_shards": len(differences.found),
            "not_compared": differences.not_compared,
            "first": [asdict(d) for d in differences.found[:shown]],
        },
    }


def show(found: dict[str, Any], differences: Differences, console: Console) -> None:
    """Print it. Names of files are not cut: they are there to be copied. Lines are broken between
    words on a terminal, and not at all for another program."""
    for part in overview(found, differences, console.width).renderables:
        if isinstance(part, Text) and console.is_terminal:
            part = Text(hanging(part, 2, console.width))
        console.print(part, soft_wrap=isinstance(part, Text))


def overview(found: dict[str, Any], differences: Differences, width: int) -> Group:
    """Return what `show` prints, for a terminal that is drawn again and again."""
    counts = [_table(found)] if width >= TABLE_WIDTH else _counts(found)
    return Group(_title(found), *counts, *_lines(found, differences))


def _title(found: dict[str, Any]) -> Text:
    return plain(
        f"{found['lake']}: {count_of(len(found['shards']), 'shard')}, "
        f"{count_of(found['files'], 'file')}, {_length(found['footage_s'])} of footage"
    )


def _counts(found: dict[str, Any]) -> list[Text]:
    """Return what `_table` tells, as lines for a terminal that is too narrow for it."""
    lines = []
    for name, row in found["stages"].items():
        units = ", ".join(f"{row[s.value]:,} {s.value}" for s in State if row[s.value])
        percent = f"{found['percent'][name]:.1f}".removesuffix(".0")
        lines.append(plain(f"{name}: {percent} % done ({units or 'no units yet'})"))
    return lines


def _table(found: dict[str, Any]) -> Table:
    """Return every table of the lake with its units by state; eighty columns hold it."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0))
    table.add_column("table", no_wrap=True)
    for state in State:
        table.add_column(state.value, justify="right")
    table.add_column("done %", justify="right", no_wrap=True)
    for name, row in found["stages"].items():
        percent = found["percent"][name]
        table.add_row(
            name, *[f"{row[s.value]:,}" for s in State], f"{percent:.1f}".removesuffix(".0")
        )
    return table


def _length(seconds: float) -> str:
    """A length of time that a person can imagine."""
    if seconds < 60:
        return count_of(round(seconds), "second")
    if seconds < 3600:
        return f"{seconds / 60:.1f} minutes"
    return f"{seconds / 3600:,.1f} hours"


def _counted(profiles: Profiles) -> list[dict[str, Any]]:
    """Return of each profile for how many shards it is, the most frequent first."""
    counts = Counter(
        (p["name"], p["stage"], json.dumps(p["settings"], sort_keys=True)) for p in profiles.rows
    )
    return [
        {"name": name, "stage": stage, "settings": json.loads(settings), "shards": shards}
        for (name, stage, settings), shards in counts.most_common()
    ]


def _galleries(looked_at: list[str], made: dict[str, str]) -> list[Text]:
    """Say of how many shards there is a gallery, and where the newest one is."""
    if not looked_at:
        return []
    words = f"galleries: {len(made)} of {count_of(len(looked_at), 'shard')}"
    if len(looked_at) == NAMED:
        words = f"galleries: {len(made)} of the newest {count_of(NAMED, 'shard')}"
    if not made:
        return [plain(f"{words}: they are made by materializing `galleries`")]
    shard, page = next(iter(made.items()))
    return [plain(f"{words}; {url_of(shard)} of `ego up`, or {page}")]


def _lines(found: dict[str, Any], differences: Differences) -> list[Text]:
    lines = [
        plain(
            f"{f['state']} {f['stage']} {f['unit']}"
            + (f" of {f['file']}" if f["file"] else "")
            + f": {f['reason']}"
        )
        for f in found["failures"]
    ]
    bad = sum(row["failed"] + row["quarantined"] for row in found["stages"].values())
    if bad > len(lines):
        lines.append(Text(f"… {bad - len(lines):,} more: `ego quarantine ls` lists them"))
    lines += [
        plain(
            f"{w['stage']} of {w['shard']}: {waiting(w['units'], 'unit')} for a GPU: {w['reason']}"
        )
        for w in found["waiting_for_gpu"]
    ]
    lines += [check_line(check) for check in found["checks"]["first"][:NAMED]]
    if (more := found["checks"]["failed"] - NAMED) > 0:
        lines.append(Text(f"… {count_of(more, 'more failed check')}"))
    lines += [
        plain(
            f"profile {p['name']} of {p['stage']}: {json.dumps(p['settings'], sort_keys=True)} for "
            + count_of(p["shards"], "shard")
        )
        for p in found["profiles_counted"][:NAMED]
    ]
    if skipped := found["profiles_not_read"]:
        lines.append(Text(f"not read for lack of time: {count_of(skipped, 'profile')} of shards"))
    lines += _galleries(**found["galleries"])
    lines += [plain(f"waits: {file}") for file in found["waiting"]["first"][:NAMED]]
    if (more := found["waiting"]["files"] - NAMED) > 0:
        lines.append(Text(f"… {waiting(more, 'more file')}"))
    if absent := len(found["shards_not_begun"]):
        lines.append(Text(f"not begun: {absent:,} of {count_of(len(found['shards']), 'shard')}"))
    if skipped := found["shards_not_read"]:
        lines.append(
            Text(f"not counted for lack of time: the files of {count_of(skipped, 'shard')}")
        )
    if words := str(differences):
        lines.append(plain(words))
    return lines
