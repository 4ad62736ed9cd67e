"""The graph in this process, on a temporary lake, with resources swapped: runs, subsets, reruns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq
import pytest
from dagster._core.definitions.data_version import (
    DATA_VERSION_TAG,
    CachingStaleStatusResolver,
    StaleStatus,
)
from dagster._core.loader import LoadingContextForTest

from dagster_project.definitions import build_defs
from ego_assets.catalog import STAGES, TABLES
from ego_assets.engine.choices import Choice, Choices
from ego_assets.graph.backends import Backends
from ego_assets.graph.partitions import SHARDS
from ego_assets.graph.recipes import Recipes
from ego_assets.graph.spec import RunConfig, choice_of, form_of
from ego_assets.intake.shards import find_files, register_files
from ego_assets.upkeep.staleness import find_stale
from resources.compute import Compute
from resources.lake import Lake
from resources.ledger import Ledger
from resources.storage import Storage
from tests.support.instances import dagster_instance
from tests.support.rendered import small_sample

pytestmark = pytest.mark.heavy


class Bench:
    """A lake with one shard of `files`, and the graph over it."""

    def __init__(self, folder: Path, files: list[Path], instance: dg.DagsterInstance) -> None:
        self.lake = Lake(folder / "lake")
        (self.shard,) = register_files(self.lake, find_files(files).files)
        self.instance = instance
        instance.add_dynamic_partitions(SHARDS, [self.shard])
        self.job = self.build()

    def build(self, **overrides: Any) -> dg.JobDefinition:
        resources = {
            "storage": Storage(lake_root=str(self.lake.root)),
            "compute": Compute(workers=2, backoff_s=0.01),
        }
        self.defs = build_defs(resources | overrides)
        return self.defs.resolve_job_def("whole_graph")

    def stale(self, backends: Backends) -> dict[str, int]:
        """What is found to be stale, by table."""
        recipes = Recipes(Storage(lake_root=str(self.lake.root)), backends)
        ledger = Ledger.beside(self.lake.root)
        (found,) = find_stale(self.lake, ledger, recipes.of, [self.shard])
        return dict(found.items)

    def lineage(self) -> Iterator[tuple[str, str, str]]:
        """(table, column, table that it is of), as the UI is told."""
        for table in TABLES:
            found = self.event(table).metadata["dagster/column_lineage"].value
            for column, origins in found.deps_by_column.items():
                for origin in origins:
                    assert origin.column_name == column
                    yield table, column, origin.asset_key.to_user_string()

    def unsynced(self) -> set[str]:
        """The tables whose partition the UI calls stale."""
        graph = self.defs.get_repository_def().asset_graph
        resolver = CachingStaleStatusResolver(
            self.instance, graph, LoadingContextForTest(self.instance)
        )
        states = {t: resolver.get_status(dg.AssetKey(t), self.shard) for t in TABLES}
        return {t for t, s in states.items() if s is not StaleStatus.FRESH}

    def run(self, *tables: str, **config: dict[str, Any]) -> dg.ExecuteInProcessResult:
        """config: of the ops, by name; `backends`: of the resource."""
        keys = [dg.AssetKey(t) for t in tables]
        given = {name: {"config": said} for name, said in config.items()}
        resources = {"backends": given.pop("backends")} if "backends" in given else {}
        return self.job.execute_in_process(
            run_config={"ops": given} | ({"resources": resources} if resources else {}),
            partition_key=self.shard,
            instance=self.instance,
            asset_selection=keys or None,
            raise_on_error=False,
        )

    def event(self, table: str) -> dg.AssetMaterialization:
        event = self.instance.get_latest_materialization_event(dg.AssetKey(table))
        assert event is not None
        assert event.asset_materialization is not None
        return event.asset_materialization

    def metadata(self, table: str) -> dict[str, Any]:
        return {k: v.value for k, v in self.event(table).metadata.items()}


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dagster_instance(tmp_path) as found:
        yield found


def test_the_whole_graph_then_nothing_to_do(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    video = small_sample(tmp_path / "raw")
    bench = Bench(tmp_path, [video], instance)
    assert bench.run().success
    before = {}
    for table in TABLES:
        files = list((bench.lake.root / table).glob("*.parquet"))
        assert [f.stem for f in files] == [bench.shard]
        before[table] = files[0].read_bytes()
        said = bench.metadata(table)
        assert said["done"] == 1
        assert said["picture"].startswith("![")
        assert len(said["picture"]) < 64_000
        (origin,) = json.loads(pq.read_schema(files[0]).metadata[b"ego.provenance"])
        assert {"run_id", "settings", "code_version", "weights_hash"} <= set(origin), sorted(origin)
    made = {t: bench.event(t).tags[DATA_VERSION_TAG] for t in TABLES}
    assert bench.run().success
    for table in TABLES:
        assert bench.metadata(table)["already done"] == 1
        assert bench.event(table).tags[DATA_VERSION_TAG] == made[table]
        assert (bench.lake.root / table / f"{bench.shard}.parquet").read_bytes() == before[table]
    for table, column, origin in bench.lineage():
        above = bench.lake.read(origin, bench.shard)[column]
        values = bench.lake.read(table, bench.shard)[column]
        assert set(values.to_pylist()) - {None} <= set(above.to_pylist()), (table, column)
    assert bench.stale(Backends()) == {}
    # Other settings of the hands concern what is made from hands, and nothing else.
    other = Backends(settings={"hand_estimator": {"side_px": 960}})
    assert bench.stale(other) == {"hand_poses": 1, "robot_mappings": 1}
    bench.job = bench.build(backends=other)
    assert bench.run("hand_poses").success
    assert bench.unsynced() == {"robot_mappings"}
    assert bench.run().success
    assert bench.stale(other) == {}
    assert bench.unsynced() == set()
    assert {t for t in TABLES if bench.metadata(t)["done"]} == {"robot_mappings"}


def test_what_is_chosen_for_a_shard_stays_until_a_run_chooses_otherwise(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    videos = [small_sample(tmp_path / "raw", seed) for seed in (5, 6)]
    bench = Bench(tmp_path, videos, instance)
    tables = ("video_manifest", "clips")

    def done(**said: Any) -> int:
        assert bench.run(*tables, clips=said).success
        assert bench.metadata("clips")["units"] == len(said.get("only", videos))
        return bench.metadata("clips")["done"]

    assert done(threshold=25.0, profile="wide-cuts") == 2
    assert bench.stale(Backends()) == {}
    one = bench.lake.read("video_manifest", bench.shard)["video_id"][0].as_py()
    assert done(only=[one], detector="adaptive") == 1
    assert done() == 0
    said = bench.metadata("clips")["profile"]
    assert "wide-cuts: " in said
    assert '"threshold": 25.0' in said
    assert '"detector": "adaptive"' in said
    rows = pq.read_schema(bench.lake.root / "clips" / f"{bench.shard}.parquet").metadata
    names = {origin["profile"] for origin in json.loads(rows[b"ego.provenance"])}
    unnamed = Choices(bench.lake).of("split", bench.shard)[1]
    assert names == {"wide-cuts", f"run-{unnamed.run_id[:8]}"}
    assert bench.stale(Backends()) == {}
    # As the UI fills its launchpad: with the defaults of everything.
    defaults = {name: getattr(Backends(), name) for name in Backends.model_fields}
    assert bench.run(
        *tables, clips=form_of(STAGES["clips"])().model_dump(), backends=defaults
    ).success
    assert bench.metadata("clips")["done"] == 0
    assert bench.stale(Backends()) == {}
    assert done(keep_choices=False) == 2
    assert "profile" not in bench.metadata("clips")
    assert Choices(bench.lake).of("split", bench.shard) == []


def test_what_a_run_says_of_a_stage() -> None:
    def said(
        config: RunConfig, backends: Backends | None = None, deployed: Any = None, **named: Any
    ) -> Choice | None:
        return choice_of(
            named, STAGES["hand_poses"], config, backends or Backends(), deployed or {}
        )

    form = form_of(STAGES["hand_poses"])
    plain = form()
    assert said(form(force=True)) is None
    assert said(form(side_px=1920)) == Choice({"side_px": 1920}), "also where it is the default"
    assert said(plain, Backends(segmenter="sam2"), segmenter="sam2") is None
    assert said(form(keep_choices=False)) == Choice()
    few = form(side_px=960, only=["c"])
    assert said(few) == Choice({"side_px": 960}, {}, ("c",))
    # What the deployment says is no choice, also where the launchpad repeats it.
    usual = {"hand_estimator": "hamer", "weights_dir": {"env": "W"}, "settings": {}}
    hamer = Backends(hand_estimator="hamer", weights_dir="/w")
    assert said(plain, hamer, usual, **usual) is None
    away = said(plain, Backends(), usual, **(usual | {"hand_estimator": ""}))
    assert away == Choice({}, {"hand_estimator": ""})
    other = Backends(
        hand_estimator="hamer", settings={"hand_estimator": {"checkpoint": "h"}, "segmenter": {}}
    )
    given = {"hand_estimator": "hamer", "settings": other.settings}
    chosen = {"hand_estimator": "hamer", "settings": {"hand_estimator": {"checkpoint": "h"}}}
    assert said(plain, other, **given) == Choice({}, chosen)
    kept = Backends(settings={"segmenter": {"checkpoint": "s"}}).with_choice(chosen)
    assert kept.hand_estimator == "hamer"
    assert kept.settings == {"segmenter": {"checkpoint": "s"}} | chosen["settings"]


def test_one_table_of_three_is_made_alone(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    video = small_sample(tmp_path / "raw")
    bench = Bench(tmp_path, [video], instance)
    assert bench.run("video_manifest", "clips", "hand_masks").success
    assert bench.lake.read("hand_masks", bench.shard).num_rows > 0
    assert bench.lake.read("object_masks", bench.shard).num_rows == 0
    # What comes later brings in the rest without doing the hands again.
    assert bench.run("object_masks", "detections").success
    assert bench.lake.read("detections", bench.shard).num_rows > 0


def test_every_odd_file_goes_through_the_whole_graph(
    tmp_path: Path, instance: dg.DagsterInstance, real_data: Path
) -> None:
    """Short or small ones; `test_odd_files` probes all of them."""
    names = (
        "all_black.mp4",
        "audio_only.mp4",
        "one_frame.mp4",
        "png_image_named.mp4",
        "random_bytes.mp4",
        "rotated_90_metadata.mp4",
        "text_named.mp4",
        "tiny_32x18.mp4",
        "truncated_no_moov.mp4",
        "zero_bytes.mp4",
    )
    bench = Bench(tmp_path, [real_data / "odd" / n for n in names], instance)
    assert bench.run().success
    rows = bench.lake.read("video_manifest", bench.shard).to_pylist()
    accepted = {Path(r["uri"]).name for r in rows if r["accepted"]}
    assert accepted == {
        "all_black.mp4",
        "one_frame.mp4",
        "rotated_90_metadata.mp4",
        "tiny_32x18.mp4",
    }
    assert all(r["reject_reason"] for r in rows if not r["accepted"])
    reconstructed = bench.lake.read("scene_reconstruction", bench.shard).to_pylist()
    assert all(r["invalid_reason"] for r in reconstructed if not r["is_valid"])
    assert bench.lake.read("clips", bench.shard).num_rows == 4


def test_what_failed_is_in_the_events_that_the_ui_shows(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    videos = [small_sample(tmp_path / "raw", seed) for seed in (5, 6)]
    bench = Bench(tmp_path, videos, instance)
    assert bench.run("video_manifest", "clips", "detections").success
    ledger = Ledger.beside(bench.lake.root)
    entry = ledger.entries(stage="detections")[0]
    attempt = ledger.start(
        "detections", entry.item_id, fingerprint=entry.fingerprint, worker="w", run_id="r"
    )
    ledger.fail(
        "detections", entry.item_id, attempt, error_class="E", error="planted", quarantine=True
    )
    result = bench.run("detections")
    assert result.success
    records = instance.get_records_for_run(
        result.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
    ).records
    found = [r.event_log_entry.dagster_event.asset_check_evaluation_data for r in records]  # type: ignore[union-attr]
    (coverage,) = (f for f in found if f.check_name == "covers_every_clip")
    assert not coverage.passed
    (row,) = coverage.metadata["not done"].records  # type: ignore[union-attr]
    assert row.data == {
        "shard": bench.shard,
        "unit": entry.item_id,
        "state": "quarantined",
        "reason": "planted",
    }
    (row,) = bench.event("detections").metadata["failed units"].records  # type: ignore[union-attr]
    assert row.data["reason"] == "planted"
