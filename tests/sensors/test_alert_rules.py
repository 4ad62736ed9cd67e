"""One alert, one recovery, whatever the order and however often it is read."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensors.alert_rules import Alert, Kind, Notice, Severity, Signal, step

COOL_DOWN_S = 100.0


def fail(member: str = "s1", severity: Severity = Severity.ERROR, at: float = 0.0) -> Signal:
    return Signal("check", member, False, severity, "d", at)


def passed(member: str = "s1") -> Signal:
    return Signal("check", member, True)


def play(*ticks: tuple[float, list[Signal]]) -> list[tuple[float, Kind, int]]:
    told: list[tuple[float, Kind, int]] = []
    alerts: list[Alert] = []
    for now, signals in ticks:
        alerts, notices = step(alerts, signals, now, COOL_DOWN_S)
        alerts = [Alert.from_dict(json.loads(json.dumps(a.to_dict()))) for a in alerts]
        told += [(now, n.kind, n.failing) for n in notices]
    return told


def test_one_fault_in_many_shards_is_one_alert_and_one_recovery() -> None:
    shards = [f"s{n}" for n in range(50)]
    ticks = [(float(n), [fail(s)]) for n, s in enumerate(shards)]
    healed = [(60.0 + n / 10, [passed(s)]) for n, s in enumerate(shards)]
    told = play(*ticks, *healed)
    assert [kind for _, kind, _ in told] == [Kind.RAISED, Kind.RECOVERED]


def test_a_reminder_comes_after_the_cool_down_if_more_failed() -> None:
    told = play((0, [fail("a")]), (50, [fail("b")]), (99, []), (101, []), (300, []))
    assert told == [(0, Kind.RAISED, 1), (101, Kind.REMINDER, 2)]


def test_what_gets_worse_is_told_at_once() -> None:
    told = play((0, [fail("a", Severity.WARNING)]), (5, [fail("b", Severity.ERROR)]))
    assert [kind for _, kind, _ in told] == [Kind.RAISED, Kind.RAISED]


def test_what_flaps_is_told_once_a_cool_down() -> None:
    ticks = [(float(n), [fail() if n % 2 == 0 else passed()]) for n in range(90)]
    assert [kind for _, kind, _ in play(*ticks)] == [Kind.RAISED, Kind.RECOVERED]


def test_what_comes_back_and_stays_is_told_when_it_has_cooled_down() -> None:
    told = play((0, [fail()]), (10, [passed()]), (20, [fail()]), (50, []), (100, []))
    assert [kind for _, kind, _ in told] == [Kind.RAISED, Kind.RECOVERED, Kind.RAISED]


def test_what_fails_again_and_again_is_told_once_a_cool_down() -> None:
    """As nightly upkeep does. A signal is read twice, since ticks overlap."""
    ticks: list[tuple[float, list[Signal]]] = []
    for night in range(1, 4):
        failed = fail(at=night * 1000.0)
        ticks += [(failed.at + 1, [failed]), (failed.at + 31, [failed]), (failed.at + 900, [])]
    assert play(*ticks) == [
        (1001.0, Kind.RAISED, 1),
        (2001.0, Kind.REMINDER, 1),
        (3001.0, Kind.REMINDER, 1),
    ]


def test_a_clock_that_is_put_back_silences_nothing() -> None:
    told = play((5000, [fail("a", at=5000)]), (10, [fail("b", at=10)]), (10 + COOL_DOWN_S, []))
    assert [kind for _, kind, _ in told] == [Kind.RAISED, Kind.REMINDER]


@pytest.mark.parametrize(
    ("failed", "well", "is_over"),
    [
        (["all"], "s1", True),
        (["s1", "s2"], "all", True),
        (["s2...s4"], "s3", True),
        (["s2...s4"], "s5", False),
        (["s2", "s4"], "s2...s4", True),
        (["s1", "s4"], "s2...s4", False),
        (["s2...s4"], "s1...s9", True),
    ],
)
def test_members_that_stand_for_several(failed: list[str], well: str, is_over: bool) -> None:
    told = play((0, [fail(m) for m in failed]), (10, [passed(well)]))
    assert (told[-1][1] is Kind.RECOVERED) == is_over


signal_lists = st.lists(
    st.builds(
        Signal,
        st.sampled_from(["x", "y"]),
        st.sampled_from(["a", "b", "c"]),
        st.booleans(),
        st.sampled_from(list(Severity)),
    ),
    max_size=6,
)


@given(st.lists(st.tuples(st.floats(0, 60), signal_lists), max_size=25))
def test_what_people_were_told_is_true_in_the_end(
    plan: list[tuple[float, list[Signal]]],
) -> None:
    """Notices of a subject alternate, keep the cool-down, and end with how things are."""
    now, alerts, told, failing = 0.0, [], {}, {}  # type: ignore[var-annotated]
    raised_at: dict[str, float] = {}
    for wait_s, signals in [*plan, (COOL_DOWN_S, []), (COOL_DOWN_S, [])]:
        now += wait_s
        for s in signals:
            mine = failing.setdefault(s.subject, set())
            (mine.discard if s.ok else mine.add)(s.member)
        alerts, notices = step(alerts, signals, now, COOL_DOWN_S)
        again, nothing = step(alerts, signals, now, COOL_DOWN_S)
        assert nothing == []  # read twice, told once
        assert {a.subject: a.failing for a in again} == {a.subject: a.failing for a in alerts}
        for n in notices:
            check(n, told.get(n.subject), raised_at, now)
            told[n.subject] = n.kind
    for subject, members in failing.items():
        knows = told.get(subject) in {Kind.RAISED, Kind.REMINDER}
        assert knows == bool(members)


def check(notice: Notice, last: Kind | None, raised_at: dict[str, float], now: float) -> None:
    knows = last in {Kind.RAISED, Kind.REMINDER}
    if notice.kind is Kind.RECOVERED:
        assert knows
        return
    if notice.kind is Kind.REMINDER:
        assert knows
    is_worse = notice.kind is Kind.RAISED and knows
    if not is_worse and notice.subject in raised_at:
        assert now - raised_at[notice.subject] >= COOL_DOWN_S
    raised_at[notice.subject] = now
