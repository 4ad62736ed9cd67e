"""Reviews in a folder and on S3: whatever happens at once, nothing that was said is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ego_assets.reviews import store
from ego_assets.reviews.store import FOLDER, Review, ReviewError, ReviewFiles
from resources.lake import Lake, LakeError
from tests.resources.s3_server import new_bucket, s3_server
from tests.reviews.judged_lake import review


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch, s3_server(patch) as endpoint:
        yield endpoint


@pytest.fixture(params=["folder", "s3"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    if request.param == "folder":
        return Lake(tmp_path / "lake")
    request.getfixturevalue("server")
    return Lake(f"s3://{new_bucket()}/some/lake")


def test_what_was_said_comes_back(lake: Lake) -> None:
    said = review(verdict="reject", reason='Hände\u2028 "falsch"\n', reviewer="Zoë")
    ReviewFiles(lake).add(said)
    assert ReviewFiles(lake).all() == [said]


def test_the_last_word_counts_and_all_are_kept(lake: Lake) -> None:
    files = ReviewFiles(lake)
    first, last = review(), review(verdict="reject", reason="blurred")
    for each in (last, first):
        files.add(each)
    assert files.newest() == {("episode", "a-e000000"): last}
    assert files.all() == [first, last]


def test_two_at_once_lose_nothing_while_files_are_put_together(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MOST_FILES", 3)
    start = threading.Barrier(3)
    seen: list[int] = []

    def say(who: str) -> list[Review]:
        files = ReviewFiles(lake)  # each with a memory of its own, as two servers have
        said = [review(f"{who}-{number}", reviewer=who) for number in range(20)]
        start.wait()
        for each in said:
            files.add(each)
        return said

    def look() -> None:
        files = ReviewFiles(lake)
        start.wait()
        while len(seen) < 10 or seen[-1] < 40:
            seen.append(len(files.all()))

    with ThreadPoolExecutor(3) as pool:
        looking = pool.submit(look)
        said = [each for mine in pool.map(say, ("anna", "ben")) for each in mine]
        looking.result()
    assert {r.review_id for r in ReviewFiles(lake).all()} == {r.review_id for r in said}
    assert seen == sorted(seen), "a review was there, and then it was not"
    assert len(lake.storage.list(FOLDER)) < 40


def test_a_writer_that_dies_between_union_and_removal_counts_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(tmp_path)
    monkeypatch.setattr(store, "MOST_FILES", 2)
    files = ReviewFiles(lake)
    for number in range(2):
        files.add(review(str(number)))

    def die(key: str) -> None:
        raise OSError("killed")

    monkeypatch.setattr(lake.storage, "delete", die)
    with pytest.raises(OSError, match="killed"):
        files.add(review("2"))
    assert len(lake.storage.list(FOLDER)) == 4
    assert [r.subject for r in ReviewFiles(Lake(tmp_path)).all()] == ["0", "1", "2"]


@pytest.mark.parametrize(
    "say",
    [
        lambda: review(verdict="reject", reason="  "),
        lambda: review(verdict="perhaps"),
        lambda: review(kind="shard"),
        lambda: review(reason="x" * 501),
    ],
)
def test_what_says_too_little_is_refused(say: Callable[[], Review]) -> None:
    with pytest.raises(ReviewError):
        say()


def test_a_file_that_holds_something_else_is_named(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.storage.write(f"{FOLDER}/notes.jsonl", b"[1]\n")
    with pytest.raises(LakeError, match="notes\\.jsonl holds no reviews"):
        ReviewFiles(lake).all()
