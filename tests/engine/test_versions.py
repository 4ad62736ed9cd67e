"""The version of an operator is the one that its fingerprints are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ego_assets.catalog import BACKENDS
from ego_assets.engine.plan import StageSpec
from ego_assets.engine.runner import run_stage
from ego_assets.intake.shards import describe_file, find_files, write_shard
from ego_assets.models import registry
from ego_assets.videos.clips import ClipSplitter
from ego_assets.videos.inspection import FileInspector
from ego_assets.videos.settings import ClipSettings, ManifestSettings
from resources.lake import Lake
from resources.ledger import Ledger
from tests.engine.stage_bench import spec_for, write_video

WITHOUT_WEIGHTS = [key for key, entry in BACKENDS.items() if not entry.weights]


@pytest.mark.parametrize(("operator", "backend"), WITHOUT_WEIGHTS)
def test_the_version_of_a_backend_is_that_of_its_class(operator: str, backend: str) -> None:
    cls: Any = registry._class(registry.find(operator, backend))
    assert registry.version(operator, backend) == (cls.version, cls.weights_hash)


@pytest.mark.parametrize(("operator", "backend"), BACKENDS)
def test_a_backend_that_extends_another_has_a_version_of_both(operator: str, backend: str) -> None:
    """When what it inherits changes, its rows are made again, too."""
    cls: Any = registry._class(registry.find(operator, backend))
    for base in cls.__mro__[1:]:
        if "version" in vars(base):
            assert cls.version.startswith(base.version)


@pytest.mark.parametrize("table", ["video_manifest", "clips"])
def test_what_was_made_by_another_version_is_made_again(
    table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, ledger = Lake(tmp_path / "lake"), Ledger.beside(tmp_path / "lake")
    (tmp_path / "raw").mkdir()
    write_video(tmp_path / "raw" / "a.mp4", frames=5)
    files = find_files([tmp_path / "raw"]).files
    shard = write_shard(lake, [describe_file(uri, size) for uri, size in files.items()])

    def specs() -> dict[str, StageSpec]:
        return {
            name: spec_for(name, lake, ledger, shard, settings=settings.model_dump())
            for name, settings in (
                ("video_manifest", ManifestSettings()),
                ("clips", ClipSettings()),
            )
        }

    for each in specs().values():
        run_stage(each, isolate=False)
    assert run_stage(specs()[table], isolate=False).skipped == 1
    owner = FileInspector if table == "video_manifest" else ClipSplitter
    monkeypatch.setattr(owner, "version", "another")
    assert run_stage(specs()[table], isolate=False).done == 1
