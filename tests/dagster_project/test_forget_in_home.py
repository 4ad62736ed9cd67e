"""What Dagster remembers of a forgotten video goes; what it does of others stays."""

from __future__ import annotations

from pathlib import Path

import dagster as dg

from dagster_project.home import erase_in_home


def test_only_paths_of_it_and_names_in_events_of_its_shards_go(tmp_path: Path) -> None:
    path = "/raw/anna/GX010012.MP4"
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        for shard in ("s1", "s2"):
            texts = {"file": "GX010012.MP4", "near": f"{path}.mov", "own": f"read {path}."}
            instance.report_runless_asset_event(
                dg.AssetMaterialization("clips", partition=shard, metadata=texts)
            )
        log = tmp_path / "storage" / "run" / "1.err"
        log.parent.mkdir(parents=True)
        log.write_bytes(f"{path}\r\n{path}.mov \xff".encode("latin-1"))
        assert erase_in_home(instance, [path], ["s1"]) == []
        found = {}
        for record in instance.fetch_materializations(dg.AssetKey("clips"), limit=9).records:
            told = record.asset_materialization
            assert told is not None and told.partition is not None
            found[told.partition] = {k: v.value for k, v in told.metadata.items()}
    own = {"near": f"{path}.mov", "own": "read (forgotten)."}
    assert found["s1"] == own | {"file": "(forgotten)"}
    assert found["s2"] == own | {"file": "GX010012.MP4"}
    assert log.read_bytes() == f"(forgotten)\r\n{path}.mov \xff".encode("latin-1")
    assert [p.name for p in log.parent.iterdir()] == ["1.err"]
