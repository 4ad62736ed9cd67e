"""`verify --repair` beside work: what goes on is no damage, and damage is found all the same.

What happens between two reads of a look is made to happen there; then everything at once, in
processes, over a slow storage.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.synchronize
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ego_assets.catalog import TABLES
from ego_assets.upkeep import audit
from ego_assets.upkeep.rollback import rollback
from resources.lake import Lake, history
from resources.ledger import Ledger, State
from tests.engine.stage_bench import provenance
from tests.resources.s3_server import new_bucket, s3_server
from tests.upkeep.test_audit import ITEMS, SHARD, TABLE, Bench, rows_of

FILE = f"{TABLE}/{SHARD}.parquet"


class Place(Bench):
    """The bench of the audit, on any storage."""

    def __init__(self, lake: Lake, ledger: Ledger) -> None:
        self.lake = lake
        self.ledger = ledger

    @classmethod
    def made(cls, lake: Lake, ledger: Ledger) -> Place:
        place = cls(lake, ledger)
        lake.write_shard(SHARD, {"files": []})
        ledger.expect(TABLE, SHARD, [(u, u) for u in ITEMS])
        place.work()
        return place

    def verify(self) -> list[str]:
        return [str(p) for p in audit.verify(self.lake, self.ledger)]

    def repair(self) -> dict[str, int]:
        return audit.repair(self.lake, self.ledger, audit.verify(self.lake, self.ledger))

    def is_sound(self) -> bool:
        """Nothing was put aside or requeued, and all rows are there."""
        states = {e.state for e in self.ledger.entries()}
        rows = self.lake.read(TABLE, SHARD).num_rows
        aside = [*self.lake.storage.walk("_damaged"), *self.lake.storage.list("_damaged/clips")]
        return not aside and states <= {State.DONE, State.RUNNING} and rows == 3 * len(ITEMS)

    def damage(self, key: str) -> None:
        data = bytearray(self.lake.storage.read(key))
        data[len(data) // 2] ^= 1
        self.lake.storage.write(key, bytes(data))


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch, s3_server(patch) as endpoint:
        yield endpoint


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.made(Lake(tmp_path / "lake"), Ledger.beside(tmp_path))


@pytest.fixture(params=["folder", "s3"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    ledger = Ledger.beside(tmp_path)
    if request.param == "folder":
        return Place.made(Lake(tmp_path / "lake"), ledger)
    request.getfixturevalue("server")
    return Place.made(Lake(f"s3://{new_bucket()}/lake"), ledger)


def meanwhile(
    place: Place, monkeypatch: pytest.MonkeyPatch, method: str, key: str, happens: Callable[[], Any]
) -> list[str]:
    """After the next read of a file (by `method` of the storage) something happens, once."""
    storage = place.lake.storage
    real = getattr(storage, method)
    said: list[str] = []

    def call(asked: str, *arguments: Any, **options: Any) -> Any:
        answer = real(asked, *arguments, **options)
        if asked.startswith(key) and not said:
            said.append(asked)
            happens()
        return answer

    monkeypatch.setattr(storage, method, call)
    return said


def fragment_of(place: Place, item: str) -> str:
    (key,) = place.lake.storage.list(f"{TABLE}/_fragments/{SHARD}", begin=item)
    return key


def begin(place: Place, item: str = ITEMS[0]) -> Callable[[], None]:
    """Claim an item: the rest of the attempt."""
    attempt = place.ledger.start(
        TABLE, item, fingerprint="g", worker="elsewhere:1:1", run_id="other"
    )

    def end() -> None:
        origin = replace(provenance("g"), token=attempt.token)
        batch = TABLES[TABLE].from_rows(rows_of(item))
        published = place.lake.publish(TABLE, SHARD, item, batch, origin)
        place.ledger.finish(TABLE, item, attempt, published.sha256)

    return end


def test_a_compaction_while_the_file_is_hashed(
    anywhere: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = anywhere
    happened = meanwhile(place, monkeypatch, "sha256", FILE, lambda: place.work_again("two", "g"))
    assert place.repair() == {"files": 0, "units": 0, "checksums": 0, "taken_over": 0}
    assert happened
    assert place.is_sound()


def test_a_compaction_between_listing_and_reading_of_fragments(
    anywhere: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = anywhere
    place.ledger.requeue(TABLE, ITEMS, "test")
    place.work(compact=False)
    happened = meanwhile(
        place,
        monkeypatch,
        "list",
        f"{TABLE}/_fragments",
        lambda: place.lake.compact(TABLE, SHARD, ITEMS),
    )
    assert not any(place.repair().values())
    assert happened
    assert place.is_sound()


def test_an_attempt_that_publishes_and_ends_meanwhile(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened = meanwhile(place, monkeypatch, "sha256", FILE, lambda: begin(place)())
    assert not any(place.repair().values())
    assert happened
    end = begin(place, ITEMS[1])
    meanwhile(place, monkeypatch, "sha256", FILE, end)
    assert not any(place.repair().values())
    assert place.is_sound()


def test_a_unit_that_is_claimed_and_done_between_ledger_and_lake(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger was read before: what it said then is not what the lake holds."""
    real = place.ledger.entries
    claimed: list[int] = []

    def entries(**asked: Any) -> Any:
        answer = real(**asked)
        if not claimed and asked.get("stage") == TABLE:
            claimed.append(1)
            begin(place)()
        return answer

    monkeypatch.setattr(place.ledger, "entries", entries)
    assert not any(place.repair().values())
    assert claimed
    assert place.is_sound()


def test_a_rollback_meanwhile(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.work_again("two", "g")
    happened = meanwhile(
        place, monkeypatch, "sha256", FILE, lambda: rollback(place.lake, place.ledger, "r")
    )
    assert not any(place.repair().values())
    assert happened
    assert place.is_sound()
    assert {p.run_id for p in place.lake.provenances(TABLE, SHARD).values()} == {"r"}


def test_an_earlier_version_that_makes_room_meanwhile(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EGO_KEEP_VERSIONS", "1")
    place.work_again("two", "g")
    happened = meanwhile(
        place,
        monkeypatch,
        "list",
        f"{TABLE}/_history",
        lambda: place.work_again("three", "h"),
    )
    assert not any(place.repair().values())
    assert happened
    assert len(history.kept(place.lake, TABLE, SHARD)) == 1


def test_another_verify_that_repairs_meanwhile(
    anywhere: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = anywhere
    place.damage(FILE)
    other = Place(Lake(place.lake.location), Ledger(place.ledger.url))
    mended: list[dict[str, int]] = []
    meanwhile(place, monkeypatch, "sha256", FILE, lambda: mended.append(other.repair()))
    assert not any(place.repair().values())
    assert (mended[0]["files"], mended[0]["units"]) == (1, 4)
    assert place.work() == 4
    assert place.verify() == []


def test_a_shard_that_is_registered_meanwhile_is_no_stray(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = "20260102-0000"

    def register() -> None:
        place.lake.write_shard(new, {"files": []})
        rows = [r | {"shard": new} for r in rows_of("f" * 16)]
        place.ledger.expect(TABLE, new, [("f" * 16, "f" * 16)])
        attempt = place.ledger.start(TABLE, "f" * 16, fingerprint="f", worker="w", run_id="r")
        origin = replace(provenance("f"), token=attempt.token)
        place.lake.publish(TABLE, new, "f" * 16, TABLES[TABLE].from_rows(rows), origin)
        place.ledger.finish(TABLE, "f" * 16, attempt)
        place.lake.compact(TABLE, new, ["f" * 16])

    meanwhile(place, monkeypatch, "list", "shards", register)
    assert not any(place.repair().values())
    assert place.lake.read(TABLE, new).num_rows == 3


def test_repair_goes_by_what_is_true_then(place: Place) -> None:
    """The list may be hours old: what was made again since is left alone."""
    place.damage(FILE)
    told = audit.verify(place.lake, place.ledger)
    assert [p.kind for p in told] == ["damaged"]
    assert place.repair()["files"] == 1
    assert place.work() == 4
    assert not any(audit.repair(place.lake, place.ledger, told).values())
    assert place.verify() == []
    assert {e.state for e in place.ledger.entries()} == {State.DONE}


def test_of_a_damaged_file_only_the_rows_that_it_held_are_made_again(place: Place) -> None:
    place.ledger.requeue(TABLE, ITEMS[:1], "test")
    place.work(compact=False)
    place.damage(FILE)
    assert place.repair()["units"] == 3
    assert place.lake.read(TABLE, SHARD, items=ITEMS[:1]).num_rows == 3
    assert place.work() == 3
    assert place.verify() == []


def test_what_is_put_aside_twice_is_kept_twice(place: Place) -> None:
    for _ in range(2):
        place.damage(FILE)
        place.repair()
        place.work()
    assert len(place.lake.storage.list(f"_damaged/{TABLE}")) == 2


def test_a_lake_that_may_not_be_written_is_verified_all_the_same(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.damage(FILE)

    def refuse(name: str) -> Any:
        raise PermissionError(name)

    monkeypatch.setattr(place.lake.storage, "lock", refuse)
    assert [p.kind for p in audit.verify(place.lake, place.ledger)] == ["damaged"]
    with pytest.raises(PermissionError):
        place.repair()


def _work_on(location: str, url: str, number: int, over: multiprocessing.synchronize.Event) -> None:
    """Publish and compact until it is over, as runs one after another do."""
    place = Place(Lake(location), Ledger(url))
    dice = random.Random(number)
    while not over.is_set():
        place.work_again(f"run{number}", f"f{dice.random()}")


def _slow(place: Place, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Each file that is read takes a while."""
    storage = place.lake.storage
    for name in ("sha256", "read"):
        real = getattr(storage, name)

        def call(key: str, real: Callable[[str], Any] = real) -> Any:
            answer = real(key)
            time.sleep(seconds)
            return answer

        monkeypatch.setattr(storage, name, call)


def test_many_times_beside_runs_that_never_rest(anywhere: Place) -> None:
    place = anywhere
    context = multiprocessing.get_context("spawn")
    over = context.Event()
    worker = context.Process(target=_work_on, args=(place.lake.location, place.ledger.url, 1, over))
    worker.start()
    try:
        _wait_for_run(place, "run1")
        seen = set()
        with pytest.MonkeyPatch.context() as patch:
            _slow(place, patch, 0.02)
            for _ in range(6):
                assert not any(place.repair().values())
                seen.add(place.lake.storage.identity(FILE))
        assert len(seen) > 1, "nothing went on beside it"
    finally:
        over.set()
        worker.join(60)
    assert worker.exitcode == 0
    assert place.is_sound()
    place.damage(FILE)
    assert place.repair()["units"] == 4


def _wait_for_run(place: Place, run_id: str) -> None:
    deadline = time.monotonic() + 120
    while {e.run_id for e in place.ledger.entries()} != {run_id}:
        assert time.monotonic() < deadline
        time.sleep(0.05)
