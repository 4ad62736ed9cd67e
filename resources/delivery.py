"""Ways to people: a webhook, Slack's format, e-mail, the log. No Dagster.

Errors name no address and no secret: what a webhook's URL holds is a secret.
"""

from __future__ import annotations

import json
import logging
import smtplib
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any, Protocol
from urllib.error import HTTPError
from urllib.parse import urlsplit

TIMEOUT_S = 5.0
SLACK_TEXT = 2900
"""Characters that Slack takes in one block, less a margin."""
log = logging.getLogger("ego.alerts")


class DeliveryError(RuntimeError):
    """A message did not get through; the text may be logged."""


class Channel(Protocol):
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
        texts = [f"*{escape(n['text'])}*\n{escape(n['detail'])}"[:SLACK_TEXT] for n in notices]
        blocks = [{"type": "section", "text": {"type": "mrkdwn", "text": t}} for t in texts[:50]]
        post(self.url, {"text": escape(subject_of(notices)), "blocks": blocks})


@dataclass(frozen=True)
class Email:
    """A message over SMTP, encrypted where the server offers it, and always with a password."""

    host: str
    port: int
    sender: str
    to: tuple[str, ...]
    user: str = ""
    password: str = field(default="", repr=False)

    def send(self, notices: Sequence[Mapping[str, Any]]) -> None:
        message = EmailMessage()
        message["Subject"] = " ".join(subject_of(notices).split())
        message["From"] = self.sender
        message["To"] = ", ".join(self.to)
        message.set_content("\n\n".join(f"{n['text']}\n{n['detail']}" for n in notices))
        try:
            with smtplib.SMTP(self.host, self.port, timeout=TIMEOUT_S) as server:
                server.ehlo()
                if server.has_extn("starttls"):
                    server.starttls()
                    server.ehlo()
                elif self.password:
                    raise DeliveryError("the mail server offers no encryption for the password")
                if self.password:
                    server.login(self.user, self.password)
                server.send_message(message)
        except (OSError, smtplib.SMTPException) as error:
            code = getattr(error, "smtp_code", "")
            raise DeliveryError(f"e-mail: {type(error).__name__} {code}".strip()) from None


def post(url: str, content: Mapping[str, Any]) -> None:
    """POST JSON. Raises DeliveryError for what is no success."""
    if urlsplit(url).scheme not in {"http", "https"}:
        raise DeliveryError("the URL begins with neither https:// nor http://")
    body = json.dumps(content).encode()
    try:
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            answer.read()
    except HTTPError as error:
        raise DeliveryError(f"the server answered {error.code}") from None
    except (OSError, ValueError) as error:
        raise DeliveryError(f"no answer: {type(error).__name__}") from None


def subject_of(notices: Sequence[Mapping[str, Any]]) -> str:
    first = str(notices[0]["text"])
    return first if len(notices) == 1 else f"{first}, and {len(notices) - 1} more"


def escape(text: str) -> str:
    """For Slack, where these characters make links and mentions."""
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
