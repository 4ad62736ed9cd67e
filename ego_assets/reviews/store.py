"""Keeps reviews in the lake, so that nothing that anybody said is lost.

    <lake>/_reviews/{time}.{id}.jsonl          one review, written once
    <lake>/_reviews/together-{sha256}.jsonl    many of them: what the small files said

Every file is written under a name of its own and never changed, so two reviewers at once need no
lock. Files are put together by writing their union first and deleting them afterwards: at any
moment each review is in one file at least, and readers count it once. Not here: whether a review
still holds (`standing`).
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from resources.lake import Lake, LakeError, erasure

FOLDER = "_reviews"
TOGETHER = "together-"
MOST_FILES = 64
"""Of either kind, before they are put together."""
MOST_REASON = 500
Kind = Literal["episode", "clip"]
Verdict = Literal["accept", "reject"]
_READERS = 8


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


_FIELDS = frozenset(field.name for field in fields(Review))


class ReviewFiles:
    """The reviews of a lake. Safe to use from many processes and threads at once."""

    def __init__(self, lake: Lake) -> None:
        self._storage = lake.storage
        self._known: dict[str, tuple[Review, ...]] = {}

    def add(self, review: Review) -> None:
        """Keep a review: when this returns, it is in the lake."""
        when = "".join(c for c in review.time[:26] if c.isdigit())
        self._storage.write(f"{FOLDER}/{when}.{review.review_id}.jsonl", _lines([review]))
        self._put_together()

    def all(self) -> list[Review]:
        """Every review that was ever given, in the order of time."""
        files = self._read()
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
        for key, said in self._read().items():
            kept = [
                replace(each, reason=reword(each.reason), reviewer=reword(each.reviewer))
                for each in said
                if not erasure.is_of(each.subject, video_id)
            ]
            if kept != list(said):
                count += len(said) - len(kept)
                if kept:
                    self._write_together(kept)
                self._storage.delete(key)
        return count

    def _read(self) -> dict[str, tuple[Review, ...]]:
        """What each file says. A file never changes, so each is read once."""
        while True:
            keys, known = self._storage.list(FOLDER), self._known
            missing = [key for key in keys if key not in known]
            try:
                with ThreadPoolExecutor(_READERS) as pool:
                    read = list(pool.map(self._storage.read, missing))
            except FileNotFoundError:  # they were put together after the listing
                continue
            new = {key: _parsed(key, data) for key, data in zip(missing, read, strict=True)}
            found = {key: new[key] if key in new else known[key] for key in keys}
            self._known = found
            return found

    def _put_together(self) -> None:
        keys = self._storage.list(FOLDER)
        for is_together in (False, True):
            chosen = [k for k in keys if k.startswith(f"{FOLDER}/{TOGETHER}") is is_together]
            if len(chosen) > MOST_FILES:
                files = self._read()
                gone = {key: files[key] for key in chosen if key in files}
                found = {r.review_id: r for each in gone.values() for r in each}
                target = self._write_together(_in_order(found.values()))
                for key in gone.keys() - {target}:
                    self._storage.delete(key)

    def _write_together(self, reviews: Iterable[Review]) -> str:
        data = _lines(reviews)
        key = f"{FOLDER}/{TOGETHER}{hashlib.sha256(data).hexdigest()}.jsonl"
        self._storage.write(key, data, replace=False)
        return key


def _in_order(reviews: Iterable[Review]) -> list[Review]:
    return sorted(reviews, key=lambda review: (review.time, review.review_id))


def _lines(reviews: Iterable[Review]) -> bytes:
    return "".join(f"{json.dumps(asdict(r), ensure_ascii=False)}\n" for r in reviews).encode()


def _parsed(key: str, data: bytes) -> tuple[Review, ...]:
    try:
        said = [json.loads(line) for line in data.decode().split("\n") if line]
        # A newer release may say more.
        return tuple(Review(**{k: v for k, v in each.items() if k in _FIELDS}) for each in said)
    except (ValueError, TypeError, AttributeError) as error:
        raise LakeError(
            f"{key} holds no reviews ({error}): move the file out of {FOLDER} and look at it"
        ) from error
