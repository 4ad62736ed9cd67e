"""Dagster resource for alerts: who is told, and when."""

from __future__ import annotations

from typing import Any

import dagster as dg
from pydantic import Field

from resources import environment
from resources.delivery import Channel, Email, Log, Slack, Webhook


class Alerts(dg.ConfigurableResource[Any]):
    """Channels of alerts; one without an address is off, the log is always on.

    Addresses with secrets are given as `EnvVar("NAME")`, so that no page and no log shows them.
    """

    webhook_url: str = Field(default="", description="empty: EGO_ALERT_WEBHOOK_URL")
    slack_url: str = Field(default="", description="empty: EGO_ALERT_SLACK_URL")
    smtp_host: str = Field(default="", description="empty: no e-mail")
    smtp_port: int = Field(default=587, description="465: TLS from the first byte")
    smtp_user: str = Field(default="")
    smtp_password: str = Field(default="", description="empty: EGO_ALERT_SMTP_PASSWORD")
    smtp_ca_file: str = Field(
        default="", description="PEM file that vouches for the mail server; empty: the system's"
    )
    email_from: str = Field(default="ego-assets@localhost")
    email_to: list[str] = Field(default=[])
    cool_down_s: float = Field(
        default=3600.0, ge=0, description="a subject that fails on is told again after so long"
    )
    warnings: bool = Field(default=True, description="false: only errors are told")

    def channels(self) -> dict[str, Channel]:
        """The channels that are on, by name."""
        found: dict[str, Channel] = {"log": Log()}
        if url := self.webhook_url or environment.alert_webhook_url():
            found["webhook"] = Webhook(url)
        if url := self.slack_url or environment.alert_slack_url():
            found["slack"] = Slack(url)
        if self.smtp_host and self.email_to:
            password = self.smtp_password or environment.alert_smtp_password()
            found["email"] = Email(
                self.smtp_host,
                self.smtp_port,
                self.email_from,
                tuple(self.email_to),
                self.smtp_user,
                password,
                self.smtp_ca_file,
            )
        return found
