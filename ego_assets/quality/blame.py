"""Which clips fail a probe, for stages that are made of good clips only.

Here: the probes of tables, asked as their checks ask them, by default thresholds. Not here: checks
(`ego_assets.graph.probe_checks`).
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import pyarrow as pa

from ego_assets import catalog
from ego_assets.quality.finding import Evidence, Probe

Which = Literal["error", "all", "none"]


def _asked(which: Which, tables: Iterable[str]) -> Iterator[Probe]:
    """Yield the probes of these tables that read nothing but these tables."""
    known = set(tables)
    for table in known - {"video_manifest"} if which != "none" else ():
        for probe in catalog.probes(table):
            if (which == "all" or probe.severity == "error") and set(probe.reads) <= known:
                yield probe


def reads_of_probes(which: Which, tables: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The columns of tables that `failed_clips` reads."""
    reads: dict[str, dict[str, None]] = defaultdict(dict)
    for probe in _asked(which, tables):
        for table, columns in probe.reads.items():
            reads[table] |= dict.fromkeys(columns)
    return {table: tuple(columns) for table, columns in reads.items()}


def signature(which: Which, tables: Iterable[str]) -> str:
    """Short hash of which probes are asked, and of their thresholds."""
    asked = sorted((p.table, p.name) for p in _asked(which, tables))
    thresholds = {t: catalog.feature_of(t).probe_settings().model_dump() for t, _ in asked}
    said = json.dumps([asked, thresholds], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:8] if asked else ""


def failed_clips(which: Which, tables: Mapping[str, pa.Table]) -> dict[str, str]:
    """{clip: the name of the first probe by which it, or a track of it, is beyond a threshold}.

    A clip counts also where its shard passes because few enough are beyond.
    """
    clips = set(tables["clips"]["clip_id"].to_pylist())
    found: dict[str, str] = {}
    for probe in sorted(_asked(which, tables), key=lambda p: (p.table, p.name)):
        settings = catalog.feature_of(probe.table).probe_settings()
        finding = probe(Evidence(probe.table, tables), settings)
        for offender in finding.worst:
            clip = offender.where.partition(" ")[0]
            if clip in clips:
                found.setdefault(clip, probe.name)
    return found
