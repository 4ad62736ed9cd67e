"""When people are told: signals in, notices out. No Dagster, no database, no clock.

A subject (a check, a job) has members that fail (shards). The first failure is told at once;
more of the same, or the same again, only counts, until the cool-down is over and one reminder says
how many. When the last failing member is well again, that is told once. What comes back within the
cool-down waits until it is over: a subject that flaps does not spam.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import IntEnum, StrEnum
from typing import Any

ALL = "all"
TO = "..."
"""Between the first and the last shard of a member that stands for several."""


class Severity(IntEnum):
    WARNING = 1
    ERROR = 2


class Kind(StrEnum):
    RAISED = "raised"
    REMINDER = "reminder"
    RECOVERED = "recovered"


@dataclass(frozen=True)
class Signal:
    """What was seen of one member of a subject. at: when, in seconds since 1970.

    A member is a shard, `first...last` for those in between, or ALL.
    """

    subject: str
    member: str
    ok: bool
    severity: Severity = Severity.ERROR
    detail: str = ""
    at: float = 0.0


@dataclass(frozen=True)
class Notice:
    """What people are told."""

    kind: Kind
    subject: str
    severity: Severity
    failing: int
    detail: str

    def __str__(self) -> str:
        if self.kind is Kind.RECOVERED:
            return f"recovered: {self.subject}"
        again = "still failing" if self.kind is Kind.REMINDER else "failing"
        return f"{self.severity.name.lower()}: {self.subject} {again} for {self.failing}"


@dataclass(frozen=True)
class Alert:
    """The state of a subject. failing: {member: how severely}.

    told: its severity as people know it, None if they know nothing. told_at: of the last notice
    that it fails. news: whether something failed since. seen_at: of the newest failure.
    """

    subject: str
    failing: Mapping[str, Severity] = field(default_factory=dict)
    detail: str = ""
    told: Severity | None = None
    told_at: float | None = None
    news: bool = False
    seen_at: float = 0.0

    @property
    def severity(self) -> Severity:
        return max(self.failing.values(), default=self.told or Severity.WARNING)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Alert:
        told = values["told"]
        changes: dict[str, Any] = {
            "failing": {m: Severity(s) for m, s in values["failing"].items()},
            "told": None if told is None else Severity(told),
        }
        return Alert(**(values | changes))


def step(
    alerts: Iterable[Alert], signals: Iterable[Signal], now: float, cool_down_s: float
) -> tuple[list[Alert], list[Notice]]:
    """Take the signals in, in their order: the alerts as they are now, and what is to be told.

    The same signals twice change nothing and tell nothing more. Alerts that are over and cooled
    down are left out.
    """
    before = {a.subject: a for a in alerts}
    # A clock may have been put back since.
    before = {
        k: replace(a, told_at=min(a.told_at, now)) if a.told_at else a for k, a in before.items()
    }
    states = dict(before)
    again: set[tuple[str, str]] = set()
    for signal in signals:
        known = states.get(signal.subject, Alert(signal.subject))
        states[signal.subject] = _take(known, signal)
        if (
            not signal.ok
            and signal.subject in before
            and signal.at > before[signal.subject].seen_at
        ):
            again.add((signal.subject, signal.member))
    kept: list[Alert] = []
    notices: list[Notice] = []
    for subject, state in states.items():
        # What failed and recovered in between is no news: signals may be read twice.
        failed_before = before[subject].failing if subject in before else {}
        fresh = {m for m in state.failing if m not in failed_before or (subject, m) in again}
        alert = replace(state, news=state.news or bool(fresh))
        is_cool = alert.told_at is None or now - alert.told_at >= cool_down_s
        after, kind = _judge(alert, now, is_cool)
        if kind is not None:
            count = len(alert.failing)
            notices.append(Notice(kind, alert.subject, alert.severity, count, alert.detail))
        if after.failing or not is_cool:
            kept.append(after)
    return kept, notices


def _take(alert: Alert, signal: Signal) -> Alert:
    failing = dict(alert.failing)
    if signal.ok:
        # Of several it may not be known which one failed: that one of them is well again is all
        # that will ever be heard of them.
        kept = {
            member: severity
            for member, severity in failing.items()
            if not (_covers(signal.member, member) or _covers(member, signal.member))
        }
        return replace(alert, failing=kept)
    failing[signal.member] = signal.severity
    seen_at = max(alert.seen_at, signal.at)
    return replace(alert, failing=failing, detail=signal.detail, seen_at=seen_at)


def _covers(member: str, other: str) -> bool:
    """Whether `other` is (among) what `member` stands for."""
    first, to, last = member.partition(TO)
    return member in {other, ALL} or bool(to and first <= other <= last)


def _judge(alert: Alert, now: float, is_cool: bool) -> tuple[Alert, Kind | None]:
    if not alert.failing:
        over = replace(alert, told=None, news=False)
        return over, Kind.RECOVERED if alert.told is not None else None
    is_worse = alert.told is not None and alert.severity > alert.told
    if not is_worse and not (is_cool and (alert.told is None or alert.news)):
        return alert, None
    kind = Kind.RAISED if alert.told is None or is_worse else Kind.REMINDER
    return replace(alert, told=alert.severity, told_at=now, news=False), kind
