"""Decides whether a claim may be taken over: whether its owner is dead, or silent for too long.

No clock on the wall decides alone: one that is stepped, or wrong, would hand the items of live
workers to others. Here: the rule. Not here: who is gone (`resources.processes`), the measuring of
silence (`resources.processes.silence`), what a takeover is (`ledger`).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from enum import Enum

from resources.processes import is_gone
from resources.processes.silence import GRACE_S, WATCH_S, Silence

HEARTBEAT_LIMIT_S = 120.0
"""A claim whose heartbeat is older may be taken over, once it has been watched."""


class Verdict(Enum):
    """ALIVE: leave it to its owner. WATCH: look again soon. SILENT: it may be taken over."""

    ALIVE = "alive"
    WATCH = "watch"
    SILENT = "silent"


@dataclass(frozen=True)
class Takeover:
    """The rule, and what has been seen of the owners so far."""

    silence: Silence

    def judge(
        self, owner: str, claim: Hashable, beats: Mapping[Hashable, float], now: float
    ) -> Verdict:
        """Judge by the last heartbeat of each claim of the owner, and by the database's time.

        An owner that is surely gone is given a few beats' time: it might be one of a machine that
        is a copy of this one. Of any other both must hold: the claim's heartbeat is stale, and none
        came while we looked. If the clock says nothing, looking has to do.
        """
        # What one of its claims has shown of the owner need not be waited for again with another.
        watched_s = max(
            self.silence.of(owner, beats.items()),
            self.silence.of(claim, [beats[claim]]),
        )
        age_s = now - beats[claim]
        if is_gone(owner) and max(age_s, watched_s) >= GRACE_S:
            return Verdict.SILENT
        if watched_s >= HEARTBEAT_LIMIT_S:
            return Verdict.SILENT
        if age_s < HEARTBEAT_LIMIT_S:
            return Verdict.ALIVE
        return Verdict.SILENT if watched_s >= WATCH_S else Verdict.WATCH
