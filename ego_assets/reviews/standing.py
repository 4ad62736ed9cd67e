"""Holds reviews against the rows that the lake has now: which of them still count.

A review counts while the rows that it was given for are the same. One whose rows have changed is
out of date: it is kept, shown as such, and has no effect.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Literal

import pyarrow as pa

from ego_assets.reviews.fingerprints import ID, JUDGED, Fingerprints
from ego_assets.reviews.settings import ReviewSettings, Use
from ego_assets.reviews.store import Kind, Review, ReviewFiles
from resources.lake import Lake

ReviewState = Literal["current", "out of date", "gone"]
"""gone: the lake has no such subject any more."""
SWAPPED = "left and right hands are mixed up"


@dataclass(frozen=True)
class Judgement:
    """The last word on a subject, and whether it still counts."""

    review: Review
    state: ReviewState

    @property
    def rejected(self) -> bool:
        return self.state == "current" and self.review.verdict == "reject"


@dataclass(frozen=True)
class ReviewCounts:
    """Of subjects of one kind: all there are, judged ones whose review counts, rejected ones among
    them, and those whose review is out of date."""

    subjects: int
    judged: int
    rejected: int
    out_of_date: int


class Standing:
    """The reviews of a lake and what has become of their subjects. Remembers fingerprints: keep one
    for as long as a program looks at a lake."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self.files = ReviewFiles(lake)
        self.fingerprints = Fingerprints(lake)

    def judgements(
        self, kind: Kind | None = None, shards: Iterable[str] | None = None, until: str = ""
    ) -> dict[tuple[Kind, str], Judgement]:
        """The last word on each subject that somebody judged (of a kind, of some shards).

        until: a time as reviews have it; later ones are left out.
        """
        wanted = None if shards is None else set(shards)
        chosen = {
            key: review
            for key, review in self.files.newest(until).items()
            if kind in (None, review.kind) and (wanted is None or review.shard in wanted)
        }
        made = {
            place: self.fingerprints.made_by(*place)
            for place in sorted({(review.kind, review.shard) for review in chosen.values()})
        }
        return {
            key: Judgement(review, self._state(review, made[review.kind, review.shard]))
            for key, review in chosen.items()
        }

    def _state(self, review: Review, made_by: str) -> ReviewState:
        if review.made_by == made_by:
            return "current"
        found = self.fingerprints.of(review.kind, review.shard)[1].get(review.subject)
        if found is None:
            return "gone"
        return "current" if found == review.fingerprint else "out of date"

    def counts(self, kind: Kind, shards: Iterable[str]) -> ReviewCounts:
        """How many subjects of shards there are, and how many were judged."""
        shards = list(shards)
        table = JUDGED[kind][0]
        total = sum(self.lake.read(table, shard, columns=[ID[kind]]).num_rows for shard in shards)
        found = self.judgements(kind, shards).values()
        states = [judgement.state for judgement in found]
        return ReviewCounts(
            total,
            states.count("current"),
            sum(judgement.rejected for judgement in found),
            states.count("out of date"),
        )


def reviews_table(lake: Lake) -> pa.Table:
    """The last word on each episode and clip, as a table: a row for each, with its `state`."""
    found = Standing(lake).judgements().values()
    rows = [asdict(each.review) | {"state": each.state} for each in found]
    rows.sort(key=lambda row: (row["kind"], row["subject"]))
    columns = {f.name: pa.bool_() if f.name == "side_swap" else pa.string() for f in fields(Review)}
    return pa.Table.from_pylist(rows, schema=pa.schema(columns | {"state": pa.string()}))


def why_left_out(lake: Lake, settings: ReviewSettings) -> WhyLeftOut:
    """Tells of episodes whether reviewers leave them out of a data set."""
    use, until = settings.reviews, settings.reviews_until
    found = {} if use == "ignore" else Standing(lake).judgements("episode", until=until)
    return WhyLeftOut(use, {subject: judgement for (_, subject), judgement in found.items()})


@dataclass(frozen=True)
class WhyLeftOut:
    """Why an episode is left out of a data set by its reviews."""

    use: Use
    judgements: Mapping[str, Judgement]

    def __call__(self, episode_id: str) -> str | None:
        """The reason in words; None if the episode is to be exported."""
        judgement = self.judgements.get(episode_id)
        if judgement is not None and judgement.state == "current":
            review = judgement.review
            by = f" by {review.reviewer}" if review.reviewer else ""
            if review.verdict == "reject":
                return f"rejected{by}: {review.reason}"
            if review.side_swap:
                return f"accepted{by}, but {SWAPPED}"
            return None
        if self.use == "only_accepted":
            is_old = judgement is not None and judgement.state == "out of date"
            return "its review is out of date" if is_old else "nobody has accepted it"
        return None
