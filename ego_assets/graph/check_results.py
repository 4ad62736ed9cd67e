"""A finding as a check result that a person can act on: which file, at what time, in which shard.

A check has one state for all shards, that of its last result. So a result also says where the check
failed before, and passes only where no shard is left in which it fails.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg

from ego_assets.graph.metadata import look_up, text_table
from ego_assets.quality.finding import Finding, Offender, merge
from ego_assets.vision import plots
from resources.lake import Lake
from resources.raw.places import accepted_uris

FAILS_HERE = "fails in these shards"
"""Metadata: whether the shards of this run are among those in which the check fails."""
LISTED = 50
_CLIP = re.compile(r"^[0-9a-f]{16}-\d{4}\b")


@dataclass(frozen=True)
class Places:
    """Where the clips of some shards come from. Nothing is read before it is asked for."""

    lake: Lake
    shards: Sequence[str]

    @cached_property
    def _clips(self) -> dict[str, dict[str, Any]]:
        clips: dict[str, dict[str, Any]] = {}
        for shard in self.shards:
            files = accepted_uris(self.lake, shard)
            columns = ["video_id", "clip_id", "start_frame", "end_frame", "start_pts_s"]
            for clip in self.lake.read("clips", shard, columns=[*columns, "end_pts_s"]).to_pylist():
                clips[clip["clip_id"]] = clip | {"uri": files.get(clip["video_id"], "")}
        return clips

    def of(self, offender: Offender) -> tuple[str, str]:
        """(file, about which time in it), as a person looks for it; empty where there is none."""
        found = _CLIP.match(offender.where)
        clip = self._clips.get(found.group()) if found else None
        if clip is None:
            return "", ""
        frames = max(clip["end_frame"] - clip["start_frame"], 1)
        done = 0 if offender.frame is None else offender.frame - clip["start_frame"]
        length = clip["end_pts_s"] - clip["start_pts_s"]
        seconds = clip["start_pts_s"] + length * done / frames
        return Path(clip["uri"]).name, f"{int(seconds // 60)}:{seconds % 60:04.1f}"


def check_result(
    table: str,
    findings: Mapping[str, Finding],
    severity: dg.AssetCheckSeverity,
    elsewhere: Mapping[str, str],
    places: Places,
) -> dg.AssetCheckResult:
    """The result of a check over shards. findings: {shard: what it found there}; elsewhere:
    {other shard: why the check failed there}."""
    finding = merge(list(findings.values()))
    shards = [shard for shard in findings if shard]
    metadata: dict[str, Any] = {
        "shards": named(shards),
        FAILS_HERE: not finding.passed,
        "looked at": finding.looked_at,
        "beyond the threshold": finding.beyond,
        "threshold": float(finding.threshold),
        "unit": finding.unit,
        **{name: readable(value) for name, value in finding.numbers.items()},
    }
    if finding.value is not None:
        metadata["worst value"] = readable(finding.value)
    if finding.worst:
        metadata["worst"] = _worst(finding, places)
    failing = {shard: found.sentence for shard, found in findings.items() if not found.passed}
    failing |= elsewhere
    if failing:
        metadata["failing shards"] = text_table(
            ("shard", "why"), [(s, w[:300]) for s, w in sorted(failing.items())[:LISTED]]
        )
        metadata["what to do"] = (
            f"docs/probes.md says what `{finding.name}` catches and why it has this threshold. "
            "Look at the frames of `worst`; `ego trace CLIP` tells what made them"
        )
        metadata |= look_up("probes", finding.name)
    if not finding.passed and len(finding.values) > 1:
        picture = plots.plot_distribution(
            finding.values, finding.threshold, finding.unit, f"{table}: {finding.name}"
        )
        metadata["distribution of the values"] = dg.MetadataValue.md(
            f"![{finding.name}]({plots.data_uri(picture)})"
        )
    return dg.AssetCheckResult(
        asset_key=table,
        check_name=finding.name,
        passed=finding.passed and not elsewhere,
        severity=severity,
        description=_description(finding, elsewhere),
        metadata=metadata,
    )


def _description(finding: Finding, elsewhere: Mapping[str, str]) -> str:
    if not elsewhere:
        return finding.sentence
    return f"{finding.sentence}; still fails in {named(list(elsewhere))}"


def _worst(finding: Finding, places: Places) -> dg.TableMetadataValue:
    rows = [
        (*places.of(o), o.where, "" if o.frame is None else str(o.frame), f"{o.value:.4g}")
        for o in finding.worst
    ]
    return text_table(("file", "time", "where", "frame", "value"), rows)


def readable(value: float) -> float:
    """To four significant digits: as much as a person compares with a threshold."""
    return float(f"{value:.4g}")


def named(shards: list[str]) -> str:
    """The shards that a check looked at, as a person reads them."""
    shown = sorted(shards)
    return ", ".join(shown) if len(shown) <= 3 else f"{len(shown)}: {shown[0]} … {shown[-1]}"
