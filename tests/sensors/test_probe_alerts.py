"""A model that breaks, from the rows it makes to the people who are told: once, and once when it is
well again."""

from __future__ import annotations

from pathlib import Path

import dagster as dg

from benchmarks.planted_faults import FAULTS, Shard, planted, render_good_shard
from ego_assets.graph.checks import TABLE_CHECKS
from ego_assets.graph.partitions import SHARDS as PARTITIONS
from resources.ledger import Ledger
from resources.storage import Storage
from tests.quality.test_quality_checks import SHARDS, lake_with, put
from tests.sensors.servers import http_inbox
from tests.sensors.test_alerts import Desk
from tests.support.instances import dagster_instance

TABLE = "robot_mappings"
FAULT = "a solver that fails"
SUBJECT = f"check solver_finds_a_solution of {TABLE}"


def make_done(ledger: Ledger, shard: str) -> None:
    ledger.expect(TABLE, shard, [(shard, None)])
    attempt = ledger.start(TABLE, shard, fingerprint="f", worker="w", run_id="r")
    ledger.finish(TABLE, shard, attempt)


def test_a_planted_model_fault_is_one_alert_and_one_recovery(tmp_path: Path) -> None:
    good, _ = render_good_shard(tmp_path / "raw", seed=6)
    (fault,) = [f for f in FAULTS if f.name == FAULT]
    bad = planted(good, fault, seed=1)
    lake = lake_with(tmp_path / "lake", good)
    for shard in SHARDS:  # as a check knows it, a shard that is registered can still fail
        lake.write_shard(shard, {"files": []})
    job = dg.define_asset_job(
        "checks", selection=dg.AssetSelection.checks_for_assets(dg.AssetKey(TABLE))
    )
    storage = Storage(lake_root=str(lake.root))
    resources = {"storage": storage}
    asked = [c for c in TABLE_CHECKS if dg.AssetKey(TABLE) in {k.asset_key for k in c.check_keys}]
    defs = dg.Definitions(
        [dg.AssetSpec(TABLE)], asset_checks=asked, jobs=[job], resources=resources
    )
    with dagster_instance(tmp_path) as instance, http_inbox() as inbox:
        instance.add_dynamic_partitions(PARTITIONS, SHARDS)
        desk = Desk(instance, tmp_path, inbox)

        def look(shard: str, rows: Shard, token: int) -> list[tuple[str, str]]:
            put(lake, rows, shard, token)
            make_done(storage.ledger(), shard)
            done = defs.resolve_job_def("checks").execute_in_process(
                instance=instance, tags={"dagster/partition": shard}
            )
            assert done.success
            desk.tick()
            desk.tick()
            return desk.told()

        assert look(SHARDS[0], good, 1) == []
        raised = [("raised", SUBJECT)]
        assert look(SHARDS[1], bad, 1) == raised
        assert look(SHARDS[2], bad, 1) == raised
        assert look(SHARDS[1], good, 2) == raised
        assert look(SHARDS[2], good, 2) == [*raised, ("recovered", SUBJECT)]
