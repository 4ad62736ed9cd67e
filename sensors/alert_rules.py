"""When people are told: signals in, notices out. No Dagster, no database, no clock.

A subject (a check, a job) has members that fail (shards). The first failure is told at once;
more of the same only counts, until the cool-down is over and one reminder says how many. When the
last failing member is well again, that is told once. What comes back within the cool-down waits
until it is over: a subject that flaps does not spam.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import IntEnum, StrEnum
from typing import Any


class Severity(IntEnum):
    WARNING = 1
    ERROR = 2


class Kind(StrEnum):
    RAISED = "raised"
    REMINDER = "reminder"
    RECOVERED = "recovered"


@dataclass(frozen=True)
class Signal:
    """What was seen of one member of a subject."""

    subject: str
    member: str
    ok: bool
    severity: Severity = Severity.ERROR
    detail: str = ""


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
    that it fails. news: whether something failed since.
    """

    subject: str
    failing: Mapping[str, Severity] = field(default_factory=dict)
    detail: str = ""
    told: Severity | None = None
    told_at: float | None = None
    news: bool = False

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
    states = dict(before)
    for signal in signals:
        known = states.get(signal.subject, Alert(signal.subject))
        states[signal.subject] = _take(known, signal)
    kept: list[Alert] = []
    notices: list[Notice] = []
    for subject, state in states.items():
        # What failed and recovered in between is no news: signals may be read twice.
        failed_before = before[subject].failing if subject in before else {}
        alert = replace(state, news=state.news or bool(set(state.failing) - set(failed_before)))
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
        failing.pop(signal.member, None)
        return replace(alert, failing=failing)
    failing[signal.member] = signal.severity
    return replace(alert, failing=failing, detail=signal.detail)


def _judge(alert: Alert, now: float, is_cool: bool) -> tuple[Alert, Kind | None]:
    if not alert.failing:
        over = replace(alert, told=None, news=False)
        return over, Kind.RECOVERED if alert.told is not None else None
    is_worse = alert.told is not None and alert.severity > alert.told
    if not is_worse and not (is_cool and (alert.told is None or alert.news)):
        return alert, None
    kind = Kind.RAISED if alert.told is None or is_worse else Kind.REMINDER
    return replace(alert, told=alert.severity, told_at=now, news=False), kind
