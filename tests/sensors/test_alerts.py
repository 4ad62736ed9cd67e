"""A failing check is told once over every channel, its recovery once; no secret leaks."""

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.events import AssetMaterializationPlannedData, StepMaterializationData

from ego_assets.graph import checks as tables
from resources.alerts import Alerts
from resources.delivery import Channel, DeliveryError, Email, Slack, Webhook, send_in_time
from resources.ledger import Ledger
from resources.ledger.alerts import AlertStore
from resources.storage import Storage
from sensors import alerts as module
from sensors.alerts import GIVE_UP_S, alert_sensor, deliver
from tests.sensors.servers import Inbox, babbler, http_inbox, self_signed, smtp_inbox
from tests.support.instances import dagster_instance

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


def evaluate(
    instance: dg.DagsterInstance, run_id: str, metadata: dict[str, dg.MetadataValue]
) -> None:
    """The event of a check that fails."""
    found = dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey("poses"), check_name="soft", passed=False, metadata=metadata
    )
    event = dg.DagsterEvent("ASSET_CHECK_EVALUATION", breaks.name, event_specific_data=found)
    instance.report_dagster_event(event, run_id)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    healthy.clear()
    with dagster_instance(tmp_path) as made:
        yield made


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    with http_inbox() as made:
        yield made


def test_after_a_long_absence_the_ticks_go_on_and_miss_nothing(
    instance: dg.DagsterInstance, tmp_path: Path, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RUNS_A_TICK", 2)
    monkeypatch.setattr(module, "OVERLAP_S", 0.0)
    desk = Desk(instance, tmp_path, inbox)
    long = instance.create_run_for_job(breaks, status=dg.DagsterRunStatus.STARTED)
    evaluate(instance, long.run_id, {})
    for _ in range(3):
        breaks.execute_in_process(instance=instance, raise_on_error=False)
    instance.report_run_canceled(long)  # the last of four to change, with the first event of all
    desk.tick()
    assert [s for _, s in desk.told()] == ["job breaks"]
    ticks = 0
    while (desk.cursor or "").startswith("["):
        desk.tick()
        ticks += 1
    assert 1 < ticks < 5
    assert [s for _, s in desk.told()] == ["job breaks", "check soft of poses"]


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


def test_an_event_that_is_committed_late_is_not_missed(
    instance: dg.DagsterInstance, tmp_path: Path, inbox: Inbox
) -> None:
    desk = Desk(instance, tmp_path, inbox)
    desk.run("s1")
    desk.cursor = str(time.time())  # as if a tick had come before the event could be seen
    desk.tick()
    assert len(desk.told()) == 1


def test_checks_of_a_run_that_goes_on_are_told_at_once(instance: dg.DagsterInstance) -> None:
    run = instance.create_run_for_job(breaks, status=dg.DagsterRunStatus.STARTED)
    before = time.time()
    evaluate(instance, run.run_id, {})
    ((signal,), _) = module.signals(instance, module.Span(before, before))
    assert (signal.subject, signal.ok) == ("check soft of poses", False)


@pytest.mark.parametrize("are_told", [True, False])
def test_warnings_may_be_left_out(
    instance: dg.DagsterInstance, tmp_path: Path, inbox: Inbox, are_told: bool
) -> None:
    @dg.asset_check(asset=poses, name="soft")
    def soft() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.WARN)

    desk = Desk(instance, tmp_path, inbox, warnings=are_told)
    instance.add_dynamic_partitions("toy", ["s"])
    dg.materialize([poses, soft], partition_key="s", instance=instance)
    desk.tick()
    assert desk.told() == [("raised", "check soft of poses")] * are_told


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


BAD_URLS = [
    f"file:///{SECRET}",
    f"http://127.0.0.1:1/{SECRET}",
    SECRET,
    f"http://127.0.0.1:9/T0/ {SECRET}",
    f"http://user:{SECRET}@127.0.0.1:x/",
    f"http://[{SECRET}/",
]


@pytest.mark.parametrize("url", BAD_URLS)
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


NONSENSE = [b"garbage\r\n\r\n", b"HTTP/1.1 99999 OK\r\n\r\n", b""]


@pytest.mark.parametrize("answer", NONSENSE)
def test_a_server_that_speaks_no_http_did_not_take_the_message(answer: bytes) -> None:
    with babbler(answer) as server, pytest.raises(DeliveryError) as error:
        Webhook(f"http://127.0.0.1:{server.port}/{SECRET}").send([NOTICE])
    assert SECRET not in str(error.value)


def test_a_redirect_is_no_delivery() -> None:
    """urllib would follow it with a GET that has no body, to a page that says 200."""
    with http_inbox() as inbox:
        inbox.status, inbox.location = 302, "/login"
        with pytest.raises(DeliveryError, match="302"):
            Webhook(f"http://127.0.0.1:{inbox.port}/hook").send([NOTICE])


def test_one_channel_that_breaks_does_not_stop_the_others(tmp_path: Path) -> None:
    class Good:
        got = 0

        def send(self, notices: object) -> None:
            self.got += 1

    class Broken:
        def send(self, notices: object) -> None:
            raise KeyError(SECRET)

    store, good = AlertStore(Ledger.beside(tmp_path)), Good()
    channels: dict[str, Channel] = {"broken": Broken(), "good": good}
    store.save({}, [NOTICE], list(channels), 0.0)
    assert deliver(store, channels, 0.0) == (1, 1)
    assert good.got == 1
    assert deliver(store, channels, GIVE_UP_S + 1) == (0, 0)
    assert not store.due(1e12, 1)


def test_a_server_that_never_ends_its_answer_is_left_in_time() -> None:
    """Each read is in time, but all of them together would never be."""
    with babbler(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"a") as server:
        channel = Webhook(f"http://127.0.0.1:{server.port}/")
        with pytest.raises(DeliveryError, match="not done after"):
            send_in_time(channel, [NOTICE], 0.2)
        with pytest.raises(DeliveryError, match="still on its way"):
            send_in_time(channel, [NOTICE], 0.2)
        deadline = time.monotonic() + 60
        while not server.messages and time.monotonic() < deadline:
            time.sleep(0.02)
    assert len(server.messages) == 1


@pytest.mark.parametrize("gets_through", [True, False])
def test_what_got_through_late_is_not_told_again(*, gets_through: bool) -> None:
    class Slow:
        def __init__(self) -> None:
            self.calls, self.answers = 0, threading.Event()

        def send(self, notices: object) -> None:
            self.calls += 1
            self.answers.wait(60)
            if not gets_through and self.calls == 1:
                raise DeliveryError("no")

    channel = Slow()
    with pytest.raises(DeliveryError, match="not done after"):
        send_in_time(channel, [NOTICE], 0.05)
    channel.answers.set()
    for thread in threading.enumerate():
        if thread.name == "ego-alert":
            thread.join(60)
    send_in_time(channel, [NOTICE | {"failing": 2}])
    send_in_time(channel, [NOTICE])
    assert channel.calls == (2 if gets_through else 3)
    send_in_time(channel, [NOTICE])  # the next time it is another alert
    assert channel.calls == (3 if gets_through else 4)


def test_the_body_of_an_answer_is_not_awaited() -> None:
    with babbler(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n", b"a") as server:
        send_in_time(Webhook(f"http://127.0.0.1:{server.port}/"), [NOTICE])


def test_a_tick_does_not_deliver_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Good:
        def send(self, notices: object) -> None: ...

    monkeypatch.setattr(module, "DELIVERY_BUDGET_S", -1.0)
    store = AlertStore(Ledger.beside(tmp_path))
    store.save({}, [NOTICE], ["good"], 0.0)
    assert deliver(store, {"good": Good()}, 0.0) == (0, 0)
    assert len(store.due(1e12, 9)) == 1


def test_a_stranger_with_a_certificate_of_his_own_is_told_no_password(tmp_path: Path) -> None:
    pem = self_signed(tmp_path / "stranger.pem")
    refusal = pytest.raises(DeliveryError, match="SSLCertVerificationError")
    with smtp_inbox(pem) as mail, refusal:
        Email("localhost", mail.port, "e@l", ("a@b.c",), "user", SECRET).send([NOTICE])
    assert mail.logins == mail.messages == []


def test_a_private_mail_server_is_trusted_by_its_own_certificate(tmp_path: Path) -> None:
    pem = self_signed(tmp_path / "ours.pem")
    with smtp_inbox(pem) as mail:
        alerts = Alerts(
            smtp_host="localhost",
            smtp_port=mail.port,
            smtp_user="user",
            smtp_password=SECRET,
            smtp_ca_file=str(pem),
            email_to=["a@b.c"],
        )
        alerts.channels()["email"].send([NOTICE])
    assert mail.logins == [("user", SECRET)]
    assert len(mail.messages) == 1


def test_an_email_has_what_mail_servers_ask_for() -> None:
    with smtp_inbox() as mail:
        Email("127.0.0.1", mail.port, "Ego <ego@lab.example>", ("a@b.c",)).send([NOTICE])
    headers = mail.messages[0].split("\n\n")[0]
    assert "\nDate: " in headers
    assert "\nMessage-ID: <" in headers
    assert "@lab.example>" in headers.split("Message-ID: ")[1]


def test_one_refused_recipient_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    with smtp_inbox(refuses="gone") as mail:
        Email("127.0.0.1", mail.port, "e@l", ("a@b.c", "gone@b.c")).send([NOTICE])
    assert len(mail.messages) == 1
    assert "1 of 2 recipients were refused" in caplog.text


@pytest.mark.parametrize(("sender", "detail"), [("a@b.c\n", "x"), ("a@b.c", "/raw/\udcff.mp4")])
def test_what_no_email_can_hold_is_a_delivery_error(sender: str, detail: str) -> None:
    with smtp_inbox() as mail, pytest.raises(DeliveryError):
        Email("127.0.0.1", mail.port, sender, ("d@e.f",)).send([NOTICE | {"detail": detail}])


@dg.job
def meets_an_odd_name() -> None:
    @dg.op
    def reads() -> None:
        raise ValueError("cannot read /raw/\udcff.mp4")

    reads()


def test_a_file_name_that_is_not_utf8_is_told_all_the_same(
    instance: dg.DagsterInstance, tmp_path: Path, inbox: Inbox
) -> None:
    with smtp_inbox() as mail:
        more = {"smtp_host": "127.0.0.1", "smtp_port": mail.port, "email_to": ["a@b.c"]}
        desk = Desk(instance, tmp_path, inbox, **more)
        meets_an_odd_name.execute_in_process(instance=instance, raise_on_error=False)
        assert "3 messages delivered, 0 to be tried again" in desk.tick()
    assert "udcff.mp4" in inbox.messages[0]["notices"][0]["detail"]
    assert len(mail.messages) == 1


def test_slack_gets_all_of_many_notices() -> None:
    with http_inbox() as web:
        notices = [NOTICE | {"detail": f"number {i}"} for i in range(120)]
        Slack(f"http://127.0.0.1:{web.port}/").send(notices)
    sizes = [len(m["blocks"]) for m in web.messages]
    assert sizes == [50, 50, 20]
    assert "number 119" in web.messages[-1]["blocks"][-1]["text"]["text"]


@pytest.mark.parametrize("is_named", [True, False])
def test_a_check_over_all_shards_is_told_of_those_it_names(
    instance: dg.DagsterInstance, tmp_path: Path, inbox: Inbox, is_named: bool
) -> None:
    """A run without a partition fails; shard by shard it is well again."""

    @dg.asset_check(asset=poses, name="soft")
    def soft(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        records = [dg.TableRecord({"shard": s}) for s in ("s1", "s2")] if is_named else []
        schema = dg.TableSchema([dg.TableColumn("shard", "string")])
        table = dg.MetadataValue.table(records, schema)
        shard = context.run.tags.get("dagster/partition")
        return dg.AssetCheckResult(passed=shard in healthy, metadata={"rows": table})

    desk = Desk(instance, tmp_path, inbox)
    instance.add_dynamic_partitions("toy", ["s1", "s2"])
    job = dg.define_asset_job("checks", selection=dg.AssetSelection.checks(soft))
    defs = dg.Definitions([poses], asset_checks=[soft], jobs=[job])
    defs.resolve_job_def("checks").execute_in_process(instance=instance)
    desk.tick()
    assert inbox.messages[0]["notices"][0]["failing"] == (2 if is_named else 1)
    healthy.update({"s1", "s2"})
    kinds = []
    for shard in ("s1", "s2"):
        dg.materialize([poses, soft], partition_key=shard, instance=instance)
        desk.tick()
        kinds.append([kind for kind, subject in desk.told() if "soft" in subject])
    assert kinds[-1] == ["raised", "recovered"]
    assert kinds[0] == (["raised"] if is_named else ["raised", "recovered"])


def test_a_clip_that_a_probe_names_tells_its_shard(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    ledger = Ledger.beside(tmp_path)
    ledger.expect("poses", "s7", [("clip-0001", "clip")])
    schema = dg.TableSchema([dg.TableColumn("where", "string")])
    table = dg.MetadataValue.table([dg.TableRecord({"where": "clip-0001"})], schema)
    run = instance.create_run_for_job(breaks, tags=dict.fromkeys(module.RANGE_TAGS, "s7"))
    evaluate(instance, run.run_id, {"worst": table})
    ((signal,), _) = module.signals(instance, module.Span(0.0, 0.0), ledger)
    assert (signal.member, signal.ok) == ("s7", False)


def test_a_range_says_nothing_of_the_shards_that_it_lost(instance: dg.DagsterInstance) -> None:
    """Neither that a check is well there, nor that the others failed."""
    key, shards = dg.AssetKey("poses"), ["20260101-0000", "20260101-0001", "20260101-0002"]
    instance.add_dynamic_partitions("shards", shards)
    tags = dict(zip(module.RANGE_TAGS, (shards[0], shards[-1]), strict=True))
    run = instance.create_run_for_job(breaks, tags=tags)

    def report(kind: str, data: Any = None) -> None:
        event = dg.DagsterEvent(kind, breaks.name, event_specific_data=data, message="lost one")
        instance.report_dagster_event(event, run.run_id)

    planned = AssetMaterializationPlannedData(key)
    report("ASSET_MATERIALIZATION_PLANNED", planned)
    for shard in (shards[0], shards[2]):
        made = StepMaterializationData(dg.AssetMaterialization(key, partition=shard), [])
        report("ASSET_MATERIALIZATION", made)
    report("ASSET_CHECK_EVALUATION", dg.AssetCheckEvaluation(key, "soft", True, {}))
    instance.report_run_failed(run)
    found, _ = module.signals(instance, module.Span(0.0, 0.0))
    told = [(s.subject, s.member, s.ok) for s in found]
    assert told == [
        ("check soft of poses", shards[0], True),
        ("check soft of poses", shards[2], True),
        ("job breaks", shards[1], False),
    ]


def test_a_shard_that_was_deleted_fails_no_more(
    instance: dg.DagsterInstance, tmp_path: Path, inbox: Inbox
) -> None:
    shard = "20260101-0000"
    desk = Desk(instance, tmp_path, inbox)
    instance.add_dynamic_partitions("shards", [shard])
    desk.run(shard)
    desk.tick()
    desk.tick()
    assert [kind for kind, _ in desk.told()] == ["raised"]
    instance.delete_dynamic_partition("shards", shard)
    desk.tick()
    desk.tick()
    assert [kind for kind, _ in desk.told()] == ["raised", "recovered"]


def test_a_full_table_is_as_long_here_as_in_the_checks() -> None:
    """Sensors import no checks; but a table that is full does not name every shard."""
    assert module.LISTED == tables.LISTED
