"""What the ledger knows of raw files, on both kinds of database."""

from __future__ import annotations

import random
import string
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from resources.ledger import Ledger, State
from resources.ledger.contents import Contents
from resources.ledger.raw_files import RawFiles
from resources.ledger.sources import AWAY, DELETED, HANDED_ON, STAGE, Source, Sources
from resources.ledger.states import RAW_GONE
from tests.resources.postgres import Postgres

SHARD, SHA = "20260101-0000", "ab" * 32
SOURCE = Source("u1", SHARD, "/raw/a.mp4", 5, SHA, "1:5:2:3")


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres.started() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Ledger:
    if request.param == "sqlite":
        made = Ledger.beside(tmp_path)
    else:
        made = Ledger(request.getfixturevalue("postgres").new_database())
    Sources(made).enter([SOURCE])
    made.expect(STAGE, SHARD, [("u1", None)])
    made.expect("clips", SHARD, [(SHA[:16], SHA[:16]), ("another", "another")])
    attempt = made.start(STAGE, "u1", fingerprint="f", worker="w", run_id="r")
    made.finish(STAGE, "u1", attempt)
    Contents(made).claim(SHA[:16], SOURCE.uri, SHARD, "u1")
    return made


def states(ledger: Ledger) -> dict[str, State]:
    return {e.item_id: e.state for e in ledger.entries()}


def test_a_path_may_be_as_long_as_the_system_opens(ledger: Ledger) -> None:
    """And hold what no index compresses."""
    uri = "/" + "".join(random.Random(1).choices(string.ascii_letters, k=4000))
    Sources(ledger).enter([replace(SOURCE, item_id="u2", uri=uri)])
    assert Contents(ledger).claim("ef" * 8, uri, SHARD, "u2") == (uri, SHARD)
    assert [s.item_id for s in Sources(ledger).at([uri])] == ["u2"]


def test_it_remembers_in_which_state_a_file_had_its_content(ledger: Ledger) -> None:
    sources = Sources(ledger)
    assert sources.recall("/raw/other.mp4", SHA) is None
    assert sources.recall(SOURCE.uri, SHA) == SOURCE.state
    assert sources.recall(SOURCE.uri, "cd" * 32) == ""
    sources.remember(SOURCE.uri, SHA, "new")
    assert sources.recall(SOURCE.uri, SHA) == "new"
    sources.enter([replace(SOURCE, state="not again")])
    assert sources.find("u1") == replace(SOURCE, state="new", seen_at=sources.find("u1").seen_at)  # type: ignore[union-attr]
    assert [s.item_id for s in sources.of_sizes([4, 5])] == ["u1"]
    assert sources.of_sizes([4]) == []
    assert sources.shards() == {SHARD}


def test_a_place_is_waited_for_longer_if_it_was_there_lately(ledger: Ledger) -> None:
    sources = Sources(ledger)
    assert 0 < sources.missed("u1", patience_s=600, brief_s=60) <= 60
    assert 0 < sources.missed("u1", patience_s=600, brief_s=60) <= 60
    sources.seen(["u1"])
    assert 500 < sources.missed("u1", patience_s=600, brief_s=60) <= 600
    # Not from a time that a clock has put into the future.
    assert sources.missed("u1", patience_s=5, brief_s=5) <= 5
    with sa.create_engine(ledger.url).begin() as connection:
        connection.execute(sa.text("UPDATE sources SET away_until = away_until - 1000"))
    assert sources.missed("u1", patience_s=600, brief_s=60) < 0
    assert sources.missed("nobody", patience_s=600, brief_s=60) == 0
    # Left by a run that was killed while it waited: the next absence is another one.
    with sa.create_engine(ledger.url).begin() as connection:
        connection.execute(sa.text("UPDATE sources SET away_until = away_until - 3600"))
    assert 0 < sources.missed("u1", patience_s=600, brief_s=60) <= 600


@pytest.mark.parametrize("why", [DELETED, AWAY])
def test_what_was_not_done_is_dropped_with_the_file_and_comes_back_with_it(
    ledger: Ledger, why: str
) -> None:
    sources = Sources(ledger)
    assert sources.mark_gone(SOURCE, why, "it is gone")
    assert not sources.mark_gone(SOURCE, why, "it is gone")
    assert states(ledger) == {
        "u1": State.DONE,
        SHA[:16]: State.DROPPED,
        "another": State.PENDING,
    }
    (entry,) = ledger.entries(item_id=SHA[:16])
    assert (entry.error_class, entry.error) == (RAW_GONE, "it is gone")
    assert ledger.release() == 0
    assert [n.detail for n in RawFiles(ledger).news(9)] == ["it is gone"]
    assert [(s.item_id, s.gone_why, n) for s, n in sources.untold([SHARD])] == [("u1", why, 1)]
    sources.told(["u1"])
    assert sources.untold([SHARD]) == []
    (gone,) = sources.gone(SHARD)
    assert sources.back(gone) == 1
    assert sources.gone() == []
    assert states(ledger)[SHA[:16]] is State.PENDING


def test_the_folders_that_are_waited_for_are_known(ledger: Ledger) -> None:
    sources = Sources(ledger)
    assert sources.places_away(SHARD) == set()
    assert sources.missed("u1", patience_s=60, brief_s=60) > 0
    assert sources.places_away(SHARD) == {"/raw"}
    assert sources.places_away("another") == set()
    sources.mark_gone(SOURCE, AWAY, "it is gone")
    assert sources.places_away(SHARD) == set()


def test_a_file_that_was_moved_meanwhile_is_not_gone(ledger: Ledger) -> None:
    sources = Sources(ledger)
    assert sources.move(SOURCE, "/raw/z.mp4", "") == 1
    assert Contents(ledger).owner(SHA[:16]) == ("/raw/z.mp4", SHARD)
    assert not sources.mark_gone(SOURCE, DELETED, "it is gone")
    assert sources.gone() == []


def test_work_on_a_content_that_another_file_has_is_not_dropped(ledger: Ledger) -> None:
    sources, contents = Sources(ledger), Contents(ledger)
    contents.disown(SOURCE.uri)
    contents.claim(SHA[:16], "/raw/b.mp4", SHARD, "u2")
    sources.mark_gone(SOURCE, DELETED, "it is gone")
    assert states(ledger)[SHA[:16]] is State.PENDING
    assert sources.hand_on(SOURCE.uri, SHARD) == "u1"
    assert sources.gone()[0].gone_why == HANDED_ON


def test_a_content_is_let_go_only_if_its_file_has_another_one(ledger: Ledger) -> None:
    sources, contents = Sources(ledger), Contents(ledger)
    assert not contents.let_go(SHA[:16])
    assert contents.owners([SHA[:16], "x"]) == {SHA[:16]: (SOURCE.uri, SHARD)}
    sources.probed(replace(SOURCE, sha256="cd" * 32))
    assert contents.let_go(SHA[:16])
    assert contents.owner(SHA[:16]) is None


def test_rows_are_published_again_under_a_token_of_their_own(ledger: Ledger) -> None:
    sources = Sources(ledger)
    before = ledger.entries(stage=STAGE)[0]
    token = sources.new_token("u1")
    assert token is not None
    assert token > before.token
    sources.published("u1", token, "digest")
    after = ledger.entries(stage=STAGE)[0]
    assert (after.state, after.token, after.digest) == (State.DONE, token, "digest")
    attempt = ledger.start(STAGE, "u1", fingerprint="g", worker="w", run_id="r")
    assert attempt.token > token
    assert sources.new_token("u1") is None
    assert sources.new_token("nobody") is not None


def test_a_file_whose_place_was_taken_is_no_more(ledger: Ledger) -> None:
    Sources(ledger).remove(SOURCE)
    assert Sources(ledger).find("u1") is None
    assert Contents(ledger).owner(SHA[:16]) is None
    assert [n.kind for n in RawFiles(ledger).news(9)] == ["superseded"]
