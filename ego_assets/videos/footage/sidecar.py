"""Reads what a person says of a video: who wears the camera, consent, license, site, device, task.

`<stem>.footage.json` (or `.yaml`, `.yml`) beside `<stem>.mp4` is that of the video, and
`footage.json` (or the others) that of every video in its folder; what both say is as that of the
video says it. Anybody may have put it there, so no message quotes what is in it. Not here: which
file counts and how it is opened (`resources.raw.sidecars`), what follows from what it says.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

from ego_assets.consent import CONSENTS, SAID, canonical_license
from ego_assets.models.suggestions import nearest
from resources.raw.sidecars import FileBeside

REASON = "bad_sidecar"
"""Of the row of a video whose file cannot be used."""
MAX_BYTES = 2**16
MAX_CHARACTERS = dict.fromkeys(SAID, 200) | {"task": 1000}


class FootageSidecarError(ValueError):
    """The file cannot be used. The message says why, and quotes nothing of it."""


def footage_columns(found: Iterable[FileBeside]) -> dict[str, Any]:
    """The columns that the files of a video say, null where none does. Of two that say something,
    the later counts. Raises FootageSidecarError, which names the file."""
    said: dict[str, Any] = dict.fromkeys(SAID)
    for file in found:
        try:
            if file.fault:
                raise FootageSidecarError(file.fault)
            said |= {key: value for key, value in parse(file.data).items() if value is not None}
        except FootageSidecarError as error:
            words = f"{file.name} does not say whose footage this is: {error}"
            raise FootageSidecarError(words) from None
    return said


def is_described_by(row: Mapping[str, Any], found: Iterable[FileBeside]) -> bool:
    """Whether a row of `video_manifest` says what the files of its video say."""
    try:
        said = footage_columns(found)
    except FootageSidecarError as error:
        return (row["reject_reason"], row["reject_detail"]) == (REASON, str(error))
    return row["reject_reason"] != REASON and all(row[name] == said[name] for name in SAID)


def parse(data: bytes) -> dict[str, str | None]:
    """{column: value} of a file. Raises FootageSidecarError."""
    if len(data) > MAX_BYTES:
        raise FootageSidecarError(f"it is larger than {MAX_BYTES // 2**10} KiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise FootageSidecarError("it is not UTF-8 text") from None
    if not text.strip():
        raise FootageSidecarError("it is empty")
    try:
        pairs = _of_json(text) if text.lstrip()[:1] in "{[" else _of_yaml(text)
    except (RecursionError, MemoryError):
        raise FootageSidecarError("it is nested too deep") from None
    said: dict[str, str | None] = {}
    for place, (key, value) in enumerate(pairs, 1):
        if key not in SAID:
            close = nearest(str(key)[:40].lower(), SAID)
            hint = f"did you mean {close}? " if close else ""
            raise FootageSidecarError(
                f"its entry {place} has a name that is not known: {hint}there are {', '.join(SAID)}"
            )
        if key in said:
            raise FootageSidecarError(f"it says {key} twice")
        said[key] = None if value is None else _value(key, value)
    return said


def _value(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise FootageSidecarError(f"its {key} is not text: put it in quotes")
    text = unicodedata.normalize("NFC", " ".join(value.split()))
    if not text:
        raise FootageSidecarError(f"its {key} is empty: leave it out")
    if len(text) > MAX_CHARACTERS[key]:
        raise FootageSidecarError(f"its {key} has more than {MAX_CHARACTERS[key]} characters")
    if not text.isprintable():
        raise FootageSidecarError(f"its {key} has characters that cannot be shown")
    return _CHECKS[key](text) if key in _CHECKS else text


def _consent(text: str) -> str:
    if text not in CONSENTS:
        raise FootageSidecarError(f"its consent is none of {', '.join(CONSENTS)}")
    return text


def _license(text: str) -> str:
    try:
        return canonical_license(text)
    except ValueError as error:
        raise FootageSidecarError(f"its license cannot be used: {error}") from None


_CHECKS: Mapping[str, Callable[[str], str]] = {"consent": _consent, "license": _license}


def _of_json(text: str) -> list[tuple[str, Any]]:
    try:
        found = json.loads(text, object_pairs_hook=_Pairs, parse_int=str, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise FootageSidecarError(f"it is not JSON ({where})") from None
    if not isinstance(found, _Pairs):
        raise FootageSidecarError("it is not a JSON object")
    return found


class _Pairs(list[tuple[str, Any]]):
    """An object of JSON, in which a name may come twice."""


def _refuse(_: str) -> NoReturn:
    raise FootageSidecarError("it holds a number that is not finite")


def _of_yaml(text: str) -> list[tuple[str, Any]]:
    """The entries of a mapping of plain values, each as it is written: `no` is a site, and 007 a
    person."""
    import yaml

    try:
        # Events: nothing is built of tags, and references are not followed.
        events = [e for e in yaml.parse(text, yaml.SafeLoader) if not _is_frame(e)]
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # of \U00110000, say
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise FootageSidecarError(f"it is not YAML{where}") from None
    if not events or not isinstance(events[0], yaml.MappingStartEvent):
        raise FootageSidecarError("it has no entries of the form name: value")
    plain = [e for e in events[1:-1] if isinstance(e, yaml.ScalarEvent) and not e.tag]
    if len(plain) != len(events) - 2:
        raise FootageSidecarError("a value in it is not plain text")
    values = [None if e.style is None and e.value in _NULLS else e.value for e in plain[1::2]]
    return list(zip((e.value for e in plain[::2]), values, strict=True))


_NULLS = ("", "~", "null", "Null", "NULL")


def _is_frame(event: Any) -> bool:
    import yaml

    frames = (yaml.StreamStartEvent, yaml.StreamEndEvent)
    return isinstance(event, (*frames, yaml.DocumentStartEvent, yaml.DocumentEndEvent))
