"""Names of folders and buckets are names, whatever characters they hold: never patterns or URLs."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from ego_assets.models import registry
from ego_assets.models.weights import WeightsMissingError, find_files, hash_files
from resources.lake import Lake, LakeError
from resources.lake.catalog import Catalog
from resources.ledger import Ledger, tables
from tests.resources.test_lake import SHARD, publish

NAMES = [
    *["lake [1]", "lake*x", "lake?x", "lake?x=1&uri=true", "lake#x", "lake%20x", "lake%(x)s"],
    *["lake&x", "läke ü", "it's", '"q"', "[/b]", "{a,b}", "lake\\x", "lake:x@y", "a://b", "~x"],
    *["$HOME", "line\nbreak", "-x", " lead"],
]


@pytest.mark.parametrize("name", NAMES)
def test_a_lake_of_any_name_is_read_and_kept_whole(tmp_path: Path, name: str) -> None:
    for neighbour in ("lake 1", "lake-x", "lakex", "lakeax", "lake x", "lake", "a", "b"):
        other = Lake(tmp_path / "in" / neighbour)
        other.storage.write(f"hand_poses/{SHARD}.parquet", b"not to be read")
    before = {p for p in tmp_path.rglob("*") if p.is_file()}
    lake = Lake(str(tmp_path / "in" / name))
    publish(lake, "a", 1.0, token=10)
    lake.compact("hand_poses", SHARD, ["a"])
    Ledger.of(lake.location).expect("clips", SHARD, [("a", "v")])
    assert lake.scan("hand_poses").collect().height == 5
    with Catalog(lake) as catalog:
        rows = catalog.query("SELECT count(*) AS n FROM hand_poses WHERE clip_id = 'a'")
        assert rows.to_pylist() == [{"n": 5}]
    again = pickle.loads(pickle.dumps(Ledger.of(lake.location)))  # noqa: S301
    assert [e.item_id for e in again.entries()] == ["a"]
    new = {p for p in tmp_path.rglob("*") if p.is_file()} - before
    assert all(p.is_relative_to(lake.root) for p in new)
    assert lake.root / "_ledger" / "ledger.sqlite" in new


def test_a_path_that_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LakeError, match=r"udcff.*valid UTF-8"):
        Lake(tmp_path / os.fsdecode(b"lake\xff"))


@pytest.mark.parametrize("url", ["s3://b/a//b", "s3://b/../x", "s3://b/./x", "s3://", "gs://b/x"])
def test_a_place_that_cannot_be_a_lake_says_so(url: str) -> None:
    with pytest.raises(LakeError, match="s3://bucket/prefix"):
        Lake(url)


def test_migrations_run_from_a_folder_with_a_percent_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "50%off" / "ledger"
    installed.parent.mkdir()
    installed.symlink_to(Path(tables.__file__).parent)
    monkeypatch.setattr(tables, "__file__", str(installed / "tables.py"))
    ledger = Ledger.beside(tmp_path)
    ledger.open()
    assert ledger.entries() == []


@pytest.mark.parametrize("name", ["meshes [v2]", "a*b", "m?x", "[!a]"])
def test_weights_in_a_folder_of_any_name_count(tmp_path: Path, name: str) -> None:
    """A pattern is what the registry says, not what a setting says."""
    entry = registry.find("object_pose_estimator", "foundationpose")
    settings = entry.settings(checkpoint=str(tmp_path / name), meshes=str(tmp_path / name / "m"))
    for file in entry.files(settings):
        if isinstance(file, str):
            Path(file).parent.mkdir(parents=True, exist_ok=True)
            Path(file).write_text("x")
    mesh = tmp_path / name / "m" / "cup" / "cup.obj"
    mesh.parent.mkdir(parents=True)
    mesh.write_text("v 0 0 0")
    first = hash_files(tmp_path, entry.files(settings))
    assert mesh in find_files(tmp_path, entry.files(settings))
    mesh.write_text("v 1 1 1")
    assert hash_files(tmp_path, entry.files(settings)) != first
    (tmp_path / name / "estimater.py").unlink()
    with pytest.raises(WeightsMissingError, match=r"estimater\.py"):
        hash_files(tmp_path, entry.files(settings))


def test_weights_are_not_those_of_a_neighbour(tmp_path: Path) -> None:
    (tmp_path / "aXb").mkdir()
    (tmp_path / "aXb" / "config.json").write_text("{}")
    with pytest.raises(WeightsMissingError, match=r"a\*b"):
        hash_files(tmp_path, ["a*b/config.json"])
