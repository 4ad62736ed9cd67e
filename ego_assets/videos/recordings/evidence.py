"""Whether one file goes on where another one ends, by what their headers say.

Here: formats, cameras and clocks. Not here: which files are compared (`chapters`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from ego_assets.media.containers import choose_video_stream
from ego_assets.media.damage.cut_off import promise_of
from ego_assets.operator import BadInputError

_CAMERA_TAGS = (
    *("make", "model", "firmware"),
    *("com.apple.quicktime.make", "com.apple.quicktime.model", "com.android.model"),
)
_TIMECODE = re.compile(r"(\d\d):(\d\d):(\d\d)([:;.])(\d\d)", re.ASCII)
RATE_SHARE = 0.01
"""Rates are of whole files: a short last chapter has another one by a frame."""
CREATION_TOLERANCE_S = 3.0
"""Creation times are whole seconds, of when a file was opened."""
TIMECODE_TOLERANCE_S = 1.0


@dataclass(frozen=True)
class Timecode:
    """frame: number of a file's first frame since midnight; per_day: frames after which numbers
    begin again; rate: frames per second."""

    frame: int
    per_day: int
    rate: float


@dataclass(frozen=True)
class HeaderFacts:
    """What the headers of a file say. created_s: seconds since 1970, on the camera's clock; what
    is None or missing they do not say."""

    codec: str
    size: tuple[int, int]
    rate: float
    duration_s: float | None
    camera: Mapping[str, str]
    created_s: float | None
    timecode: Timecode | None


def header_facts(container: Any, stream_index: int | None = None) -> HeaderFacts:
    """Of an open media file. Raises BadInputError if there is no video in it."""
    stream = choose_video_stream(container, stream_index)
    if stream is None:
        raise BadInputError(f"{container.name}: no video stream")
    tags = [container.metadata, stream.metadata]
    rate = float(stream.average_rate or stream.guessed_rate or 0)
    codes = (s.metadata.get("timecode") for s in container.streams)
    code = next(filter(None, chain([container.metadata.get("timecode")], codes)), "")
    return HeaderFacts(
        codec=stream.codec_context.name,
        size=(stream.width, stream.height),
        rate=rate,
        duration_s=promise_of(container, stream).seconds,
        camera={n: t[n].strip() for t in tags for n in _CAMERA_TAGS if t.get(n, "").strip()},
        created_s=next((s for t in tags if (s := _seconds(t.get("creation_time", "")))), None),
        timecode=_timecode(code, rate),
    )


def follows(before: HeaderFacts, after: HeaderFacts) -> bool:
    """Whether nothing says that a file is not what comes next after another one.

    Their format and camera must be the same. Of the clocks that both have one must agree: that of
    the next file says when it began, or when the recording did (cameras do either).
    """
    if (before.codec, before.size) != (after.codec, after.size):
        return False
    if abs(before.rate - after.rate) > RATE_SHARE * before.rate:
        return False
    shared = before.camera.keys() & after.camera.keys()
    if any(before.camera[name] != after.camera[name] for name in shared):
        return False
    verdicts = [_created_next(before, after), _timed_next(before, after)]
    said = [verdict for verdict in verdicts if verdict is not None]
    return any(said) or not said


def _created_next(before: HeaderFacts, after: HeaderFacts) -> bool | None:
    if None in (before.created_s, after.created_s, before.duration_s):
        return None
    assert before.created_s is not None
    assert after.created_s is not None
    assert before.duration_s is not None
    apart_s = after.created_s - before.created_s
    return abs(apart_s) <= 1.0 or abs(apart_s - before.duration_s) <= CREATION_TOLERANCE_S


def _timed_next(before: HeaderFacts, after: HeaderFacts) -> bool | None:
    """Timecodes that begin at 0 in each file say nothing."""
    first, second = before.timecode, after.timecode
    if first is None or second is None or before.duration_s is None:
        return None
    if first.frame == second.frame == 0:
        return None
    apart = second.frame - first.frame
    expected = before.duration_s * first.rate
    wrapped = (apart - expected + first.per_day / 2) % first.per_day - first.per_day / 2
    return apart == 0 or abs(wrapped) <= TIMECODE_TOLERANCE_S * first.rate


def _seconds(text: str) -> float | None:
    """Of an ISO date; None also of the years that stand for a clock that was never set."""
    with suppress(ValueError, OverflowError):
        found = datetime.fromisoformat(text.strip())
        found = found if found.tzinfo else found.replace(tzinfo=UTC)
        return found.timestamp() if found.year > 1980 else None
    return None


def _timecode(text: str, rate: float) -> Timecode | None:
    """SMPTE 12M; with a semicolon it drops numbers so as to keep step with a clock."""
    found = _TIMECODE.fullmatch(text.strip())
    if found is None or rate <= 0:
        return None
    hours, minutes, seconds, frames = (int(found[n]) for n in (1, 2, 3, 5))
    nominal = round(rate)
    dropped = nominal // 15 if found[4] in ";." else 0

    def number(minute: int, rest: int) -> int:
        return minute * 60 * nominal + rest - dropped * (minute - minute // 10)

    frame = number(hours * 60 + minutes, seconds * nominal + frames)
    return Timecode(frame, number(24 * 60, 0), rate)
