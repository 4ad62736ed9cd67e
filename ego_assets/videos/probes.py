"""Videos: are the recordings whole, and can all of their pictures be trusted?

Here: probes of `video_manifest` and `clips`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ego_assets.quality.finding import Evidence, Finding, Offender, probe
from ego_assets.quality.settings import ProbeSettings
from ego_assets.videos.recordings.names import ChapterName, chapter_of
from resources.raw.uris import path_of

_NAMED = 3
"""Files that the sentence of a check names; the others are in its list."""
Fault = tuple[Offender, str]
"""The place, with its seconds, and what is wrong there."""


@probe(
    "video_manifest",
    reads=(
        "video_id",
        "uri",
        "accepted",
        "frame_count",
        "promised_frame_count",
        "missing_s",
        "duration_s",
    ),
)
def recordings_are_not_cut_off(evidence: Evidence, settings: ProbeSettings) -> Finding:
    """No file ends before it should by what its own headers say."""
    rows = [r for r in evidence.rows.to_pylist() if r["accepted"]]
    faults = [_cut_off(row) for row in rows if row["missing_s"] is not None]
    return _finding(faults, len(rows), "seconds missing", "no recording is cut off")


def _cut_off(row: dict[str, Any]) -> Fault:
    name, there, promised = _name(row["uri"]), row["frame_count"], row["promised_frame_count"]
    words = f"{name} ends after {row['duration_s']:.2f} s, {row['missing_s']:.2f} s too early"
    if promised is not None:
        words += f" ({there} of {promised} frames)"
    return Offender(name, there - 1, row["missing_s"], row["video_id"]), words


@probe(
    "video_manifest",
    reads=("video_id", "uri", "accepted", "damaged_frames", "average_rate_fps"),
)
def videos_are_not_damaged(evidence: Evidence, settings: ProbeSettings) -> Finding:
    """No packet of a video is damaged, or lost among others."""
    rows = [r for r in evidence.rows.to_pylist() if r["accepted"]]
    faults = [f for r in rows for f in _damage(r, _name(r["uri"]), r["average_rate_fps"])]
    return _finding(faults, len(rows), "seconds of damage", "no damage in the files")


@probe(
    "video_manifest",
    reads=("video_id", "uri", "accepted", "recording_id", "chapter_index", "recording_start_s"),
)
def chapters_follow_each_other(evidence: Evidence, settings: ProbeSettings) -> Finding:
    """The files that a camera made of one recording are there from the first on, and each goes on
    where the one before it ends."""
    named = [(r, chapter_of(r["uri"])) for r in evidence.rows.to_pylist() if r["accepted"]]
    chapters = [(row, name) for row, name in named if name is not None and name.index]
    faults = [_misplaced(row, name) for row, name in chapters if row["recording_start_s"] is None]
    return _finding(faults, len(chapters), "chapters", "every chapter follows the one before it")


def _misplaced(row: dict[str, Any], chapter: ChapterName) -> Fault:
    name, number = _name(row["uri"]), chapter.index + 1
    why = f"chapter {number} of a recording, and a file before it cannot be read in its folder"
    if row["recording_id"] is None:
        why = f"named like chapter {number}, but by format, camera or clock no continuation"
    return Offender(name, None, 1.0, row["video_id"]), f"{name} is {why}"


@probe(
    "clips",
    reads=("clip_id", "start_frame", "end_frame", "start_pts_s", "end_pts_s", "damaged_frames"),
)
def clips_are_not_damaged(evidence: Evidence, settings: ProbeSettings) -> Finding:
    """Every picture of a clip decodes, from references that are whole."""
    faults = []
    for row in evidence.rows.to_pylist():
        length_s = max(row["end_pts_s"] - row["start_pts_s"], 1e-3)
        rate = (row["end_frame"] - row["start_frame"]) / length_s
        offset = row["start_frame"] - row["start_pts_s"] * rate
        faults += _damage(row, row["clip_id"], rate, offset)
    count = evidence.rows.num_rows
    return _finding(faults, count, "seconds of damage", "all pictures can be trusted")


def _damage(row: dict[str, Any], name: str, rate: float, offset: float = 0.0) -> list[Fault]:
    """offset: what the number of a frame is more than its time at this rate has it."""
    return [
        (
            Offender(name, start, (end - start) / rate, row.get("video_id", "")),
            f"{name} from {(start - offset) / rate:.2f} to {(end - offset) / rate:.2f} s (frames "
            f"{start} to {end - 1}: damaged packets, or pictures that refer to such; no table has "
            "a row of them)",
        )
        for start, end in row["damaged_frames"] or ()
    ]


def _finding(faults: list[Fault], looked_at: int, unit: str, good: str) -> Finding:
    faults = sorted(faults, key=lambda fault: -fault[0].value)
    words = "; ".join(sentence for _, sentence in faults[:_NAMED])
    if len(faults) > _NAMED:
        words += f"; and {len(faults) - _NAMED} more"
    return Finding(
        name="",
        passed=not faults,
        value=faults[0][0].value if faults else (0.0 if looked_at else None),
        threshold=0.0,
        unit=unit,
        sentence=words or (good if looked_at else "not judged: nothing to look at"),
        looked_at=looked_at,
        beyond=len(faults),
        worst=tuple(offender for offender, _ in faults[:20]),
    )


def _name(uri: str) -> str:
    return Path(path_of(uri)).name if "://" not in uri else uri.rpartition("/")[2]


PROBES = (
    *recordings_are_not_cut_off,
    *videos_are_not_damaged,
    *chapters_follow_each_other,
    *clips_are_not_damaged,
)
