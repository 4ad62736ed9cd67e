"""What a person may say of reviews where a data set is made."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ego_assets.settings import Settings

Use = Literal["use", "ignore", "only_accepted"]


class ReviewSettings(Settings):
    """What reviews do to a data set."""

    reviews: Use = Field(
        default="use",
        description="use: without episodes that were rejected, or whose hands are mixed up; "
        "only_accepted: without those that nobody accepted, too; ignore: whatever people said",
    )
