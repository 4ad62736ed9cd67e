"""What is said about clips in a recording: which rows are not valid and why, which checks failed,
what is moved when."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow.compute as pc

from ego_assets import catalog
from ego_assets.quality.finding import Evidence
from ego_assets.viewing.footage import ClipRows, ShownClips
from ego_assets.viewing.states import ABSENT, INVALID, STATE_COLORS, VALID, judged, why_not
from ego_assets.viewing.tape import Tape, entity
from ego_assets.vision import draw

_LEVELS = {"error": "ERROR", "warn": "WARN"}


class Note(NamedTuple):
    """A line of the log at a frame."""

    frame: int
    level: str
    text: str


def about(footage: ShownClips) -> str:
    """What the recording shows, in Markdown."""
    first, last = footage.clips[0], footage.clips[-1]
    lines = [
        f"# {footage.name}",
        f"`{footage.file}`, video `{footage.video['video_id']}`, frames {first['start_frame']} to "
        f"{last['end_frame'] - 1}; clips: {', '.join(clip['clip_id'] for clip in footage.clips)}",
        "",
        f"Pictures of {footage.size[0]} x {footage.size[1]} pixels; the video has "
        f"{footage.video['width_px']} x {footage.video['height_px']}.",
        "",
        "- blue: left hand, orange: right hand (as the wearer sees them)",
        "- hands, robot hands and cameras that are not valid are not drawn",
        "- robot hands are drawn beside the human ones, their fingers in colours of their own",
        "- lines in 3D: the paths of the camera (white) and of objects (in their colours)",
        "- metres, camera frame x right, y down, z forward",
    ]
    return "\n".join(lines)


def show(tape: Tape, footage: ShownClips, clip: ClipRows) -> None:
    """The log and the lanes of a clip."""
    import rerun as rr

    for name, rows in judged(clip):
        states: dict[int, str] = {}
        before = ""
        for frame in map(int, clip.frames):
            row = rows.get(frame)
            state = ABSENT if row is None else VALID if row["is_valid"] else INVALID
            if state != before:
                states[frame] = state
            before = state
        values = list(STATE_COLORS)
        look = rr.StateConfiguration(values=values, colors=[STATE_COLORS[v] for v in values])
        tape.static(entity("/valid", name), look)
        column = rr.StateChange.columns(state=list(states.values()))
        tape.at(entity("/valid", name), clip, list(states), column)
    _log(tape, clip, "/notes/rows", [n for name, rows in judged(clip) for n in _runs(name, rows)])
    _log(tape, clip, "/notes/space", list(_scale(clip)))
    _log(tape, clip, "/notes/movements", list(_movements(clip)))
    _log(tape, clip, "/notes/checks", list(_checks(footage, clip)))


def _log(tape: Tape, clip: ClipRows, path: str, notes: list[Note]) -> None:
    import rerun as rr

    notes.sort()
    columns = rr.TextLog.columns(text=[n.text for n in notes], level=[n.level for n in notes])
    if notes:
        tape.at(path, clip, [note.frame for note in notes], columns)


def _runs(name: str, rows: dict[int, dict[str, Any]]) -> Iterator[Note]:
    """A note for each stretch of frames whose rows are not valid for one reason."""
    start: int | None = None
    frames = sorted(rows)
    for at, frame in enumerate(frames):
        why = why_not(rows[frame])
        if why is None:
            start = None
            continue
        start = frame if start is None else start
        after = frames[at + 1] if at + 1 < len(frames) else None
        if after != frame + 1 or why_not(rows[after]) != why:
            stretch = f"frame {frame}" if frame == start else f"frames {start} to {frame}"
            yield Note(start, "WARN", f"{name}: not valid: {why} ({stretch})")
            start = None


def _scale(clip: ClipRows) -> Iterator[Note]:
    """A note where what is in space is not to one scale."""
    if any(row["scale_kind"] == "arbitrary" for row in clip.tables["scene_reconstruction"]):
        words = "the scale of the world is arbitrary: hands are in metres, points and paths are not"
        yield Note(int(clip.frames[0]), "INFO", words)


def _movements(clip: ClipRows) -> Iterator[Note]:
    for row in clip.tables["object_movements"]:
        frame = max(row["start_frame"], int(clip.frames[0]))
        if frame >= row["end_frame"] or frame > clip.frames[-1]:
            continue
        touched = "" if row["state"] == "held" else ", touched"
        by = f"{touched} by the {row['touching_side']} hand" if row["touching_side"] else ""
        words = f"object {draw.short_track(row['track_id'])}: {row['state']}{by}"
        yield Note(
            frame, "INFO", f"{words} (frames {row['start_frame']} to {row['end_frame'] - 1})"
        )


def _checks(footage: ShownClips, clip: ClipRows) -> Iterator[Note]:
    """Each check that failed in the clip's shard, and where it finds this clip at fault."""
    start = int(clip.frames[0])
    for failed in footage.lake.failed_checks(clip.clip["shard"]):
        name = f"check {failed['check']} of {failed['asset']}"
        level = _LEVELS[failed["severity"]]
        yield Note(start, level, f"{name}: {failed['reason']} (shard {failed['shard']})")
        for frame, what in _places(footage, clip, failed["asset"], failed["check"]):
            inside = min(max(frame, start), int(clip.frames[-1]))
            yield Note(inside, level, f"{name}: {what}")


def _places(
    footage: ShownClips, clip: ClipRows, table: str, check: str
) -> Iterator[tuple[int, str]]:
    """(frame, what is wrong there) of a check's probe over this clip alone, by the thresholds that
    it has unless somebody chose others."""
    probe = next((p for p in catalog.probes(table) if p.name == check), None)
    if probe is None:  # of the contract, or of drift: no clip is at fault
        return
    tables = {}
    for name, columns in probe.reads.items():
        rows = footage.columns_of(name, columns, clip.clip["shard"])
        for column in ("clip_id", "video_id"):
            if column in rows.column_names:
                rows = rows.filter(pc.field(column) == clip.clip[column])
                break
        tables[name] = rows
    try:
        finding = probe(Evidence(table, tables), catalog.feature_of(table).probe_settings())
    except Exception as error:  # of any kind: probes are made for whole shards, and may be others'
        yield int(clip.frames[0]), f"cannot say where: {type(error).__name__}: {error}"
        return
    for worst in finding.worst:
        if clip.name in worst.where and worst.frame is not None:
            yield (
                worst.frame,
                f"{worst.where.removeprefix(clip.name).strip()} {worst.value:.3g}, "
                f"the threshold is {finding.threshold:g} {finding.unit}".strip(),
            )
