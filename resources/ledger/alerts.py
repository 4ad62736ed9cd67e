"""Alerts in the ledger's database: their states, and the messages that are still to be delivered.

States and messages change in one transaction, so that a crash neither loses nor repeats a notice;
a message is delivered at least once. Not here: when something is told (`sensors.alert_rules`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from resources.ledger.database import Database, patient
from resources.ledger.tables import alert_outbox as _outbox
from resources.ledger.tables import alerts as _alerts


@dataclass(frozen=True)
class Message:
    """Notices on their way over one channel."""

    id: int
    channel: str
    notices: list[dict[str, Any]]
    created_at: float
    attempts: int


class AlertStore:
    """The alerts in a ledger's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @patient
    def states(self) -> list[dict[str, Any]]:
        with self._database.reading() as connection:
            found = connection.execute(sa.select(_alerts.c.state).order_by(_alerts.c.key))
            return [json.loads(state) for state in found.scalars()]

    @patient
    def save(
        self,
        states: Mapping[str, Mapping[str, Any]],
        notices: Sequence[Mapping[str, Any]],
        channels: Sequence[str],
        now: float,
    ) -> None:
        """The states as they are now, and a message a channel if there is anything to tell."""
        with self._database.transaction() as connection:
            connection.execute(_alerts.delete())
            if states:
                rows = [{"key": k, "state": json.dumps(s)} for k, s in states.items()]
                connection.execute(_alerts.insert(), rows)
            if notices and channels:
                message = {"notices": json.dumps(list(notices)), "created_at": now}
                message |= {"attempts": 0, "due_at": now}
                connection.execute(_outbox.insert(), [message | {"channel": c} for c in channels])

    @patient
    def due(self, now: float, limit: int) -> list[Message]:
        """Messages to be tried now, the oldest first."""
        query = sa.select(_outbox).where(_outbox.c.due_at <= now).order_by(_outbox.c.id)
        with self._database.reading() as connection:
            return [
                Message(r.id, r.channel, json.loads(r.notices), r.created_at, r.attempts)
                for r in connection.execute(query.limit(limit))
            ]

    @patient
    def delivered(self, message: Message) -> None:
        """It needs no more tries: it got through, or was given up."""
        with self._database.transaction() as connection:
            connection.execute(_outbox.delete().where(_outbox.c.id == message.id))

    @patient
    def postpone(self, message: Message, due_at: float) -> None:
        with self._database.transaction() as connection:
            connection.execute(
                _outbox.update()
                .where(_outbox.c.id == message.id)
                .values(attempts=message.attempts + 1, due_at=due_at)
            )
