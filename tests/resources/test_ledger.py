"""The ledger counts attempts before they start, lets one worker at an item, refuses late ones."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from resources.ledger import Attempt, BusyError, LateAttemptError, Ledger, State
from resources.ledger import attempts as attempts_module
from resources.ledger.activity import Activity
from resources.ledger.contents import Contents
from resources.ledger.raw_files import RawFiles, Seen
from resources.ledger.tables import VERSION, LedgerVersionError, metadata
from resources.ledger.takeover import HEARTBEAT_LIMIT_S, Takeover
from resources.processes.silence import GRACE_S, WATCH_S, Silence
from tests.resources.postgres import Postgres

SHARD = "20260101-0000"


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
    made.expect("clips", SHARD, [("u1", "v1"), ("u2", "v1")])
    return made


def start(ledger: Ledger, worker: str = "w", fingerprint: str = "f", item: str = "u1") -> Attempt:
    return ledger.start("clips", item, fingerprint=fingerprint, worker=worker, run_id="r")


def fail(ledger: Ledger, attempt: Attempt, *, quarantine: bool = False) -> None:
    ledger.fail("clips", "u1", attempt, error_class="E", error="why", quarantine=quarantine)


def state(ledger: Ledger) -> State:
    return ledger.entries(item_id="u1")[0].state


def let_heartbeats_age(ledger: Ledger, seconds: float = 1000) -> None:
    with sa.create_engine(ledger.url).begin() as connection:
        connection.execute(sa.text(f"UPDATE work SET heartbeat_at = heartbeat_at - {seconds}"))


@pytest.fixture(autouse=True)
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    """Who watches a claim looks at it every second, and that second does not take so long."""
    found = Looks()
    monkeypatch.setattr(attempts_module, "LOOK_S", 1.0)
    monkeypatch.setattr(attempts_module, "time", found)
    monkeypatch.setattr(Ledger, "_takeover", property(lambda ledger: found.takeover))
    return found


class Looks:
    """As the module `time`, with a clock that goes on in sleep only; looks: to be called then."""

    def __init__(self) -> None:
        self.now = 0.0
        self.looks: list[Callable[[], object]] = []
        self.takeover = Takeover(Silence(lambda: self.now))
        self.time = time.time

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for look in self.looks:
            look()


def test_an_attempt_is_on_disk_before_it_starts(ledger: Ledger) -> None:
    assert start(ledger).number == 1
    other = Ledger(ledger.url).entries(item_id="u1")[0]
    assert (other.state, other.attempts, other.worker) == (State.RUNNING, 1, "w")


def test_attempts_count_per_fingerprint_and_tokens_only_grow(ledger: Ledger) -> None:
    attempts = []
    for fingerprint in ("f", "f", "g"):
        attempts.append(start(ledger, fingerprint=fingerprint))
        fail(ledger, attempts[-1])
    assert [a.number for a in attempts] == [1, 2, 1]
    tokens = [a.token for a in attempts]
    assert tokens == sorted(set(tokens))
    assert tokens[0] >= (time.time() - 60) * 1000, "a lost ledger must not hand out old tokens"


def test_an_attempt_that_vanished_is_counted_apart(ledger: Ledger) -> None:
    """Whose whole run was killed need not be guilty."""
    start(ledger)
    second = start(ledger)
    assert (second.number, second.lost) == (1, 1)
    fail(ledger, second)
    third = start(ledger)
    assert (third.number, third.lost) == (2, 1)
    ledger.interrupt("clips", "u1", third)
    assert start(ledger).number == 2


def test_one_worker_at_a_time(ledger: Ledger) -> None:
    first = start(ledger, "one")
    with pytest.raises(BusyError, match="one"):
        start(ledger, "two")
    ledger.finish("clips", "u1", first)
    assert start(ledger, "two", fingerprint="g").number == 1


def test_what_somebody_did_since_one_looked_is_not_claimed(ledger: Ledger) -> None:
    seen = ledger.entries(item_id="u1")[0].token
    ledger.finish("clips", "u1", start(ledger, "other"))
    with pytest.raises(BusyError, match="by other meanwhile"):
        ledger.start("clips", "u1", fingerprint="f", worker="w", run_id="r", seen=seen)
    assert state(ledger) is State.DONE
    seen = ledger.entries(item_id="u1")[0].token
    again = ledger.start("clips", "u1", fingerprint="f", worker="w", run_id="r", seen=seen)
    assert again.token > seen


def test_what_was_at_work_when_one_looked_and_is_done_by_now_is_not_done_again(
    ledger: Ledger,
) -> None:
    other = start(ledger, "other")
    seen = ledger.entries(item_id="u1")[0].token
    ledger.finish("clips", "u1", other)
    claim = {"fingerprint": "f", "worker": "w", "run_id": "r", "seen": seen}
    with pytest.raises(BusyError, match="done by now"):
        ledger.start("clips", "u1", **claim, redo=False)
    assert state(ledger) is State.DONE
    assert ledger.start("clips", "u1", **claim, redo=True).token > seen


def test_an_old_heartbeat_is_taken_over_and_the_loser_is_fenced_off(ledger: Ledger) -> None:
    slow = start(ledger, "slow")
    assert ledger.beat("clips", "u1", slow.token)
    let_heartbeats_age(ledger)
    fast = start(ledger, "fast")
    assert fast.token > slow.token
    assert not ledger.beat("clips", "u1", slow.token)
    with pytest.raises(LateAttemptError):
        ledger.finish("clips", "u1", slow)
    with pytest.raises(LateAttemptError):
        fail(ledger, slow)
    ledger.interrupt("clips", "u1", slow)
    assert state(ledger) is State.RUNNING
    ledger.finish("clips", "u1", fast, "abc")
    assert (state(ledger), ledger.entries(item_id="u1")[0].digest) == (State.DONE, "abc")


def test_a_beat_keeps_the_claim(ledger: Ledger) -> None:
    first = start(ledger, "one")
    let_heartbeats_age(ledger)
    assert ledger.beat("clips", "u1", first.token)
    with pytest.raises(BusyError):
        start(ledger, "two")


@pytest.fixture
def child() -> Iterator[Child]:
    with Child() as started:
        yield started


class Child:
    """Another process, and its name."""

    def __enter__(self) -> Child:
        says = "import resources.processes as p; print(p.process_name(), flush=True); input()"
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [sys.executable, "-c", says], stdin=pipe, stdout=pipe, text=True
        )
        assert self.process.stdout is not None
        self.name = self.process.stdout.readline().strip()
        return self

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.process.communicate()


def test_the_claim_of_a_dead_process_of_this_machine_is_free_after_a_few_beats(
    ledger: Ledger, child: Child
) -> None:
    start(ledger, child.name)
    let_heartbeats_age(ledger, GRACE_S)
    with pytest.raises(BusyError):
        start(ledger, "two")
    child.kill()
    assert start(ledger, "two").lost == 1


def test_no_claim_with_a_fresh_heartbeat_is_taken_over(ledger: Ledger, child: Child) -> None:
    """Not even of a process that seems to be dead: this machine may have been copied."""
    start(ledger, child.name)
    child.kill()
    with pytest.raises(BusyError):
        start(ledger, "two")


def test_the_dead_of_this_machine_need_no_right_clock(
    ledger: Ledger, child: Child, looks: Looks
) -> None:
    start(ledger, child.name)
    let_heartbeats_age(ledger, -3600)  # the clock was put back
    child.kill()
    with pytest.raises(BusyError):
        start(ledger, "two")
    looks.sleep(GRACE_S)
    assert start(ledger, "two").lost == 1


def test_a_stepped_clock_frees_no_claim_of_a_live_worker(ledger: Ledger, looks: Looks) -> None:
    first = start(ledger, "one")
    let_heartbeats_age(ledger, 3600)  # as it looks once our clock is put forward
    looks.looks = [lambda: ledger.beat("clips", "u1", first.token)]
    with pytest.raises(BusyError):
        start(ledger, "two")
    assert looks.now == 1.0, "one beat is enough"


def test_a_clock_that_was_put_back_keeps_no_claim_for_ever(ledger: Ledger, looks: Looks) -> None:
    start(ledger, "one")
    let_heartbeats_age(ledger, -3600)
    with pytest.raises(BusyError):
        start(ledger, "two")
    looks.sleep(HEARTBEAT_LIMIT_S - 1)
    with pytest.raises(BusyError):
        start(ledger, "two")
    looks.sleep(1)
    assert start(ledger, "two").lost == 1


def test_who_was_watched_with_one_claim_need_not_be_with_the_next(
    ledger: Ledger, looks: Looks
) -> None:
    for item in ("u1", "u2"):
        start(ledger, "one", item=item)
    let_heartbeats_age(ledger)
    start(ledger, "two", item="u1")
    watched_s = looks.now
    assert watched_s >= WATCH_S
    start(ledger, "two", item="u2")
    assert looks.now == watched_s


def test_a_claim_that_is_left_alone_is_free_though_its_worker_lives(
    ledger: Ledger, looks: Looks
) -> None:
    """Its ledger was away when it gave the claim back."""
    start(ledger, "one", item="u1")
    let_heartbeats_age(ledger)
    second = start(ledger, "one", item="u2")
    looks.looks = [lambda: ledger.beat("clips", "u2", second.token)]
    assert start(ledger, "two", item="u1").lost == 1


def test_two_runs_of_one_process_leave_each_other_alone(ledger: Ledger) -> None:
    start(ledger, "w")
    with pytest.raises(BusyError):
        ledger.start("clips", "u1", fingerprint="f", worker="w", run_id="another")


def test_the_heartbeats_of_a_worker_are_one_transaction(ledger: Ledger) -> None:
    claims = {item: start(ledger, "one", item=item) for item in ("u1", "u2")}
    let_heartbeats_age(ledger)

    def ages() -> list[bool]:
        entries = Ledger(ledger.url).entries(stage="clips")
        return [time.time() - (e.heartbeat_at or 0) > 500 for e in entries]

    with pytest.raises(RuntimeError), ledger.joint_transaction(durable=False):
        assert all(ledger.beat("clips", item, a.token) for item, a in claims.items())
        raise RuntimeError("killed")
    assert ages() == [True, True]
    with ledger.joint_transaction(durable=False):
        assert ledger.beat("clips", "u1", claims["u1"].token)
        assert not ledger.beat("clips", "u2", claims["u2"].token - 1)
    assert ages() == [False, True]


def test_what_reads_together_sees_what_others_write(ledger: Ledger) -> None:
    other = Ledger(ledger.url)
    taken: list[object] = []
    sa.event.listen(ledger._engine(), "engine_connect", taken.append)

    def read() -> State:
        """Reading takes no further connection to a file."""
        taken.clear()
        found = state(ledger)
        assert ledger.is_postgres or not taken
        return found

    with ledger.joint_reading():
        assert read() is State.PENDING
        attempt = start(other)
        assert read() is State.RUNNING
        ledger.finish("clips", "u1", attempt)
        assert read() is state(other) is State.DONE


def test_a_worker_that_slept_was_not_lost(ledger: Ledger) -> None:
    slow = start(ledger, "slow")
    let_heartbeats_age(ledger)
    fast = start(ledger, "fast")
    assert fast.lost == 1
    ledger.was_alive("clips", "u1", slow.token)
    assert ledger.entries(item_id="u1")[0].lost == 0
    ledger.was_alive("clips", "u1", fast.token)
    assert ledger.entries(item_id="u1")[0].lost == 0


def test_done_is_done_once(ledger: Ledger) -> None:
    attempt = start(ledger)
    ledger.finish("clips", "u1", attempt)
    with pytest.raises(LateAttemptError):
        fail(ledger, attempt, quarantine=True)
    assert state(ledger) is State.DONE


def test_waiting_to_be_published_is_no_work(ledger: Ledger) -> None:
    ledger.finish("clips", "u1", start(ledger), idle_s=1000.0)
    entry = ledger.entries(item_id="u1")[0]
    assert entry.seconds is not None
    assert entry.started_at is not None
    assert entry.finished_at is not None
    assert entry.seconds == pytest.approx(entry.finished_at - entry.started_at - 1000, abs=1e-3)


def test_quarantine_and_release(ledger: Ledger) -> None:
    fail(ledger, start(ledger), quarantine=True)
    assert ledger.entries(item_id="u1")[0].error == "why"
    assert ledger.release(item_id="u1") == 1
    assert state(ledger) is State.PENDING
    assert start(ledger).number == 1


def test_what_is_lost_is_requeued(ledger: Ledger) -> None:
    ledger.finish("clips", "u1", start(ledger), "abc")
    assert ledger.requeue("clips", ["u1", "u2"], "its file is gone") == 1
    entry = ledger.entries(item_id="u1")[0]
    assert (entry.state, entry.error, entry.digest) == (State.PENDING, "its file is gone", None)


def test_a_block_leaves_a_running_unit_alone(ledger: Ledger) -> None:
    start(ledger)
    ledger.block("clips", "u1", "waits")
    assert state(ledger) is State.RUNNING


def test_a_unit_that_nobody_expects_is_an_error(ledger: Ledger) -> None:
    with pytest.raises(KeyError, match="u9"):
        start(ledger, item="u9")


def test_expect_keeps_what_is_known(ledger: Ledger) -> None:
    ledger.finish("clips", "u1", start(ledger))
    ledger.expect("clips", SHARD, [("u1", "v1"), ("u3", "v1")])
    assert state(ledger) is State.DONE
    assert ledger.counts() == {"clips": {State.DONE: 1, State.PENDING: 2}}


def test_a_place_is_what_its_name_says_in_capitals_and_all(ledger: Ledger) -> None:
    files = RawFiles(ledger)
    files.note([Seen("f", "/raw_1/a.mp4", 1, "1")], 0.0)
    assert files.waiting(not_under=["/RAW_1/", "/raw11/", "/raw"]) == []
    assert len(files.waiting(not_under=["/RAW_1/", "/raw11/"])) == 1


def test_errors_may_hold_any_bytes(ledger: Ledger) -> None:
    attempt = start(ledger)
    words = "its log: \0 and \udcff" + "x" * 9000
    ledger.fail("clips", "u1", attempt, error_class="E", error=words, quarantine=False)
    (entry,) = ledger.entries(item_id="u1")
    assert str(entry.error).startswith(r"its log: \x00 and \udcffxx")
    assert len(str(entry.error)) == 8000


def test_the_first_to_ask_owns_a_content(ledger: Ledger) -> None:
    contents = Contents(ledger)
    assert contents.claim("v", "/a.mp4", "s1", "fa") == ("/a.mp4", "s1")
    assert contents.claim("v", "/b.mp4", "s2", "fb") == ("/a.mp4", "s1")


def test_a_unit_is_of_the_shard_that_expects_it(ledger: Ledger) -> None:
    """Its video has another file now, in another shard: what was done for the first is no help."""
    ledger.finish("clips", "u1", start(ledger))
    ledger.expect("clips", "s2", [("u1", "v1")])
    assert state(ledger) is State.PENDING
    assert ledger.forget("clips", SHARD, []) == 1  # u2
    assert [(e.item_id, e.shard) for e in ledger.entries()] == [("u1", "s2")]


def test_a_duplicate_is_known_until_it_owns_the_content(ledger: Ledger) -> None:
    contents = Contents(ledger)
    contents.claim("v", "/a.mp4", "s1", "fa")
    contents.claim("v", "/b.mp4", "s2", "fb")
    ledger.expect("video_manifest", "s2", [("fb", None)])
    probed = ledger.start("video_manifest", "fb", fingerprint="f", worker="w", run_id="r")
    ledger.finish("video_manifest", "fb", probed)
    assert contents.duplicates_without_owner("video_manifest", 9) == []
    assert contents.disown("/a.mp4") == ["v"]
    (heir,) = contents.duplicates_without_owner("video_manifest", 9)
    assert (heir.file_id, heir.shard) == ("fb", "s2")
    assert contents.owner("v") is None
    contents.claim("v", "/b.mp4", "s2", "fb")
    assert contents.owner("v") == ("/b.mp4", "s2")
    assert contents.disown("/b.mp4") == ["v"]
    assert contents.duplicates_without_owner("video_manifest", 9) == []


def _race(url: str, name: str, items: int, won: multiprocessing.Queue) -> None:
    ledger = Ledger(url)
    for number in range(items):
        try:
            attempt = ledger.start("race", f"u{number}", fingerprint="f", worker=name, run_id="r")
        except BusyError:
            continue
        won.put((number, attempt.token))


def test_of_many_that_claim_at_once_one_wins(ledger: Ledger) -> None:
    """Every worker tries every item; names are of other hosts, so nobody looks gone."""
    items = 25
    ledger.expect("race", SHARD, [(f"u{n}", None) for n in range(items)])
    context = multiprocessing.get_context("spawn")
    won = context.Queue()
    workers = [
        context.Process(target=_race, args=(ledger.url, f"host{n}:1:1", items, won))
        for n in range(4)
    ]
    for worker in workers:
        worker.start()
    claims = [won.get(timeout=120) for _ in range(items)]
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    assert won.empty()
    assert sorted(n for n, _ in claims) == list(range(items))


def test_a_ledger_without_migrations_is_taken_over(tmp_path: Path) -> None:
    """What 0.1.0 made with `create_all`: states are kept, claims are added."""
    ledger = Ledger.beside(tmp_path)
    ledger.expect("clips", SHARD, [("u1", "v1")])
    ledger.finish("clips", "u1", start(ledger))
    with sa.create_engine(ledger.url).begin() as connection:
        connection.execute(sa.text("DROP TABLE alembic_version"))
        newer = ("raw_files", "run_requests", "alerts", "alert_outbox", "duplicates", "raw_news")
        newer += ("sources",)
        for table in newer:
            connection.execute(sa.text(f"DROP TABLE {table}"))
        for index in ("work_by_state", "videos_by_uri"):
            connection.execute(sa.text(f"DROP INDEX {index}"))
        for column in ("lost", "token", "heartbeat_at", "digest"):
            connection.execute(sa.text(f"ALTER TABLE work DROP COLUMN {column}"))
    again = Ledger(ledger.url)
    assert state(again) is State.DONE
    assert again.entries(item_id="u1")[0].token == 0
    assert start(again).token > 0


def test_the_migrations_make_the_tables_that_the_code_knows(ledger: Ledger) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with sa.create_engine(ledger.url).connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, metadata) == []


def test_what_is_dropped_is_tried_no_more_until_it_is_named(ledger: Ledger) -> None:
    ledger.expect("clips", SHARD, [("u1", "v1"), ("u2", "v1")])
    assert ledger.drop() == 0  # nothing is in quarantine
    attempt = start(ledger)
    ledger.fail("clips", "u1", attempt, error_class="E", error="e", quarantine=True)
    assert ledger.drop(item_id="u1") == 1
    assert state(ledger) is State.DROPPED
    with pytest.raises(BusyError, match="was dropped"):
        start(ledger)
    ledger.drop_after("clips", "u2", "video_manifest")
    assert ledger.counts() == {"clips": {State.DROPPED: 2}}
    assert ledger.release(stage="clips") == 0
    assert ledger.release(item_id="u1") == 1
    assert start(ledger).number == 1


def test_a_number_of_news_never_comes_again(ledger: Ledger) -> None:
    files = RawFiles(ledger)
    for _ in range(2):
        files.note([Seen("f", "/a.mp4", 0, "a link out", waits=False)], 0.0)
        (news,) = files.news(9)
        files.told(news.id)
        files.told(news.id)
        files.forget(["f"])
    assert (news.id, files.news(9)) == (2, [])


def test_a_ledger_of_a_newer_release_is_refused(ledger: Ledger) -> None:
    with sa.create_engine(ledger.url).begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(LedgerVersionError, match=f"9999.*{VERSION}"):
        Ledger(ledger.url).counts()


def test_another_database_is_refused_with_a_hint() -> None:
    with pytest.raises(ValueError, match="postgresql"):
        Ledger("mysql://h/d").counts()


@pytest.mark.slow
def test_postgres_may_restart_in_mid_run(postgres: Postgres) -> None:
    ledger = Ledger(postgres.new_database())
    ledger.expect("clips", SHARD, [("u1", "v1")])
    attempt = start(ledger)
    postgres.restart()
    assert ledger.beat("clips", "u1", attempt.token)
    ledger.finish("clips", "u1", attempt)
    assert state(ledger) is State.DONE


def test_what_was_done_in_a_span_is_counted(ledger: Ledger) -> None:
    began = time.time() - 60
    ledger.finish("clips", "u1", start(ledger))
    attempt = start(ledger, item="u2")
    error = "first line\nsecond line"
    ledger.fail("clips", "u2", attempt, error_class="Bad", error=error, quarantine=True)
    now = Activity(ledger, began, time.time() + 60)
    (stage,) = now.stages()
    assert (stage.stage, stage.done, stage.failed, stage.quarantined) == ("clips", 1, 0, 1)
    assert 0 <= stage.seconds == pytest.approx(stage.slowest_s)
    (reason,) = now.reasons(5)
    assert (reason.error_class, reason.items, reason.example) == ("Bad", 1, "first line")
    (hour,) = now.done_by_hour()["clips"]
    finished = ledger.entries(item_id="u1")[0].finished_at
    assert finished is not None
    assert hour == finished // 3600
    assert [u.item_id for u in now.slowest(5)] == ["u1"]
    assert list(now.shards("clips")) == [SHARD]
    before = Activity(ledger, began - 60, began)
    assert before.stages() == before.reasons(5) == before.slowest(5) == []
    # Late in an hour is still of that hour.
    with sa.create_engine(ledger.url).begin() as connection:
        connection.execute(sa.text("UPDATE work SET finished_at = 3600 * 10 + 3599"))
    assert Activity(ledger, 0, began).done_by_hour() == {"clips": {10: 1}}


def test_threads_make_ledgers_at_the_same_time(tmp_path: Path) -> None:
    """Alembic has one environment for a process: without care, one takes it from the other."""
    with ThreadPoolExecutor(8) as pool:
        ledgers = [Ledger(f"sqlite:///{tmp_path}/{number}.sqlite") for number in range(8)]
        list(pool.map(Ledger.open, ledgers))
    assert all(ledger.entries() == [] for ledger in ledgers)
