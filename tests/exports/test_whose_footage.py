"""Exports of some wearers, sites, consents and licenses: what is asked for, and nothing else."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from click.testing import CliRunner

from dagster_project.cli.program import main
from ego_assets.catalog import TABLES
from ego_assets.exports.lake_episodes import LakeEpisodes
from ego_assets.exports.settings import ContentSettings
from ego_assets.reading import LakeReader, open_lake
from resources.lake import Lake
from resources.raw import sidecars
from tests.episodes.made_footage import MadeVideo
from tests.exports.lerobot_reader import tree
from tests.exports.numbered_lake import NumberedLake, make, provenance, withdraw
from tests.resources.s3_server import new_bucket, s3_client, s3_server

SAID = (
    {"person": "a", "site": "lab", "consent": "granted", "license": "CC-BY-4.0"},
    {"person": "b", "site": "lab", "consent": "research_only", "license": "CC-BY-NC-4.0"},
    {},
)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> NumberedLake:
    videos = [MadeVideo(count=90, video_id=f"{n:016x}", said=SAID[n]) for n in range(3)]
    return make(tmp_path_factory.mktemp("three"), *videos)


def exported(made: NumberedLake, *options: str, to: str = "webdataset") -> list[str]:
    """The videos whose episodes are in an export, by number."""
    out = made.folder / "-".join((to, *options)).replace("/", "_")
    asked = ["export", to, "--lake", str(made.lake.root), "--out", str(out), "--json", *options]
    done = CliRunner().invoke(main, asked, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    text = (out / "ego_export.json").read_text()
    return [str(n) for n in range(3) if f"{n:016x}-t" in text]


@pytest.mark.parametrize(
    ("options", "videos"),
    [
        ((), "012"),
        (("--person", "a"), "0"),
        (("--person", "a, b"), "01"),
        (("--site", "lab"), "01"),
        (("--consent", "granted"), "0"),
        (("--license", "cc-by-4.0,MIT"), "0"),
        (("--site", "lab", "--license", "CC-BY-NC-4.0"), "1"),
    ],
)
def test_what_is_asked_for_is_exported(
    three: NumberedLake, options: tuple[str, ...], videos: str
) -> None:
    assert exported(three, *options) == list(videos)


@pytest.mark.parametrize("to", ["coco", "egodex"])
def test_every_format_asks_alike(three: NumberedLake, to: str) -> None:
    assert exported(three, "--person", "b", to=to) == ["1"]


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--consent", "yes", "'yes' is none of granted"),
        ("--license", "free", "no SPDX license expression"),
        ("--person", "nobody", "no episodes of the split train with person nobody"),
    ],
)
def test_what_makes_no_sense_or_fits_nothing_is_told(
    three: NumberedLake, option: str, value: str, words: str
) -> None:
    assert words in " ".join(three.export(option, value, ok=False).split())


@pytest.mark.parametrize("to", ["webdataset", "egodex", "coco"])
@pytest.mark.parametrize("said", ["manifest", "file", "nonsense"])
def test_consent_that_is_withdrawn_after_episodes_were_made_holds(
    tmp_path: Path, to: str, said: str
) -> None:
    made = make(tmp_path, *(MadeVideo(count=90, video_id=f"{n:016x}") for n in range(2)))
    if said == "manifest":
        first, second = made.tables["video_manifest"]
        rows = [first | {"consent": "withdrawn"}, second]
        (shard,) = made.lake.shards()
        table = TABLES["video_manifest"].from_rows(rows)
        made.lake.publish("video_manifest", shard, shard, table, provenance(shard))
    else:
        text = "consent: refused\n" if said == "file" else "consent: no\n"
        (tmp_path / f"{0:016x}.footage.yaml").write_text(text)
    found = LakeEpisodes(LakeReader(made.lake), ContentSettings(), 0)
    (shard,) = made.lake.shards()
    assert [name[:16] for name in found.lengths(shard, found.resolved())] == [f"{1:016x}"]
    assert len(found) == 1 and [name[:16] for name in found.skipped] == [f"{0:016x}"]
    assert exported(made, to=to) == ["1"]


def test_consent_that_is_withdrawn_beside_a_video_in_a_bucket_holds_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = [MadeVideo(count=90, video_id=f"{n:016x}") for n in range(3)]
    made = make(tmp_path, *videos)
    with s3_server(monkeypatch):
        bucket = new_bucket()
        rows = [
            row | {"uri": f"s3://{bucket}/raw/{n}.mp4"}
            for n, row in enumerate(made.tables["video_manifest"])
        ]
        (shard,) = made.lake.shards()
        table = TABLES["video_manifest"].from_rows(rows)
        made.lake.publish("video_manifest", shard, shard, table, provenance(shard))
        found = LakeEpisodes(LakeReader(made.lake), ContentSettings(), 0)
        assert len(found) == 3
        for name, text in (("0", b'{"consent": "withdrawn"}'), ("2", b'{"consent": "no"}')):
            s3_client().put_object(Bucket=bucket, Key=f"raw/{name}.footage.json", Body=text)
        found = LakeEpisodes(LakeReader(made.lake), ContentSettings(), 0)
        assert len(found) == 1
        assert {name[:16] for name in found.skipped} == {f"{0:016x}", f"{2:016x}"}

    def away(uri: str) -> None:
        raise EndpointConnectionError(endpoint_url=uri)

    monkeypatch.setattr(sidecars, "read_footage_sidecars", away)
    assert len(LakeEpisodes(LakeReader(made.lake), ContentSettings(), 0)) == 3


def test_provenance_has_what_is_said(tmp_path: Path) -> None:
    videos = [MadeVideo(count=90, video_id=f"{n:016x}", said=SAID[n]) for n in (0, 2)]
    made = make(tmp_path, *videos)
    made.export("--content", "frames", to="webdataset")
    found: dict[str, dict[str, Any]] = {}
    for path in (tmp_path / "out").glob("*.tar"):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    file = tar.extractfile(member)
                    assert file is not None
                    said = json.load(file)["provenance"]
                    found[said["video_id"]] = said
    assert {k: found[f"{0:016x}"][k] for k in SAID[0]} == SAID[0]
    assert "consent" not in found[f"{2:016x}"]
    assert made.export("--content", "frames", to="webdataset")["encoded"] == 0


@pytest.mark.parametrize("to", ["lerobot", "webdataset", "coco"])
def test_the_last_footage_goes_when_its_consent_does(tmp_path: Path, to: str) -> None:
    made = make(tmp_path, MadeVideo(count=90))
    out = tmp_path / "out"
    made.export(to=to)
    whole = tree(out)
    said = made.export("--site", "lba", ok=False, to=to)
    assert f"{out} still has 1 episodes" in said and tree(out) == whole
    withdraw(made)
    said = made.export(ok=False, to=to)
    assert "no episodes of the split train" in said and "(1) are deleted" in said
    assert not tree(out)
    made.export(ok=False, to=to)


def test_a_lake_that_is_away_takes_nothing_with_it(tmp_path: Path) -> None:
    made = make(tmp_path, MadeVideo(count=90))
    made.export(to="webdataset")
    whole = tree(tmp_path / "out")
    (tmp_path / "lake").rename(tmp_path / "away")
    Lake(tmp_path / "lake").write_shard("20261130-0000", {"videos": []})
    made.export(ok=False, to="webdataset")
    assert tree(tmp_path / "out") == whole


def test_scripts_and_sql_have_the_columns(three: NumberedLake) -> None:
    lake = open_lake(str(three.lake.root))
    three.lake.compact("episodes", three.lake.shards()[0], ["unit"])  # SQL reads what is merged
    assert {e.row["person"] for e in lake.episodes()} == {"a", "b", None}
    query = "SELECT license FROM episodes WHERE consent = 'granted'"
    done = CliRunner().invoke(main, ["sql", query, "--lake", str(three.lake.root), "--json"])
    assert "CC-BY-4.0" in done.output and "NC" not in done.output


def test_yield_says_hours_by_what_is_said(three: NumberedLake) -> None:
    done = CliRunner().invoke(main, ["yield", "--lake", str(three.lake.root)])
    assert "person" in done.output and "CC-BY-NC-4.0" in done.output
    asked = ["yield", "--lake", str(three.lake.root), "--json"]
    found = json.loads(CliRunner().invoke(main, asked).stdout)["by"]
    assert found["person"]["a"] == {"footage_s": pytest.approx(3.0), "kept_s": pytest.approx(3.0)}
    assert found["site"].keys() == {"lab", "not said"}
