"""A stage whose ledger is a Postgres that goes away in mid-run: it waits, and goes on."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ego_assets.engine.runner import run_stage
from resources.ledger import Ledger, State
from tests.engine.stage_bench import SHARD, make_bench
from tests.resources.postgres import Postgres

pytestmark = [pytest.mark.slow, pytest.mark.chaos]


def test_postgres_restarts_in_mid_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = make_bench(tmp_path, {f"v{n}": 4 for n in range(4)})
    clips = [r["clip_id"] for r in bench.lake.read("clips", SHARD).to_pylist()]
    for clip in clips:
        bench.behave(clip, sleep_s=0.4, hang=100)
    with Postgres.started() as postgres:
        ledger = Ledger(postgres.new_database())
        reports = []
        spec = replace(bench.spec, ledger_url=ledger.url)
        run = threading.Thread(target=lambda: reports.append(run_stage(spec, workers=2)))
        run.start()
        for _ in range(3):
            done = ledger.counts().get("object_movements", {}).get(State.DONE, 0)
            while ledger.counts().get("object_movements", {}).get(State.DONE, 0) < done + 2:
                time.sleep(0.05)
            postgres.restart()
        run.join(120)
        assert [(r.done, r.failures, r.worker_deaths) for r in reports] == [(16, [], 0)]
        assert ledger.counts() == {"object_movements": {State.DONE: 16}}
    assert bench.lake.read("object_movements", SHARD).num_rows == 16
