"""The version of an operator is the one that its fingerprints are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ego_assets.engine.plan import StageSpec, versions
from ego_assets.engine.runner import run_stage
from ego_assets.intake.shards import describe_file, find_files, write_shard
from ego_assets.models import registry
from ego_assets.videos import inspection as probe
from ego_assets.videos.clips import ClipSplitter
from ego_assets.videos.settings import ClipSettings, ManifestSettings
from resources.lake import Lake
from resources.ledger import Ledger
from tests.stages.stage_bench import write_video

WITHOUT_WEIGHTS = [key for key, entry in registry.REGISTRY.items() if not entry.weights]


@pytest.mark.parametrize(("operator", "backend"), WITHOUT_WEIGHTS)
def test_the_version_of_a_backend_is_that_of_its_class(operator: str, backend: str) -> None:
    cls: Any = registry._class(registry.find(operator, backend))
    assert versions("clip", operator, backend) == (cls.version, cls.weights_hash)


@pytest.mark.parametrize("task", ["probe", "split"])
def test_what_was_made_by_another_version_is_made_again(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, ledger = Lake(tmp_path / "lake"), Ledger.beside(tmp_path / "lake")
    (tmp_path / "raw").mkdir()
    write_video(tmp_path / "raw" / "a.mp4", frames=5)
    files = find_files([tmp_path / "raw"]).files
    shard = write_shard(lake, [describe_file(uri, size) for uri, size in files.items()])

    def spec(task: str, table: str, settings: Any) -> StageSpec:
        return StageSpec(
            task=task,
            tables=(table,),
            settings=settings.model_dump(),
            lake_root=lake.location,
            ledger_url=ledger.url,
            shard=shard,
            run_id="run",
            operator_version=versions(task, "", "")[0],
        )

    def specs() -> dict[str, StageSpec]:
        manifest = spec("probe", "video_manifest", ManifestSettings())
        return {"probe": manifest, "split": spec("split", "clips", ClipSettings())}

    for each in specs().values():
        run_stage(each, isolate=False)
    assert run_stage(specs()[task], isolate=False).skipped == 1
    owner = probe if task == "probe" else ClipSplitter
    monkeypatch.setattr(owner, "VERSION" if task == "probe" else "version", "another")
    assert run_stage(specs()[task], isolate=False).done == 1
