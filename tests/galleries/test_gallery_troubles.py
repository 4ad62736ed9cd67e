"""What fails after a gallery is made is told with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from ego_assets.galleries.gallery import make_gallery
from ego_assets.galleries.page import with_later
from ego_assets.galleries.troubles import later_troubles
from ego_assets.quality.failed import note_failed
from resources.ledger import Ledger
from tests.resources.ports import free_port
from tests.viewing.shown_lake import SECOND, SHARD, VIDEO, ShownLake


def test_what_fails_later_is_put_into_the_page_once(tmp_path: Path) -> None:
    lake = ShownLake(tmp_path).lake
    ledger = Ledger.of(lake.location)
    ledger.open()

    def fail(table: str, item: str, why: str) -> None:
        ledger.expect(table, SHARD, [(item, VIDEO)])
        attempt = ledger.start(table, item, fingerprint="f", worker="w", run_id="r")
        ledger.fail(table, item, attempt, error_class="E", error=why, quarantine=True)

    fail("hand_poses", SECOND, "no hand")
    fail("gravity", SHARD, "no accelerometer")
    fail("telemetry", "v1", "no GPS")
    make_gallery(lake, ledger, SHARD, "none")
    page = (lake.root / "_galleries" / SHARD / "index.html").read_text()
    assert "ego status" in page
    assert with_later(page, later_troubles(lake, ledger, SHARD)).count("no accelerometer") == 1
    fail("episodes", SHARD, "a <b>rule</b>\nTraceback")
    fail("telemetry", "v2", "no GPS")
    fail("telemetry", "v3", "no G")
    failed = {"check": "footage_is_kept", "severity": "warn", "reason": "little is kept"}
    note_failed(lake, "footage", SHARD, [failed])
    shown = with_later(page, later_troubles(lake, ledger, SHARD))
    assert "ego status" not in shown
    general, cards = shown.split('class="cards"')
    assert '<li class="error">episodes in quarantine: a &lt;b&gt;rule&lt;/b&gt;</li>' in general
    assert '<li class="warn">check footage_is_kept of footage: little is kept</li>' in general
    assert cards == page.split('class="cards"')[1]
    assert shown.count("no accelerometer") == 1
    for video, why in (("v1", "no GPS"), ("v2", "no GPS"), ("v3", "no G")):
        assert general.count(f">{video}: telemetry in quarantine: {why}</li>") == 1
    assert [t.words for t in later_troubles(lake, ledger, "20260101-0009")] == []


def test_a_ledger_that_is_away_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = ShownLake(tmp_path).lake
    ledger = Ledger(f"postgresql://127.0.0.1:{free_port()}/ledger")

    def wait(seconds: float) -> None:
        raise TimeoutError

    monkeypatch.setattr("resources.ledger.database.time.sleep", wait)
    with pytest.raises(OperationalError):
        list(later_troubles(lake, ledger, SHARD))
    with pytest.raises(TimeoutError):
        ledger.entries()
