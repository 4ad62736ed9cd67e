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
from resources.raw.places import files_of

FAILS_HERE = "fails in these shards"
"""Metadata: whether the shards of this run are among those in which the check fails."""
LISTED = 50
_PLACE = re.compile(r"^(?P<video>[0-9a-f]{16})(?:-\d{4}\b|-t\d{3}-e(?P<frame>\d{6})\b)?")


@dataclass(frozen=True)
class Places:
    """Where clips, videos and raw files of shards are. Nothing is read before it is asked for."""

    lake: Lake
    shards: Sequence[str]

    @cached_property
    def _known(self) -> dict[str, dict[str, Any]]:
        """By id: from which frame and second to which, and in which file."""
        found: dict[str, dict[str, Any]] = {}
        for shard in self.shards:
            try:
                found |= self._known_of(shard)
            except Exception:  # a table that cannot be read: its own checks say so
                continue
        return found

    def _known_of(self, shard: str) -> dict[str, dict[str, Any]]:
        nothing: dict[str, Any] = dict.fromkeys(("start_frame", "end_frame"), 0)
        nothing |= dict.fromkeys(("start_pts_s", "end_pts_s"), 0.0)
        found = {file.item: nothing | {"uri": file.uri} for file in files_of(self.lake, shard)}
        columns = ["video_id", "uri", "accepted", "frame_count", "duration_s"]
        videos = self.lake.read("video_manifest", shard, columns=columns).to_pylist()
        # A duplicate has the name of the one that is accepted.
        for video in sorted(videos, key=lambda v: v["accepted"]):
            ends = {"end_frame": video["frame_count"] or 0, "end_pts_s": video["duration_s"] or 0.0}
            found[video["video_id"]] = nothing | ends | {"uri": video["uri"]}
        columns = ["video_id", "clip_id", "start_frame", "end_frame", "start_pts_s", "end_pts_s"]
        for clip in self.lake.read("clips", shard, columns=columns).to_pylist():
            found[clip["clip_id"]] = clip | {"uri": found.get(clip["video_id"], {}).get("uri", "")}
        return found

    def of(self, offender: Offender) -> tuple[str, str]:
        """(file, about which time in it), as a person looks for it; empty where there is none."""
        name, frame = offender.at or offender.where, offender.frame
        place = self._known.get(name)
        if place is None and (found := _PLACE.match(name)) is not None:
            place = self._known.get(found.group()) or self._known.get(found["video"])
            if frame is None and found["frame"]:
                frame = int(found["frame"])
        if place is None:
            return "", ""
        done = 0 if frame is None else frame - place["start_frame"]
        length = place["end_pts_s"] - place["start_pts_s"]
        seconds = place["start_pts_s"] + length * done / max(
            place["end_frame"] - place["start_frame"], 1
        )
        minutes, seconds = divmod(round(seconds, 1), 60)
        return Path(place["uri"]).name, f"{int(minutes)}:{seconds:04.1f}"

    def told(self, finding: Finding) -> str:
        """What a check found, and of one that fails where it is worst: the file and the time."""
        if finding.passed or not finding.worst:
            return finding.sentence
        file, time = self.of(finding.worst[0])
        if not file or file in finding.sentence:
            return finding.sentence
        return f'{finding.sentence}; look at "{file}" at {time}'  # in quotes: `ego forget`


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
    failing = {shard: places.told(found) for shard, found in findings.items() if not found.passed}
    failing |= elsewhere
    if failing:
        metadata["failing shards"] = text_table(("shard", "why"), sorted(failing.items())[:LISTED])
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
        description=_description(places.told(finding), elsewhere),
        metadata=metadata,
    )


def _description(said: str, elsewhere: Mapping[str, str]) -> str:
    return f"{said}; still fails in {named(list(elsewhere))}" if elsewhere else said


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
