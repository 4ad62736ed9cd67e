"""What can come of a link, in words that the table `links` shows.

Reasons are our own words and numbers: nothing that a server says is quoted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["pending", "done", "failed", "refused"]
"""Not tried yet; there; not to be had; not to be asked for, by a rule of ours."""


class LinkError(Exception):
    """A link was not fetched; the message says why.

    state: failed or refused. may_help: another try may help. after_s: not before so many seconds,
    as the server says. status: of the last answer. is_void: what came so far is of no use.
    """

    def __init__(
        self,
        reason: str,
        *,
        state: State = "failed",
        may_help: bool = False,
        after_s: float = 0.0,
        status: int | None = None,
        is_void: bool = False,
    ) -> None:
        super().__init__(reason)
        self.state = state
        self.may_help = may_help
        self.after_s = after_s
        self.status = status
        self.is_void = is_void


class RefusedError(LinkError):
    """A rule of ours forbids to ask for it."""

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason, state="refused", status=status)


class IngestError(RuntimeError):
    """Nothing can be fetched any more, whatever the link: the disk is full, say."""


@dataclass(frozen=True)
class Got:
    """What a try has brought into the file aside. license: as the page says; empty: it does not."""

    status: int | None
    license: str = ""
