"""A table, an operator, a backend and a probe of other packages run end to end, with no edit
anywhere else: the examples of CONTRIBUTING.md."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from installed import ROOT, ego, ego_each, install, python

import ego_assets.catalog  # noqa: F401  (registers the tables)
from resources.lake import Lake
from tests.support.rendered import small_sample

DEFINITIONS = """
import json
from dagster_project.definitions import build_defs
from dagster import AssetKey
defs = build_defs()
graph = defs.resolve_asset_graph()
job = defs.resolve_job_def("whole_graph")
types = {n.name: n.definition.config_schema.as_field().config_type for n in job.nodes}
forms = {name: list(getattr(each, "fields", ())) for name, each in types.items()}
print(json.dumps({
    "groups": {k.to_user_string(): graph.get(k).group_name for k in graph.get_all_asset_keys()},
    "partitioned": {k.to_user_string(): graph.get(k).partitions_def is not None
                    for k in graph.get_all_asset_keys()},
    "deps": sorted(k.to_user_string() for k in graph.get(AskKey).parent_keys),
    "columns": [c.name for c in graph.get(AskKey).metadata["dagster/column_schema"].columns],
    "lineage": sorted(graph.get(AskKey).metadata["dagster/column_lineage"].deps_by_column),
    "code_version": graph.get(AskKey).code_version,
    "checks": sorted(k.name for k in graph.asset_check_keys if k.asset_key == AskKey),
    "checks_of_clips": sorted(k.name for k in graph.asset_check_keys
                              if k.asset_key == AssetKey("clips")),
    "forms": forms,
    "jobs": [j.name for j in defs.resolve_all_job_defs()],
    "backends": list(defs.resources["backends"].configurable_resource_cls.model_fields)
        if hasattr(defs.resources["backends"], "configurable_resource_cls")
        else list(type(defs.resources["backends"]).model_fields),
}))
""".replace("AskKey", 'AssetKey("clip_sharpness")')
MATERIALIZE_AND_LOOK = """
import json, sys
import dagster as dg
from dagster_project.definitions import build_defs
from dagster_project.home import open_instance
from resources.storage import Storage
job = build_defs({"storage": Storage(lake_root=sys.argv[1])}).resolve_job_def("lake_tables")

def look(name):
    event = instance.get_latest_materialization_event(dg.AssetKey(name))
    metadata = event.asset_materialization.metadata
    records = instance.get_event_records(
        dg.EventRecordsFilter(dg.DagsterEventType.ASSET_CHECK_EVALUATION))
    checks = [r.event_log_entry.dagster_event.asset_check_evaluation_data for r in records]
    return {
        "picture": str(metadata["picture"].value)[:200] if "picture" in metadata else None,
        "backend": metadata["backend"].value,
        "rows": metadata["dagster/row_count"].value,
        "checks": {c.check_name: c.passed for c in checks if c.asset_key == dg.AssetKey(name)},
    }

with open_instance(sys.argv[1]) as instance:
    assert job.execute_in_process(instance=instance).success
    found = {name: look(name) for name in ("clip_sharpness", "lake_footage")}
print(json.dumps(found))
"""


@dataclass
class Made:
    """events: of Dagster's, by asset; said: by what a command was asked, in processes of their own
    that have the packages."""

    environment: dict[str, str]
    lake: Path
    summary: dict[str, Any]
    events: dict[str, Any]
    said: dict[str, str]

    def rows(self, table: str) -> list[dict[str, Any]]:
        found = self.said[table]
        return (
            [json.loads(line) for line in found.splitlines()]
            if found[0] == "{"
            else (json.loads(found))
        )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("added")
    examples = ("add_a_table", "add_an_operator", "add_a_backend", "add_a_probe")
    environment = install(folder / "packages", *examples)
    environment |= {"EGO_BACKENDS": str(folder / "backends.yaml")}
    (folder / "backends.yaml").write_text("hand_estimator: fast_hands\n")
    video = small_sample(folder / "raw")
    lake = folder / "lake"
    summary = json.loads(ego(environment, "run", video, "--lake", lake, "--json"))
    (clip,) = Lake(lake).read("clips", summary["shards"][0])["clip_id"].to_pylist()
    events = json.loads(python(environment, MATERIALIZE_AND_LOOK, lake))
    fewer = folder / "fewer.yaml"
    fewer.write_text("hand_estimator: fast_hands\nsettings: {sharpness_meter: {frames: 2}}\n")
    asked: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
        table: ({}, ("sql", f"SELECT * FROM {table}", "--json"))
        for table in ("clip_sharpness", "shard_footage", "lake_footage", "hand_poses")
    }
    asked |= {name: ({}, (name, "--json")) for name in ("status", "stale", "doctor")}
    asked |= {"trace": ({}, ("trace", clip, "--json")), "verify": ({}, ("verify",))}
    asked["stale with other settings"] = ({"EGO_BACKENDS": str(fewer)}, ("stale", "--json"))
    asked["stale by default"] = ({"EGO_BACKENDS": ""}, ("stale", "--json"))
    each = ((more, (*words, "--lake", lake)) for more, words in asked.values())
    said = dict(zip(asked, ego_each(environment, *each), strict=True))
    return Made(environment, lake, summary, events, said)


def test_a_table_is_in_the_graph(made: Made) -> None:
    found = json.loads(python(made.environment, DEFINITIONS))
    assert found["groups"]["clip_sharpness"] == "sharpness"
    assert found["deps"] == ["clips"]
    assert found["columns"][-4:] == ["sharpness", "frames", "backend", "quality_tier"]
    assert found["lineage"] == ["clip_id", "video_id"]
    assert found["code_version"].startswith("1-")
    assert found["checks"] == [
        "clips_are_in_focus",
        "covers_every_clip",
        "fits_contract",
        "shard_is_like_those_before",
        "values_are_plausible",
    ]
    assert "clips_are_long_enough" in found["checks_of_clips"]
    assert {"frames", "side_px", "force"} <= set(found["forms"]["clip_sharpness"])
    assert "min_sharpness" in found["forms"]["clip_sharpness_checks"]
    assert "min_sharpness" not in found["forms"]["hand_poses_checks"]
    assert {"sharpness_meter", "footage_counter"} <= set(found["backends"])
    assert "group_sharpness" in found["jobs"]
    assert not found["partitioned"]["lake_footage"]
    assert found["partitioned"]["shard_footage"]


def test_a_table_is_made_checked_and_drawn(made: Made) -> None:
    assert made.summary["ok"], made.summary
    assert made.summary["rows"]["clip_sharpness"] == made.summary["clips"]["total"] == 1
    (row,) = made.rows("clip_sharpness")
    assert row["sharpness"] > 0
    assert row["backend"] == "laplacian"
    found = made.events["clip_sharpness"]
    assert f"](/previews/clip_sharpness/{made.summary['shards'][0]}?" in found["picture"]
    kept = made.lake / "_previews" / "clip_sharpness" / f"{made.summary['shards'][0]}.jpg"
    assert kept.read_bytes().startswith(b"\xff\xd8\xff")
    assert found["backend"] == "laplacian 1"
    assert found["checks"]["clips_are_in_focus"]
    assert found["checks"]["fits_contract"]


def test_a_table_is_in_status_trace_and_staleness(made: Made) -> None:
    status = json.loads(made.said["status"])
    assert status["stages"]["clip_sharpness"]["done"] == 1
    trace = json.loads(made.said["trace"])
    assert trace["tables"]["clip_sharpness"]["rows"] == 1
    assert "clip_sharpness" not in made.said["stale"]
    stale = made.said["stale with other settings"]
    assert "clip_sharpness" in stale
    assert "hand_poses" not in stale
    assert "0 problems" in made.said["verify"]


def test_an_operator_over_a_shard_and_one_over_the_lake(made: Made) -> None:
    (shard,) = made.rows("shard_footage")
    assert shard["clips"] == 1
    assert shard["footage_s"] == pytest.approx(1.0, abs=0.1)
    (lake,) = made.rows("lake_footage")
    assert lake == shard | {"shard": "lake"}
    assert made.events["lake_footage"]["rows"] == 1
    status = json.loads(made.said["status"])
    assert status["stages"]["shard_footage"]["done"] == 1


def test_a_backend_is_listed_run_and_part_of_the_fingerprint(made: Made) -> None:
    listed = json.loads(made.said["doctor"])
    assert any("fast_hands" in f["what"] and f["state"] == "ok" for f in listed)
    rows = made.rows("hand_poses")
    assert {row["backend"] for row in rows} == {"fast_hands"}
    stale = made.said["stale by default"]
    assert "hand_poses" in stale  # by the default backend, they would be others
    assert "object_masks" not in stale


def test_a_package_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    environment = install(tmp_path, "add_a_probe")
    (tmp_path / "ego_short_clips" / "__init__.py").write_text("PROBES = 3\n")
    (tmp_path / "ego_short_clips-0.1.dist-info" / "entry_points.txt").write_text(
        "[ego_assets.features]\nshort_clips = ego_short_clips:PROBES\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", "import ego_assets.catalog"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode
    assert done.stderr.strip().splitlines()[-1] == (
        "ego_assets.catalog.CatalogError: entry point short_clips = ego_short_clips:PROBES "
        "(ego_assets.features) is a int, not a Feature"
    )


def test_every_example_is_on_a_page() -> None:
    pages = "".join(p.read_text() for p in (ROOT / "docs").glob("*.md"))
    pages += (ROOT / "CONTRIBUTING.md").read_text()
    lacking = [p.name for p in (ROOT / "examples").iterdir() if f"examples/{p.name}" not in pages]
    assert not lacking
