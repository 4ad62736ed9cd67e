"""A failing check is told once over every channel, its recovery once; no secret leaks."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from resources.alerts import Alerts
from resources.delivery import Channel, DeliveryError, Email, Slack, Webhook
from resources.ledger import Ledger
from resources.ledger.alerts import AlertStore
from resources.storage import Storage
from sensors import alerts as module
from sensors.alerts import GIVE_UP_S, alert_sensor, deliver
from tests.sensors.servers import Inbox, http_inbox, smtp_inbox

NOTICE: dict[str, Any] = {
    "kind": "raised",
    "subject": "check x of y",
    "severity": "error",
    "failing": 1,
    "text": "error: check <x> of y failing for 1",
    "detail": "one\ntwo & three",
}
SECRET = "planted-4711"  # pragma: allowlist secret

parts = dg.DynamicPartitionsDefinition(name="toy")
healthy: set[str] = set()


@dg.asset(partitions_def=parts)
def poses() -> None:
    pass


@dg.asset_check(asset=poses)
def joints_within_limits(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    shard = context.run.tags["dagster/partition"]
    return dg.AssetCheckResult(passed=shard in healthy, description="3 joints over the limit")


@dg.job
def breaks() -> None:
    @dg.op
    def bad() -> None:
        raise ValueError("no such weights")

    bad()


class Desk:
    """The sensor at work, and who is told."""

    def __init__(self, instance: dg.DagsterInstance, root: Path, inbox: Inbox, **more: Any):
        self.instance = instance
        self.inbox = inbox
        self.storage = Storage(lake_root=str(root / "lake"))
        self.alerts = Alerts(webhook_url=f"http://127.0.0.1:{inbox.port}/{SECRET}", **more)
        self.cursor: str | None = None
        self.tick()

    def tick(self) -> str:
        context = dg.build_sensor_context(
            self.instance,
            cursor=self.cursor,
            resources={"storage": self.storage, "alerts": self.alerts},
        )
        found = alert_sensor(context)
        assert isinstance(found, dg.SkipReason)
        self.cursor = context.cursor
        return str(found.skip_message)

    def run(self, shard: str) -> None:
        self.instance.add_dynamic_partitions("toy", [shard])
        dg.materialize(
            [poses, joints_within_limits],
            partition_key=shard,
            instance=self.instance,
            raise_on_error=False,
        )

    def told(self) -> list[tuple[str, str]]:
        return [(n["kind"], n["subject"]) for m in self.inbox.messages for n in m["notices"]]


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    healthy.clear()
    with dg.instance_for_test(temp_dir=str(tmp_path)) as made:
        yield made


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    with http_inbox() as made:
        yield made


def test_a_planted_fault_is_one_alert_and_one_recovery(
    instance: dg.DagsterInstance,
    tmp_path: Path,
    inbox: Inbox,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    desk = Desk(instance, tmp_path, inbox)
    subject = "check joints_within_limits of poses"
    for shard in ("s1", "s2"):
        desk.run(shard)
        desk.tick()
        desk.tick()
    assert desk.told() == [("raised", subject)]
    healthy.update({"s1", "s2"})
    desk.run("s1")
    desk.tick()
    assert len(desk.told()) == 1
    desk.run("s2")
    desk.tick()
    desk.tick()
    assert desk.told() == [("raised", subject), ("recovered", subject)]
    detail = inbox.messages[0]["notices"][0]["detail"]
    assert detail.startswith("3 joints over the limit (shard s1, run ")
    written = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert SECRET.encode() not in written
    assert SECRET not in caplog.text + "".join(capfd.readouterr())


def test_a_failed_run_names_its_step_and_cause(
    instance: dg.DagsterInstance, tmp_path: Path, inbox: Inbox
) -> None:
    desk = Desk(instance, tmp_path, inbox)
    breaks.execute_in_process(instance=instance, raise_on_error=False)
    desk.tick()
    ((kind, subject),) = desk.told()
    assert (kind, subject) == ("raised", "job breaks")
    assert "bad: ValueError: no such weights" in inbox.messages[0]["notices"][0]["detail"]


def test_a_server_that_is_down_holds_nothing_up_and_is_tried_again(
    instance: dg.DagsterInstance,
    tmp_path: Path,
    inbox: Inbox,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(module, "FIRST_WAIT_S", 0.0)
    desk = Desk(instance, tmp_path, inbox)
    inbox.status = 503
    desk.run("s1")
    assert "1 to be tried again" in desk.tick()
    assert "the server answered 503" in caplog.text
    assert SECRET not in caplog.text
    inbox.status = 200
    assert "1 messages delivered" in desk.tick()
    assert len(desk.told()) == 1
    assert "0 messages delivered" in desk.tick()


def test_warnings_may_be_left_out(
    instance: dg.DagsterInstance, tmp_path: Path, inbox: Inbox
) -> None:
    @dg.asset_check(asset=poses, name="soft")
    def soft() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.WARN)

    desk = Desk(instance, tmp_path, inbox, warnings=False)
    instance.add_dynamic_partitions("toy", ["s"])
    dg.materialize([poses, soft], partition_key="s", instance=instance)
    desk.tick()
    assert desk.told() == []


def test_each_channel_reaches_a_real_server() -> None:
    with http_inbox() as web, smtp_inbox() as mail:
        url = f"http://127.0.0.1:{web.port}/"
        Webhook(url).send([NOTICE])
        Slack(url).send([NOTICE, NOTICE])
        Email("127.0.0.1", mail.port, "ego@localhost", ("a@b.c", "d@e.f")).send([NOTICE])
    assert web.messages[0] == {"notices": [NOTICE]}
    assert web.messages[1]["text"] == "error: check &lt;x&gt; of y failing for 1, and 1 more"
    assert "two &amp; three" in web.messages[1]["blocks"][1]["text"]["text"]
    (text,) = mail.messages
    assert "Subject: error: check <x> of y failing for 1" in text
    assert "To: a@b.c, d@e.f" in text
    assert "two & three" in text


def test_a_password_is_not_sent_in_the_clear() -> None:
    with smtp_inbox() as mail:
        channel = Email("127.0.0.1", mail.port, "e@l", ("a@b.c",), "user", SECRET)
        assert SECRET not in repr(channel)
        with pytest.raises(DeliveryError, match="no encryption"):
            channel.send([NOTICE])
    assert mail.messages == []


@pytest.mark.parametrize("url", [f"file:///{SECRET}", f"http://127.0.0.1:1/{SECRET}", SECRET])
def test_an_address_that_does_not_work_is_not_repeated(url: str) -> None:
    with pytest.raises(DeliveryError) as error:
        Webhook(url).send([NOTICE])
    assert SECRET not in str(error.value)
    assert SECRET not in repr(Webhook(url)) + repr(Slack(url))


def test_what_never_gets_through_is_given_up(tmp_path: Path) -> None:
    class Deaf:
        calls = 0

        def send(self, notices: object) -> None:
            self.calls += 1
            raise DeliveryError("deaf")

    store, deaf = AlertStore(Ledger.beside(tmp_path)), Deaf()
    channels: dict[str, Channel] = {"deaf": deaf}
    for _ in range(3):
        store.save({}, [NOTICE], ["deaf"], 0.0)
    assert deliver(store, channels, 0.0) == (0, 3)
    assert deaf.calls == 1  # asked once a tick
    now, ticks = 0.0, 0
    while store.due(1e12, 1):
        now, ticks = now + 3600, ticks + 1
        deliver(store, channels, now)
        assert ticks < 200
    assert GIVE_UP_S < now < GIVE_UP_S + 4 * 3600
