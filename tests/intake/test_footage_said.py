"""What a file beside a video says becomes columns, and costs no computing when it changes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ego_assets.catalog import STAGES as CATALOGUE
from ego_assets.consent import SAID
from ego_assets.engine.plan import plan
from ego_assets.intake.relocation import relocate
from ego_assets.intake.shards import find_files
from ego_assets.intake.sources import are_as_read
from ego_assets.upkeep import audit
from ego_assets.upkeep.erasure import erase
from ego_assets.upkeep.erasure.survey import find_videos, survey
from ego_assets.upkeep.recovery.rebuild import ready
from resources.ledger import Ledger, State
from tests.engine.raw_bench import RawBench
from tests.engine.stage_bench import spec_for
from tests.resources.s3_server import new_bucket, s3_client, s3_server
from tests.support.erased import bytes_with

SAYS = {"person": "p1", "consent": "granted", "license": "CC-BY-4.0", "site": "lab"}


@pytest.fixture
def done(tmp_path: Path) -> RawBench:
    """Three videos of one shard, the second with a file that says whose footage it is."""
    bench = RawBench(tmp_path)
    (bench.raw / "b.footage.json").write_text(json.dumps(SAYS))
    bench.run()
    assert bench.counts(State.DONE) == [3, 3, 3]
    return bench


def said(bench: RawBench, name: str) -> dict[str, Any]:
    return {k: v for k, v in bench.video(name).items() if k in SAID and v is not None}


def episodes_fingerprint(bench: RawBench) -> str:
    inputs = CATALOGUE["episodes"].inputs
    (shard,) = bench.lake.shards()
    (group,) = plan(
        spec_for("episodes", bench.lake, bench.ledger, shard, inputs=inputs),
        bench.lake,
        bench.ledger,
    )
    return group.items[0].base_fingerprint


def made_of_pictures(bench: RawBench) -> dict[tuple[str, str], tuple[Any, ...]]:
    return {k: v for k, v in bench.work().items() if k[0] != "video_manifest"}


def test_it_becomes_columns_of_its_own_video_alone(done: RawBench) -> None:
    assert said(done, "b.mp4") == SAYS
    assert said(done, "a.mp4") == {}


def test_changed_words_reach_episodes_and_leave_what_is_made_of_pictures(done: RawBench) -> None:
    work, attempts, before = made_of_pictures(done), done.attempts(), episodes_fingerprint(done)
    fingerprints = {k: v[1] for k, v in done.work().items()}
    (shard,) = done.lake.shards()
    (done.raw / "b.footage.json").write_text(json.dumps(SAYS | {"consent": "withdrawn"}))
    assert not are_as_read(done.lake, done.ledger, shard)
    done.run()
    assert said(done, "b.mp4") == SAYS | {"consent": "withdrawn"}
    assert (made_of_pictures(done), done.attempts()) == (work, attempts)
    assert {k: v[1] for k, v in done.work().items()} == fingerprints
    assert episodes_fingerprint(done) != before
    assert are_as_read(done.lake, done.ledger, shard)
    (done.raw / "b.footage.json").unlink()
    done.run()
    assert said(done, "b.mp4") == {}
    assert (made_of_pictures(done), done.attempts()) == (work, attempts)


def test_a_file_that_says_the_same_otherwise_changes_nothing(done: RawBench) -> None:
    work, before = done.work(), episodes_fingerprint(done)
    text = json.dumps(dict(reversed(SAYS.items())), indent=2)
    (done.raw / "b.footage.json").write_text(text)
    done.run()
    (done.raw / "b.footage.json").rename(done.raw / "b.footage.yml")
    done.run()
    assert (done.work(), episodes_fingerprint(done)) == (work, before)


def test_that_of_a_folder_counts_where_a_video_says_nothing_of_its_own(done: RawBench) -> None:
    attempts = done.attempts()
    (done.raw / "footage.yaml").write_text("person: p2\ntask: stir\n")
    done.run()
    assert said(done, "a.mp4") == said(done, "c.mp4") == {"person": "p2", "task": "stir"}
    assert said(done, "b.mp4") == {"task": "stir", **SAYS}
    (done.raw / "b.footage.json").write_text(json.dumps({"license": "MIT"}))
    (done.raw / "footage.yaml").write_text("consent: refused\n")
    done.run()
    assert said(done, "b.mp4") == {"license": "MIT", "consent": "refused"}
    (done.raw / "footage.yaml").write_text("consent: withdrawn\n")
    done.run()
    assert said(done, "b.mp4") == {"license": "MIT", "consent": "withdrawn"}
    assert done.attempts() == attempts


def test_videos_before_there_were_such_files_keep_their_fingerprints(tmp_path: Path) -> None:
    bench = RawBench(tmp_path)
    bench.run()
    fingerprints = {k: v[1] for k, v in bench.work().items()}
    (bench.raw / "footage.json").write_text('{"person": "p"}')
    bench.run()
    assert {k: v[1] for k, v in bench.work().items()} == fingerprints
    assert {r["person"] for r in bench.manifest()} == {"p"}


def test_a_file_that_makes_no_sense_rejects_its_video_until_it_is_mended(done: RawBench) -> None:
    (done.raw / "b.footage.json").write_text(json.dumps({"licence": "MIT"}))
    done.run()
    row = done.video("b.mp4")
    assert (row["accepted"], row["reject_reason"]) == (False, "bad_sidecar")
    assert row["reject_detail"] == (
        "b.footage.json does not say whose footage this is: its entry 1 has a name that is not "
        "known: did you mean license? there are person, consent, license, site, device, task"
    )
    work = done.work()
    done.run()
    assert done.work() == work
    (done.raw / "b.footage.json").write_text(json.dumps(SAYS))
    done.run()
    assert done.video("b.mp4")["accepted"] and said(done, "b.mp4") == SAYS


@pytest.mark.parametrize("what", ["link", "pipe", "large", "folder"])
def test_what_is_no_small_file_of_its_folder_is_not_read(tmp_path: Path, what: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text(json.dumps(SAYS))
    make: dict[str, Callable[[Path], object]] = {
        "link": lambda p: p.symlink_to(secret),
        "pipe": os.mkfifo,
        "large": lambda p: os.truncate(os.open(p, os.O_CREAT | os.O_WRONLY), 200_000_000),
        "folder": Path.mkdir,
    }
    bench = RawBench(tmp_path / "bench")
    make[what](bench.raw / "b.footage.json")
    bench.run()
    assert bench.video("b.mp4")["reject_reason"] == "bad_sidecar"
    assert [bench.video(n)["accepted"] for n in ("a.mp4", "c.mp4")] == [True, True]
    assert said(bench, "b.mp4") == {}


def test_it_goes_along_when_its_video_is_renamed_or_copied(done: RawBench) -> None:
    (done.raw / "b.mp4").rename(done.raw / "z.mp4")
    (done.raw / "b.footage.json").rename(done.raw / "z.footage.json")
    work = done.work()
    done.run()
    assert said(done, "z.mp4") == SAYS
    assert done.work() == work
    shutil.copy(done.raw / "z.mp4", done.raw / "copy.mp4")
    (done.raw / "copy.footage.json").write_text('{"person": "p9"}')
    done.run()
    row = done.video("copy.mp4")
    assert (row["reject_reason"], row["person"]) == ("duplicate", "p9")


def test_a_ledger_that_is_lost_is_told_by_the_file_itself(tmp_path: Path) -> None:
    bench = RawBench(tmp_path)
    (bench.raw / "b.footage.json").write_text(json.dumps(SAYS))
    bench.run()
    for path in (tmp_path / "lake").glob("ledger.sqlite*"):
        path.unlink()
    (bench.raw / "b.footage.json").write_text(json.dumps(SAYS | {"consent": "refused"}))
    bench.ledger = Ledger.beside(tmp_path / "lake")
    ready(bench.lake, bench.ledger)
    attempts = bench.attempts()
    bench.run()
    assert bench.video("b.mp4")["consent"] == "refused"
    assert bench.attempts() == attempts


def test_a_relocation_asks_for_it(done: RawBench) -> None:
    new = done.root / "new"
    shutil.copytree(done.raw, new)
    (new / "b.footage.json").unlink()
    (done.raw / "footage.json").write_text('{"consent": "granted"}')
    done.run()
    found = relocate(done.lake, done.ledger, str(done.raw), str(new))
    assert not found.is_done
    assert "its footage file" in found.missing[str(new / "b.mp4")]
    shutil.copy(done.raw / "b.footage.json", new)
    found = relocate(done.lake, done.ledger, str(done.raw), str(new))
    assert "that of its folder" in found.missing[str(new / "b.mp4")]
    shutil.copy(done.raw / "footage.json", new)
    work = done.work()
    assert relocate(done.lake, done.ledger, str(done.raw), str(new)).is_done
    done.run(new)
    assert (done.work(), said(done, "b.mp4")) == (work, SAYS)
    assert audit.verify(done.lake, done.ledger) == []


def test_nothing_of_it_is_left_of_a_forgotten_video(tmp_path: Path) -> None:
    bench = RawBench(tmp_path)
    (bench.raw / "b.footage.json").write_text(json.dumps(SAYS | {"person": "quendolin"}))
    bench.run()
    (bench.raw / "b.footage.json").write_text(json.dumps(SAYS | {"person": "quendolin 2"}))
    bench.run()
    assert bytes_with(tmp_path / "lake", "quendolin")
    video = bench.video("b.mp4")["video_id"]
    (named,) = find_videos(bench.lake, bench.ledger, [video])
    found = [survey(bench.lake, bench.ledger, named)]
    erase.forget(bench.lake, bench.ledger, found, lambda words, shards: [], "")
    assert bytes_with(tmp_path / "lake", "quendolin") == []
    assert audit.verify(bench.lake, bench.ledger) == []


def test_it_is_read_from_s3_and_the_video_is_not_fetched_to_compare_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EGO_SCRATCH", str(tmp_path / "scratch"))
    bench = RawBench(tmp_path, videos=2)
    with s3_server(monkeypatch):
        bucket = new_bucket()
        place = f"s3://{bucket}/raw"

        def put(name: str, data: bytes) -> None:
            s3_client().put_object(Bucket=bucket, Key=f"raw/{name}", Body=data)

        for path in bench.raw.iterdir():
            put(path.name, path.read_bytes())
        put("footage.json", json.dumps({"person": "all"}).encode())
        put("b.footage.json", json.dumps(SAYS).encode())
        assert len(find_files([place]).files) == 2
        bench.run(place)  # type: ignore[arg-type]
        assert (said(bench, "a.mp4"), said(bench, "b.mp4")) == ({"person": "all"}, SAYS)
        put("b.footage.json", json.dumps({"site": "lab"}).encode())
        bench.run(place)  # type: ignore[arg-type]
        assert said(bench, "b.mp4") == {"person": "all", "site": "lab"}
        put("b.footage.json", json.dumps(SAYS).encode())
        bench.run(place)  # type: ignore[arg-type]
        work, attempts = bench.work(), bench.attempts()
        put("b.footage.json", json.dumps(SAYS, indent=1).encode())
        bench.run(place)  # type: ignore[arg-type]
        assert bench.work() == work
        put("b.footage.json", bytes(2**20 + 1))
        bench.run(place)  # type: ignore[arg-type]
        assert "larger than 1 MiB" in bench.video("b.mp4")["reject_detail"]
        assert bench.attempts() == attempts
