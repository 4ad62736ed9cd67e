"""Videos that are forgotten: nothing is left of them, they do not come back, and others stay."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from botocore.exceptions import ClientError

from ego_assets.engine.choices import Choice, Choices
from ego_assets.exports.files import IN_LAKE, alone_in
from ego_assets.intake.arrivals import Arrivals, ScanReport
from ego_assets.intake.batches import Limits
from ego_assets.intake.forgotten import pass_over
from ego_assets.intake.links.records import LinkFiles, LinkRow
from ego_assets.media.pictures import LATEST, Pictures
from ego_assets.reviews.store import Review, ReviewFiles
from ego_assets.upkeep import audit
from ego_assets.upkeep.erasure import erase
from ego_assets.upkeep.erasure.survey import UnknownVideoError, find_videos, survey
from ego_assets.upkeep.problems import FORGOTTEN
from ego_assets.upkeep.recovery.rebuild import ready
from resources.lake import Lake, history
from resources.lake.s3.client import purge_versions
from resources.ledger import BusyError, Ledger
from resources.ledger.contents import Contents, Tombstone
from resources.ledger.sources import Sources
from resources.raw import presence, tombstones
from resources.raw.reader import RawReader
from tests.engine.raw_bench import RawBench, write_video
from tests.resources.postgres import Postgres
from tests.resources.s3_server import new_bucket, s3_client, s3_server
from tests.support.erased import bytes_with
from tests.support.killed import kill_before


def forget(bench: RawBench, *named: str, reason: str = "") -> list[erase.Erased]:
    """As `ego forget --yes`, on a lake that Dagster knows nothing of."""
    found = [
        survey(bench.lake, bench.ledger, each)
        for each in find_videos(bench.lake, bench.ledger, named)
    ]
    return erase.forget(bench.lake, bench.ledger, found, lambda words, shards: [], reason)


def full_lake(bench: RawBench) -> str:
    """Have everything in a lake that may hold something of a video; the video of b.mp4."""
    bench.run()
    bench.make(force=True)  # and so there are earlier versions
    (bench.raw / "b.mp4").rename(bench.raw / "anna_kitchen.mp4")
    shutil.copy(bench.raw / "anna_kitchen.mp4", bench.raw / "copy of anna.mp4")
    bench.run()
    assert bench.video("copy of anna.mp4")["reject_reason"] == "duplicate"
    video: str = bench.video("anna_kitchen.mp4")["video_id"]
    shard, lake = bench.lake.shards()[0], bench.lake
    other = f"{bench.video('a.mp4')['video_id']}-0000"
    for table in ("scene_reconstruction", "object_movements"):
        for clip in (f"{video}-0000", other):
            lake.publish_arrays(table, shard, clip, {"points": np.zeros(3)})
    picture = ("image/png", b"\x89PNG\r\n of three videos")
    Pictures(lake).keep("clips", shard, picture)
    for name in (f"{video}-0000.{0:016x}.mp4", f"{other}.{0:016x}.mp4", "index.html"):
        lake.storage.write(f"_galleries/{shard}/{name}", f"{video} a.mp4".encode()[17:])
    lake.storage.write(f"_galleries/{shard}/index.html", f"{video}-0000 anna_kitchen".encode())
    lake.storage.write("reports/20260101-0000-1d.md", f"slowest: {video}-0000 ä".encode())
    chosen = Choice({"fps": 3}, {}, (f"{video}-0000",), "run", "2026")
    Choices(lake).keep("probe", shard, chosen)
    lake.storage.write(f"_damaged/clips/{shard}.parquet.1", f"PAR1{video}".encode())
    name = f"{video}-0000.{7:016d}"
    lake.storage.write(f"object_movements/_fragments/{shard}/{name}.floor", b"")
    for clip, why in ((f"{video}-0000", "anna is seen"), (other, f"as in {video}-0000")):
        said: dict[str, Any] = {"kind": "clip", "subject": clip, "shard": shard, "reason": why}
        said |= {"verdict": "reject", "side_swap": False, "reviewer": ""}
        ReviewFiles(lake).add(Review.now(**said, fingerprint="f", made_by=""))
    fetched = {"path": str(bench.raw / "anna_kitchen.mp4"), "sha256": video + "0" * 48}
    rows = [LinkRow("l", "http://a.org/anna.mp4", "done", **fetched)]  # type: ignore[arg-type]
    LinkFiles(lake).add([LinkRow("l", "http://a.org/anna.mp4", "pending")])
    aside = bench.raw / ".ingest"
    aside.mkdir()
    for link in "lm":
        (aside / f"{link}.part").write_bytes(video.encode())
    LinkFiles(lake).add([*rows, LinkRow("m", "http://a.org/other.mp4", "done", sha256="1" * 64)])
    assert history.kept(lake, "clips", shard)
    return video


def others(bench: RawBench, video: str) -> dict[str, Any]:
    """All rows and all that the ledger says of the other videos."""
    rows = {
        table: sorted((r for r in found if r["video_id"] != video), key=str)
        for table, found in bench.rows().items()
    }
    work = {
        k: v for k, v in bench.work().items() if k[1][:16] in {r["video_id"] for r in rows["clips"]}
    }
    return {"rows": rows, "work": work}


def problems(bench: RawBench) -> list[str]:
    return [str(p) for p in audit.verify(bench.lake, bench.ledger)]


def test_nothing_of_a_forgotten_video_is_left_and_the_others_are_as_they_were(
    tmp_path: Path,
) -> None:
    bench = RawBench(tmp_path)
    video = full_lake(bench)
    before, raw = others(bench, video), {p: p.stat() for p in bench.raw.glob("*.mp4")}
    attempts, shards = bench.attempts(), bench.lake.shards()
    assert len(bytes_with(tmp_path / "lake", video)) > 15
    (done,) = forget(bench, video, reason="consent withdrawn")
    assert done.warnings == []
    counted = {what for what, count in done.counts.items() if count}
    assert {"rows", "versions", "arrays", "carried states", "pictures"} <= counted
    assert {"damaged files", "reviews", "links", "files of galleries"} <= counted
    assert set(LinkFiles(bench.lake).newest()) == {"m"}
    assert [path.name for path in (bench.raw / ".ingest").iterdir()] == ["m.part"]
    assert [k[-4:] for k in bench.lake.storage.list(f"_galleries/{shards[0]}")] == [".mp4"]
    assert [review.subject[:16] for review in ReviewFiles(bench.lake).all()] != [video]
    assert len(ReviewFiles(bench.lake).all()) == 1
    for word in (video, "anna"):
        assert bytes_with(tmp_path / "lake", word) == []
    assert others(bench, video) == before
    assert {p: p.stat() for p in bench.raw.glob("*.mp4")} == raw
    assert problems(bench) == []
    content = json.loads((tmp_path / "lake" / "_forgotten" / f"{video}.json").read_text())
    assert content.keys() == {"video_id", "sha256", "byte_size", "forgotten_at", "reason"}
    assert content["reason"] == "consent withdrawn"
    assert Contents(bench.ledger).tombstones()[video].sha256 == content["sha256"]
    # Nothing is done again, and nobody else's rows, arrays and versions went along.
    bench.make()
    assert (bench.attempts(), others(bench, video)) == (attempts, before)
    assert len(bench.lake.storage.list(f"object_movements/_arrays/{shards[0]}")) == 1
    assert history.kept(bench.lake, "clips", shards[0])
    assert Pictures(bench.lake).read("clips", LATEST) is None


def test_pictures_of_other_shards_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are most of the bytes of a lake: to forget must not take longer the more there are."""
    bench = RawBench(tmp_path)
    bench.run()
    (shard,) = bench.lake.shards()
    video, storage = bench.video("b.mp4")["video_id"], bench.lake.storage
    beside = [("_galleries", "x.mp4"), ("_previews/clips", ""), ("_carried/op", "x.npz")]
    for of in (shard, "20250101-0000"):
        for folder, name in beside:
            storage.write(f"{folder}/{of}/{name}" if name else f"{folder}/{of}.jpg", b"picture")
    opened: list[str] = []
    open_file = type(storage).open

    def noted(self: Any, key: str) -> Any:
        opened.append(key)
        return open_file(self, key)

    monkeypatch.setattr(type(storage), "open", noted)
    forget(bench, video)
    assert f"_galleries/{shard}/x.mp4" in opened
    assert [key for key in opened if "20250101-0000" in key] == []


def test_a_data_set_in_the_lake_that_has_the_video_is_deleted(tmp_path: Path) -> None:
    bench = RawBench(tmp_path)
    bench.run()
    video, other = (bench.video(f"{name}.mp4")["video_id"] for name in "ba")
    for name, whose in (("mine", [video, other]), ("theirs", [other])):
        folder = tmp_path / "lake" / IN_LAKE / name
        (folder / "meta").mkdir(parents=True)
        (folder / "videos.mp4").write_bytes(b"pictures of nobody can tell whom")
        provenance = [json.dumps({"video_id": each}) for each in whose]
        pq.write_table(pa.table({"provenance": provenance}), folder / "meta" / "episodes.parquet")
    mine = tmp_path / "lake" / IN_LAKE / "mine"
    with alone_in(mine), pytest.raises(erase.ForgetError, match="another export is writing to it"):
        forget(bench, video)
    (done,) = forget(bench, video)
    assert done.warnings == ["exports/mine was deleted, since it had the video: export it again"]
    left = {p.name for p in (tmp_path / "lake" / IN_LAKE).rglob("*") if p.is_file()}
    assert left == {"videos.mp4", "episodes.parquet"}
    assert not list((tmp_path / "lake" / IN_LAKE / "mine").rglob("*.*"))
    assert problems(bench) == []
    # Files of somebody else stop neither this nor `ego verify`.
    for folder in ("_carried", "notes"):
        (tmp_path / "lake" / folder).mkdir(exist_ok=True)
    (tmp_path / "lake" / "_carried" / "of nobody").write_text("x")
    os.mkfifo(tmp_path / "lake" / "notes" / "pipe")
    (tmp_path / "lake" / "notes" / "a\nb.txt").write_text("x")
    (done,) = forget(bench, other)
    assert "a\\nb.txt' of the lake was not searched" in " ".join(done.warnings)
    assert "a\\nb.txt': it was not searched" in " ".join(problems(bench))


@pytest.mark.parametrize("is_known_to_the_ledger", [True, False])
def test_a_forgotten_content_does_not_come_back_under_any_name(
    tmp_path: Path, is_known_to_the_ledger: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "RACY_NS", 0)
    bench = RawBench(tmp_path)
    bench.run()
    video = bench.video("b.mp4")["video_id"]
    forget(bench, str(bench.raw / "b.mp4"))
    if not is_known_to_the_ledger:
        shutil.rmtree(tmp_path / "lake" / "_ledger")
        ready(bench.lake, bench.ledger)
    shutil.copy(bench.raw / "b.mp4", bench.raw / "anna.mp4")
    files = {str(p): p.stat().st_size for p in bench.raw.glob("*.mp4")}
    passed = pass_over(bench.lake, bench.ledger, files)
    assert passed.files == {str(bench.raw / n): video for n in ("anna.mp4", "b.mp4")}
    for _ in range(2):
        assert look(bench).shards == []
    with bench.ledger.reading() as connection:
        names = connection.execute(sa.text("SELECT uri FROM raw_files")).scalars().all()
    assert "anna" not in str(names)
    assert [n for n in bytes_with(tmp_path / "lake", "anna") if "ledger" not in n] == []
    assert problems(bench) == []


def look(bench: RawBench) -> ScanReport:
    """As the raw-data sensor does."""
    limits = Limits(settle_s=0, wait_s=0)
    return Arrivals(bench.lake, bench.ledger, limits).look([str(bench.raw)])


def test_it_is_told_once_and_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "RACY_NS", 0)
    bench = RawBench(tmp_path)
    bench.run()
    forget(bench, bench.video("b.mp4")["video_id"])
    uri = str(bench.raw / "b.mp4")
    files = {uri: Path(uri).stat().st_size}
    assert pass_over(bench.lake, bench.ledger, files).new == [uri]
    with monkeypatch.context() as patch:
        patch.setattr(RawReader, "sha256", lambda *_: pytest.fail("it was read again"))
        again = pass_over(bench.lake, bench.ledger, files)
        assert (list(again.files), again.new) == ([uri], [])
        assert look(bench).new == 2  # a.mp4 and c.mp4, which a sensor has not seen yet
    write_video(bench.raw / "b.mp4", frames=30)
    assert pass_over(bench.lake, bench.ledger, {uri: Path(uri).stat().st_size}).files == {}
    assert look(bench).new == 1


def test_another_file_of_its_size_is_read_once_for_each_tombstone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "RACY_NS", 0)
    bench = RawBench(tmp_path)
    bench.ledger.open()
    path, reads = tmp_path / "new.mp4", []
    path.write_bytes(b"0123456789")
    real = RawReader.sha256
    monkeypatch.setattr(RawReader, "sha256", lambda s, uri: (reads.append(uri), real(s, uri))[1])

    def passed(*hashes: str) -> list[str]:
        for sha256 in hashes:
            Contents(bench.ledger).bury([Tombstone(sha256[:16], sha256, 10, "2026")])
        return list(pass_over(bench.lake, bench.ledger, {str(path): 10}).files)

    assert (passed("a" * 64), passed(), len(reads)) == ([], [], 1)
    own = hashlib.sha256(b"0123456789").hexdigest()
    assert (passed(own), len(reads)) == ([str(path)], 2)


def test_a_file_that_holds_it_under_a_known_name_gets_no_rows_and_verify_tells(
    tmp_path: Path,
) -> None:
    """It was written over another file of a shard: the listing leaves that to the shard's run."""
    bench = RawBench(tmp_path)
    bench.run()
    video = bench.video("b.mp4")["video_id"]
    forget(bench, video)
    shutil.copy(bench.raw / "b.mp4", bench.raw / "c.mp4")
    bench.make()
    row = bench.video("c.mp4")
    assert (row["accepted"], row["reject_reason"]) == (False, "forgotten")
    assert video not in {r["video_id"] for r in bench.rows()["clips"]}
    assert [p.kind for p in audit.verify(bench.lake, bench.ledger)].count(FORGOTTEN) >= 2
    erase.resume(bench.lake, bench.ledger, [video], lambda words, shards: [])
    assert problems(bench) == []
    assert bytes_with(tmp_path / "lake", video) == []


def test_a_file_that_was_never_taken_in_is_forgotten_before_it_is(tmp_path: Path) -> None:
    bench = RawBench(tmp_path)
    bench.run()
    write_video(bench.raw / "new.mp4", frames=40)
    (done,) = forget(bench, str(bench.raw / "new.mp4"))
    assert done.shards == []
    files = {str(bench.raw / "new.mp4"): (bench.raw / "new.mp4").stat().st_size}
    assert list(pass_over(bench.lake, bench.ledger, files).files) == list(files)
    with pytest.raises(UnknownVideoError, match="no video"):
        forget(bench, "0123456789abcdef")
    with pytest.raises(UnknownVideoError, match="nowhere"):
        forget(bench, str(tmp_path / "nowhere.mp4"))


def test_an_earlier_content_of_a_file_is_forgotten_and_its_present_one_stays(
    tmp_path: Path,
) -> None:
    bench = RawBench(tmp_path)
    bench.run()
    old = bench.video("b.mp4")["video_id"]
    write_video(bench.raw / "b.mp4", frames=31, light=140)
    bench.run()
    new = bench.video("b.mp4")["video_id"]
    before = others(bench, old)
    assert any(old in name for name in bytes_with(tmp_path / "lake", old)) or bytes_with(
        tmp_path / "lake", old
    )
    forget(bench, old)
    assert others(bench, old) == before
    assert bench.video("b.mp4")["video_id"] == new
    assert bytes_with(tmp_path / "lake", old) == []
    assert problems(bench) == []
    attempts = bench.attempts()
    bench.run()
    assert bench.attempts() == attempts


def test_no_version_keeps_a_path_of_it_for_an_earlier_content(tmp_path: Path) -> None:
    bench = RawBench(tmp_path)
    bench.run()
    write_video(bench.raw / "b.mp4", frames=31, light=140)
    bench.run()
    new = bench.video("b.mp4")["video_id"]
    before = others(bench, new)
    path = tmp_path / "lake" / "notes" / "list.txt"
    path.parent.mkdir()
    path.write_text(f"{bench.raw}/b.mp4.sum and {bench.raw}/b.mp4")
    (done,) = forget(bench, new)
    assert [w.split(" ")[0] for w in done.warnings] == ["notes/list.txt"]
    path.write_text(f"{bench.raw}/b.mp4.sum")
    (done,) = forget(bench, new)
    assert done.warnings == []
    path.unlink()
    assert bytes_with(tmp_path / "lake", f"{bench.raw}/b.mp4") == []
    assert others(bench, new) == before
    assert problems(bench) == []


def test_while_somebody_works_on_its_shard_nothing_is_forgotten(tmp_path: Path) -> None:
    bench = RawBench(tmp_path)
    bench.run()
    video, other = (bench.video(n)["video_id"] for n in ("b.mp4", "a.mp4"))
    start = {"fingerprint": "f", "worker": _worker(), "run_id": "of somebody"}
    attempt = bench.ledger.start("object_movements", f"{other}-0000", **start)
    rows = bench.rows()
    with pytest.raises(erase.ForgetError, match="run of somebody"):
        forget(bench, video)
    assert bench.rows() == rows
    assert tombstones.in_lake(bench.lake) == set()
    bench.ledger.interrupt("object_movements", f"{other}-0000", attempt)
    forget(bench, video)
    bench.ledger.expect("object_movements", bench.lake.shards()[0], [(f"{video}-0000", video)])
    with pytest.raises(BusyError, match="forgotten"):
        bench.ledger.start("object_movements", f"{video}-0000", **start)


def _worker() -> str:
    from resources.processes import process_name

    return process_name()


# -- killed at any point ---------------------------------------------------------------------------


def killed_at(number: int, work: Any) -> bool:
    """Whether work in a process of its own was killed before its change of that number."""
    if (child := os.fork()) == 0:
        try:
            kill_before(number)
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "it failed by itself"
    return os.WIFSIGNALED(status)


def reopened(root: Path) -> RawBench:
    bench = RawBench.__new__(RawBench)
    bench.root, bench.raw, bench.signals = root, root / "raw", root / "signals"
    bench.lake, bench.ledger = Lake(root / "lake"), Ledger.beside(root / "lake")
    bench.runs = 9
    return bench


def test_forgetting_that_is_killed_at_any_point_is_gone_on_with(tmp_path: Path) -> None:
    first = RawBench(tmp_path / "first")
    video = full_lake(first)
    before = others(first, video)
    number, is_killed = 0, True
    while is_killed:
        shutil.rmtree(tmp_path / "lake", ignore_errors=True)
        shutil.copytree(tmp_path / "first" / "lake", tmp_path / "lake")
        bench = reopened(tmp_path)
        is_killed = killed_at(number, lambda bench=bench: forget(bench, video))
        found = audit.verify(bench.lake, bench.ledger)
        buried = Contents(bench.ledger).tombstones().keys()
        was_begun = video in tombstones.in_lake(bench.lake) | buried
        is_over = was_begun and not tombstones.unfinished(bench.lake, [video]) and not found
        assert is_killed or is_over, number
        assert is_over or was_begun == (FORGOTTEN in {p.kind for p in found}), number
        if number % 2 and was_begun:
            erase.resume(bench.lake, bench.ledger, [video], lambda words, shards: [])
        else:
            forget(bench, video)
        assert problems(bench) == [], number
        assert bytes_with(tmp_path / "lake", video) == [], number
        assert bytes_with(tmp_path / "lake", "anna") == [], number
        assert others(bench, video) == before, number
        number += 1 if number < 8 else 13
    assert number > 60


# -- S3 --------------------------------------------------------------------------------------------


def test_a_bucket_that_keeps_versions_keeps_none_of_a_forgotten_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server(monkeypatch):
        bucket, client = new_bucket(), s3_client()
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        bench = RawBench(tmp_path)
        bench.lake = Lake(f"s3://{bucket}/lake")
        video = full_lake(bench)
        before = others(bench, video)
        not_its = [
            "_places/other.json",
            "_choices/probe/other.json",
            "_damaged/clips/other.parquet.1",
        ]
        for key in not_its * 2:
            bench.lake.storage.write(key, b"{}")
        (done,) = forget(bench, video)
        assert done.counts["earlier versions of objects"] > 10
        assert others(bench, video) == before
        assert problems(bench) == []
        assert kept_with(client, bucket, video) == []
        assert kept_with(client, bucket, "anna") == []
        for key in not_its:
            found = client.list_object_versions(Bucket=bucket, Prefix=f"lake/{key}")
            assert len(found["Versions"]) == 2, key


def test_versions_go_in_pages_and_so_do_marks_of_deletion(monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server(monkeypatch):
        bucket, client = new_bucket(), s3_client()
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        for number in range(5):
            for _ in range(3):
                client.put_object(Bucket=bucket, Key=f"a/{number}", Body=b"x")
        client.delete_object(Bucket=bucket, Key="a/4")
        requests: list[str] = []
        real = client.get_paginator

        class InPagesOfFour:
            def paginate(self, **given: Any) -> Any:
                pages = real("list_object_versions").paginate(
                    **given, PaginationConfig={"PageSize": 4}
                )
                for page in pages:
                    requests.append("page")
                    yield page

        monkeypatch.setattr(client, "get_paginator", lambda name: InPagesOfFour())
        monkeypatch.setattr(client, "delete_object", lambda **_: pytest.fail("one by one"))
        assert purge_versions(client, bucket, "a/", lambda key: key != "a/0") == 3 * 2 + 3 + 1
        assert len(requests) > 4
        left = client.list_object_versions(Bucket=bucket, Prefix="a/")
        assert [v["Key"] for v in left["Versions"]] == ["a/0"] * 3 + ["a/1", "a/2", "a/3"]
        assert "DeleteMarkers" not in left


def test_who_may_not_list_versions_is_told_at_the_end_and_all_else_is_erased(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server(monkeypatch):
        bench = RawBench(tmp_path)
        bench.lake = Lake(f"s3://{new_bucket()}/lake")
        bench.run()
        video = bench.video("b.mp4")["video_id"]
        denied = {"Error": {"Code": "AccessDenied", "Message": "not allowed"}}

        def refuse(*_: Any) -> Any:
            raise ClientError(denied, "ListObjectVersions")

        client = bench.lake.storage.client
        real = client.get_paginator
        monkeypatch.setattr(
            client, "get_paginator", lambda n: refuse() if n == "list_object_versions" else real(n)
        )
        (done,) = forget(bench, video)
        (warning,) = done.warnings
        assert "s3:ListBucketVersions" in warning
        assert problems(bench) == []
        assert video not in {r["video_id"] for r in bench.rows()["clips"]}
        # A listing that makes up for a tombstone the lake has lost goes on, too.
        bench.lake.storage.delete(f"_forgotten/{video}.json")
        uri = str(bench.raw / "b.mp4")
        assert list(pass_over(bench.lake, bench.ledger, {uri: Path(uri).stat().st_size}).files)


def kept_with(client: Any, bucket: str, word: str) -> list[str]:
    """Objects, of any version, with a word in their keys, bytes or rows; but for tombstones."""
    found = []
    for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket):
        for entry in (*page.get("Versions", ()), *page.get("DeleteMarkers", ())):
            key = entry["Key"]
            if "/_forgotten/" in key:
                continue
            data = b""
            if "Size" in entry:
                data = client.get_object(Bucket=bucket, Key=key, VersionId=entry["VersionId"])[
                    "Body"
                ].read()
            if data[:4] == b"PAR1" and key.endswith(".parquet"):
                batch = pq.read_table(pa.BufferReader(data))
                data += str(batch.schema.metadata).encode() + str(batch.to_pylist()).encode()
            if word in key or word.encode() in data:
                found.append(key)
    return found


# -- Postgres --------------------------------------------------------------------------------------


def test_a_ledger_on_postgres_forgets_too(tmp_path: Path) -> None:
    with Postgres.started() as server:
        bench = RawBench(tmp_path)
        bench.ledger = Ledger(server.new_database())
        bench.sources = Sources(bench.ledger)
        video = full_lake(bench)
        before = others(bench, video)
        bench.ledger.requeue("clips", [bench.video("a.mp4")["video_id"]], f"beside {video}-0000")
        forget(bench, video)
        with bench.ledger.reading() as connection:
            tables = sa.MetaData()
            tables.reflect(connection)
            rows = [
                str(row)
                for name, table in tables.tables.items()
                for row in connection.execute(sa.select(table))
                if name != "forgotten"
            ]
        assert [row for row in rows if video in row or "anna" in row] == []
        assert any("beside (forgotten)-0000" in row for row in rows)
        assert others(bench, video)["rows"] == before["rows"]
        assert Contents(bench.ledger).tombstones()[video].sha256.startswith(video)
