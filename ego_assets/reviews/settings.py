"""What a person may say of reviews where a data set is made."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from ego_assets.settings import Settings

Use = Literal["use", "ignore", "only_accepted"]


def _utc(text: str) -> str:
    """A time as reviews have it. Raises ValueError."""
    if not text:
        return text
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError("say the time zone, too: 2026-11-30T12:00:00Z or …+01:00")
    return time.astimezone(UTC).isoformat(timespec="microseconds")


class ReviewSettings(Settings):
    """What reviews do to a data set."""

    reviews: Use = Field(
        default="use",
        description="use: without episodes that were rejected, or whose hands are mixed up; "
        "only_accepted: without those that nobody accepted, too; ignore: whatever people said",
    )
    reviews_until: Annotated[str, AfterValidator(_utc)] = Field(
        default="",
        description="without reviews that were given later than this time (ISO 8601, with its "
        "zone): the same choice of episodes on every rank, and when training goes on",
    )
