"""Ways to people: a webhook, Slack's format, e-mail, the log. No Dagster.

Errors name no address and no secret: what a webhook's URL holds is a secret.
"""

from __future__ import annotations

import json
import logging
import smtplib
import ssl
import threading
import urllib.request
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from http.client import HTTPException
from typing import Any, Protocol
from urllib.error import HTTPError
from urllib.parse import urlsplit

TIMEOUT_S = 5.0
"""Of each read and write."""
SEND_LIMIT_S = 10.0
"""Of a message as a whole."""
SLACK_TEXT = 2900
"""Characters that Slack takes in one block, less a margin."""
SLACK_BLOCKS = 50
"""Blocks that Slack takes in one message."""
SMTPS_PORT = 465
"""Where mail servers speak TLS from the first byte (RFC 8314)."""
log = logging.getLogger("ego.alerts")


class DeliveryError(RuntimeError):
    """A message did not get through; the text may be logged."""


class Channel(Hashable, Protocol):
    """One way to people. Each notice: kind, subject, severity, failing, text, detail."""

    def send(self, notices: Sequence[Mapping[str, Any]]) -> None:
        """Raises DeliveryError."""


@dataclass(frozen=True)
class Log:
    """The log of the process that delivers."""

    def send(self, notices: Sequence[Mapping[str, Any]]) -> None:
        for notice in notices:
            level = logging.INFO if notice["kind"] == "recovered" else logging.WARNING
            log.log(level, "%s: %s", notice["text"], notice["detail"])


@dataclass(frozen=True)
class Webhook:
    """A POST of {"notices": […]} as JSON."""

    url: str = field(repr=False)

    def send(self, notices: Sequence[Mapping[str, Any]]) -> None:
        post(self.url, {"notices": list(notices)})


@dataclass(frozen=True)
class Slack:
    """An incoming webhook of Slack, or of what understands its format."""

    url: str = field(repr=False)

    def send(self, notices: Sequence[Mapping[str, Any]]) -> None:
        for start in range(0, len(notices), SLACK_BLOCKS):
            page = notices[start : start + SLACK_BLOCKS]
            texts = [f"*{escape(n['text'])}*\n{escape(n['detail'])}"[:SLACK_TEXT] for n in page]
            blocks = [{"type": "section", "text": {"type": "mrkdwn", "text": t}} for t in texts]
            post(self.url, {"text": escape(subject_of(page)), "blocks": blocks})


@dataclass(frozen=True)
class Email:
    """A message over SMTP, encrypted where the server offers it, and always with a password.

    ca_file: PEM file of the authority that vouches for the server; empty: those of the system.
    """

    host: str
    port: int
    sender: str
    to: tuple[str, ...]
    user: str = ""
    password: str = field(default="", repr=False)
    ca_file: str = ""

    def send(self, notices: Sequence[Mapping[str, Any]]) -> None:
        try:
            message = self._message(notices)
            # Without a check of the certificate, a stranger in the middle is told the password.
            trusted = ssl.create_default_context(cafile=self.ca_file or None)
            with self._connect(trusted) as server:
                if self.password:
                    server.login(self.user, self.password)
                refused = server.send_message(message)
        except (OSError, ValueError, smtplib.SMTPException) as error:
            code = getattr(error, "smtp_code", "")
            raise DeliveryError(f"e-mail: {type(error).__name__} {code}".strip()) from None
        if refused:  # the others have it: sent again, they would have it twice
            log.warning("e-mail: %d of %d recipients were refused", len(refused), len(self.to))

    def _message(self, notices: Sequence[Mapping[str, Any]]) -> EmailMessage:
        """Raises ValueError for addresses and texts that no e-mail can hold."""
        message = EmailMessage()
        message["Subject"] = " ".join(subject_of(notices).split())
        message["From"] = self.sender
        message["To"] = ", ".join(self.to)
        message["Date"] = formatdate()
        message["Message-ID"] = make_msgid(domain=self.sender.rpartition("@")[2].strip(" >"))
        message.set_content("\n\n".join(f"{n['text']}\n{n['detail']}" for n in notices))
        return message

    def _connect(self, trusted: ssl.SSLContext) -> smtplib.SMTP:
        if self.port == SMTPS_PORT:
            return smtplib.SMTP_SSL(self.host, self.port, timeout=TIMEOUT_S, context=trusted)
        server = smtplib.SMTP(self.host, self.port, timeout=TIMEOUT_S)
        try:
            server.ehlo()
            if server.has_extn("starttls"):
                server.starttls(context=trusted)
                server.ehlo()
            elif self.password:
                raise DeliveryError("the mail server offers no encryption for the password")
        except BaseException:
            server.close()
            raise
        return server


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would be repeated as a GET without its body, and count as delivered."""

    def redirect_request(self, *_: Any) -> None:
        return None


def post(url: str, content: Mapping[str, Any]) -> None:
    """POST JSON. Raises DeliveryError for what is no success; a redirect is none."""
    body = json.dumps(content).encode()
    try:
        if urlsplit(url).scheme not in {"http", "https"}:
            raise DeliveryError("the URL begins with neither https:// nor http://")
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        opener = urllib.request.build_opener(_NoRedirect)
        opener.open(request, timeout=TIMEOUT_S).close()
    except HTTPError as error:
        error.close()
        raise DeliveryError(f"the server answered {error.code}") from None
    except (OSError, ValueError, HTTPException) as error:
        # Nothing of its text: that of a malformed URL repeats the URL.
        raise DeliveryError(f"no answer: {type(error).__name__}") from None


@dataclass
class _Sending:
    """A message on its way. failed: why it did not get through, if it has ended so."""

    text: str
    thread: threading.Thread
    failed: list[BaseException]


_under_way: dict[Channel, _Sending] = {}
_arrived_late: set[tuple[Channel, str]] = set()
"""Messages that got through after we had left them: they are not sent again."""


def send_in_time(
    channel: Channel, notices: Sequence[Mapping[str, Any]], limit_s: float = SEND_LIMIT_S
) -> None:
    """Send, and wait `limit_s` at most, however slowly a server speaks. Raises DeliveryError.

    What takes longer goes on by itself, and its channel takes nothing else until it has ended; if
    it got through, to send it once more does nothing. An error that no channel should raise becomes
    a DeliveryError, too, without its text.
    """
    if (before := _under_way.get(channel)) is not None:
        if before.thread.is_alive():
            raise DeliveryError("an earlier message is still on its way")
        del _under_way[channel]
        if not before.failed:
            _arrived_late.add((channel, before.text))
    text = json.dumps(list(notices), sort_keys=True, default=str)
    if (channel, text) in _arrived_late:
        _arrived_late.remove((channel, text))
        return
    failed: list[BaseException] = []

    def run() -> None:
        try:
            channel.send(notices)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="ego-alert", daemon=True)
    _under_way[channel] = _Sending(text, thread, failed)
    thread.start()
    thread.join(limit_s)
    if thread.is_alive():
        raise DeliveryError(f"not done after {limit_s:.0f} s")
    del _under_way[channel]
    for error in failed:
        if isinstance(error, DeliveryError):
            raise error
        raise DeliveryError(f"{type(error).__name__} in the channel") from None


def subject_of(notices: Sequence[Mapping[str, Any]]) -> str:
    first = str(notices[0]["text"])
    return first if len(notices) == 1 else f"{first}, and {len(notices) - 1} more"


def escape(text: str) -> str:
    """For Slack, where these characters make links and mentions."""
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
