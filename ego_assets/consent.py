"""Whose footage it is, and what may be done with it: the words.

Here: what tables, rules and exports have in common; light, since commands load it. Not here: the
columns (`rows`), the file that says it (`ego_assets.videos.footage`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator

Consent = Literal["granted", "research_only", "unknown", "refused", "withdrawn"]
"""The states of consent of W3C's Data Privacy Vocabulary (and ISO/IEC TS 27560) that matter for
what may be done: given, given for research alone, unknown, refused, withdrawn."""
CONSENTS: tuple[str, ...] = get_args(Consent)
NO_CONSENTS = ("refused", "withdrawn")
"""No setting lets such footage through."""
MAX_LICENSE = 200
"""Characters of an expression."""

SAID = ("person", "consent", "license", "site", "device", "task")
"""The columns, in `video_manifest` and `episodes`."""
GROUPED = ("person", "site", "consent", "license")
"""Those by which footage is summed up and chosen."""


@cache
def canonical_license(text: str) -> str:
    """An SPDX license expression as SPDX writes it. Raises ValueError, which quotes nothing."""
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

    try:
        if len(text) <= MAX_LICENSE:
            return canonicalize_license_expression(text)
    except InvalidLicenseExpression:
        pass
    raise ValueError(
        "it is no SPDX license expression: give an identifier such as CC-BY-4.0 "
        "(spdx.org/licenses), or LicenseRef-name (letters, digits, - and .) for terms of your own"
    )


def known_consent(text: str) -> str:
    """Raises ValueError for what is none."""
    if text not in CONSENTS:
        raise ValueError(f"{text!r} is none of {', '.join(CONSENTS)}")
    return text


def split_key(video: Mapping[str, Any]) -> str:
    """What a split must not part: all footage of a wearer, else of a recording, else of a video.
    Of a row of `video_manifest`."""
    names = ("person", "recording_id", "video_id")
    return next(str(video[name]) for name in names if video.get(name))


def _listed(check: Callable[[str], str]) -> AfterValidator:
    def checked(text: str) -> str:
        return ", ".join(check(each) for each in items_of(text))

    return AfterValidator(checked)


def items_of(text: str) -> list[str]:
    """The items of a list that is written with commas."""
    return [each.strip() for each in text.split(",") if each.strip()]


Names = Annotated[str, _listed(str)]
Consents = Annotated[str, _listed(known_consent)]
Licenses = Annotated[str, _listed(canonical_license)]
"""Of settings: several, with commas between them."""


def are_among(row: Mapping[str, Any], wanted: Mapping[str, str]) -> bool:
    """Whether what a row says is among what is wanted, {column: items with commas between them};
    of a column without any, everything is, and otherwise a null is not."""
    chosen: Iterable[tuple[str, list[str]]] = ((k, items_of(v)) for k, v in wanted.items())
    return all(not items or row.get(name) in items for name, items in chosen)
