"""Keeps reviews in the lake, so that nothing that anybody said is lost.

They lie in files of lines in `_reviews` (`ego_assets.line_files`); readers count each once.
Not here: whether a review still holds (`standing`).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from ego_assets.line_files import TOGETHER, LineFiles
from resources.lake import Lake, erasure

FOLDER = "_reviews"
MOST_FILES = 64
"""Of either kind, before they are put together."""
MOST_REASON = 500
Kind = Literal["episode", "clip"]
Verdict = Literal["accept", "reject"]


class ReviewError(ValueError):
    """A review that says too little, or what cannot be. The message tells what to do."""


@dataclass(frozen=True)
class Review:
    """What somebody said of an episode or a clip.

    side_swap: left and right hands are mixed up; reviewer: may be empty; time: ISO 8601, UTC;
    fingerprint: of the rows that were judged; made_by: of the attempts that had made them, by which
    unchanged rows are known without a look at them (empty: look).
    """

    review_id: str
    kind: Kind
    subject: str
    shard: str
    verdict: Verdict
    reason: str
    side_swap: bool
    reviewer: str
    time: str
    fingerprint: str
    made_by: str

    def __post_init__(self) -> None:
        for name, known in (("kind", Kind), ("verdict", Verdict)):
            if getattr(self, name) not in get_args(known):
                raise ReviewError(f"{name} must be one of {', '.join(get_args(known))}")
        if self.verdict == "reject" and not self.reason.strip():
            raise ReviewError("a rejection needs a reason")
        if len(self.reason) > MOST_REASON or len(self.reviewer) > 100:
            raise ReviewError(f"a reason may have {MOST_REASON} characters, a reviewer's name 100")

    @classmethod
    def now(cls, **said: Any) -> Review:
        """A review that is given now. Raises ReviewError."""
        time = datetime.now(UTC).isoformat(timespec="microseconds")
        return cls(review_id=uuid.uuid4().hex, time=time, **said)


class ReviewFiles:
    """The reviews of a lake. Safe to use from many processes and threads at once."""

    def __init__(self, lake: Lake) -> None:
        self._files = LineFiles(lake, FOLDER, Review, "reviews")

    def add(self, review: Review) -> None:
        """Keep a review: when this returns, it is in the lake."""
        self._files.add([review], review.time, review.review_id)
        self._put_together()

    def all(self) -> list[Review]:
        """Every review that was ever given, in the order of time."""
        files = self._files.read()
        found = {review.review_id: review for each in files.values() for review in each}
        return _in_order(found.values())

    def newest(self, until: str = "") -> dict[tuple[Kind, str], Review]:
        """The last word on each subject, by kind and subject. until: as a review's `time`; what
        was said later is left out."""
        said = (review for review in self.all() if not until or review.time <= until)
        return {(review.kind, review.subject): review for review in said}

    def erase(self, video_id: str, reword: Callable[[str], str]) -> int:
        """Erase what was said of a video's clips and episodes. Returns how many reviews that were.

        reword: takes the names of the video out of what people wrote of others.
        """
        count = 0
        for key, said in self._files.read().items():
            kept = [
                replace(each, reason=reword(each.reason), reviewer=reword(each.reviewer))
                for each in said
                if not erasure.is_of(each.subject, video_id)
            ]
            if kept != list(said):
                count += len(said) - len(kept)
                if kept:
                    self._files.write_together(kept)
                self._files.delete([key])
        return count

    def _put_together(self) -> None:
        keys = self._files.keys()
        for is_together in (False, True):
            chosen = [k for k in keys if k.startswith(f"{FOLDER}/{TOGETHER}") is is_together]
            if len(chosen) > MOST_FILES:
                files = self._files.read()
                gone = {key: files[key] for key in chosen if key in files}
                found = {r.review_id: r for each in gone.values() for r in each}
                target = self._files.write_together(_in_order(found.values()))
                self._files.delete(gone.keys() - {target})


def _in_order(reviews: Iterable[Review]) -> list[Review]:
    return sorted(reviews, key=lambda review: (review.time, review.review_id))
