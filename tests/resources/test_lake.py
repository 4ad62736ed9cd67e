"""The lake: every row once, whatever is in fragments and whatever is compacted."""

from __future__ import annotations

import hashlib
import itertools
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from ego_assets.catalog import TABLES
from resources.lake import Lake, LakeError, Provenance
from resources.lake.table import ContractError

SHARD = "20260101-0000"


_tokens = itertools.count(1)


def provenance(fingerprint: str = "f", token: int | None = None) -> Provenance:
    """Of an attempt; newer than those before it unless a token is given."""
    names = Provenance.__dataclass_fields__
    values: dict[str, Any] = dict.fromkeys(names, "x") | {"attempt": 1, "fingerprint": fingerprint}
    return Provenance(**values | {"token": next(_tokens) if token is None else token})


def poses(clip: str, frames: range, x: float = 0.0) -> list[dict[str, Any]]:
    return [
        {
            "video_id": "v",
            "shard": SHARD,
            "clip_id": clip,
            "frame_index": f,
            "pts_s": f / 30,
            "is_context": False,
            "track_id": f"{clip}-h001",
            "side": "left",
            "is_valid": True,
            "invalid_reason": None,
            "joints_px": np.full((21, 2), x).tolist(),
            "joints_camera_m": np.full((21, 3), x).tolist(),
            "camera_from_hand_m": [x, 0.0, 1.0],
            "camera_from_hand_xyzw": [0.0, 0.0, 0.0, 1.0],
            "mano_pose": None,
            "mano_betas": None,
            "box": [0.0, 0.0, 1.0, 1.0],
            "score": 0.5,
            "backend": "b",
            "quality_tier": "baseline",
        }
        for f in frames
    ]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def publish(
    lake: Lake, clip: str, x: float = 0.0, fingerprint: str = "f", token: int | None = None
) -> None:
    batch = TABLES["hand_poses"].from_rows(poses(clip, range(5), x))
    lake.publish("hand_poses", SHARD, clip, batch, provenance(fingerprint, token))


def first_x(lake: Lake, clip: str) -> float:
    rows = lake.read("hand_poses", SHARD, items=[clip]).to_pylist()
    assert len(rows) == 5
    return rows[0]["camera_from_hand_m"][0]


def test_what_is_published_is_read(lake: Lake) -> None:
    publish(lake, "a", 1.5)
    rows = lake.read("hand_poses", SHARD)
    assert rows.num_rows == 5
    assert rows.schema.equals(TABLES["hand_poses"].arrow_schema())
    assert rows["joints_px"][0].as_py() == [[1.5, 1.5]] * 21
    assert rows["mano_pose"].null_count == 5


def test_compaction_keeps_every_row_once_and_its_provenance(lake: Lake) -> None:
    publish(lake, "b", 2, "fb")
    publish(lake, "a", 1, "fa")
    assert lake.compact("hand_poses", SHARD, ["a", "b"]) == 10
    assert not list(lake.root.rglob("_fragments/*/*.parquet"))
    file = pq.read_table(lake.root / "hand_poses" / f"{SHARD}.parquet")
    assert file["clip_id"].to_pylist() == ["a"] * 5 + ["b"] * 5
    assert lake.fingerprints("hand_poses", SHARD) == {"a": "fa", "b": "fb"}
    found = lake.provenance("hand_poses", SHARD, "b")
    assert found is not None
    assert found == provenance("fb", found.token)


def test_a_newer_fragment_beats_the_compacted_rows(lake: Lake) -> None:
    publish(lake, "a", 1)
    publish(lake, "b", 2)
    lake.compact("hand_poses", SHARD, ["a", "b"])
    publish(lake, "a", 7, "newer")
    assert lake.read("hand_poses", SHARD).num_rows == 10
    assert (first_x(lake, "a"), first_x(lake, "b")) == (7, 2)
    lake.compact("hand_poses", SHARD, ["a", "b"])
    assert (first_x(lake, "a"), first_x(lake, "b")) == (7, 2)
    assert lake.fingerprint("hand_poses", SHARD, "a") == "newer"


def test_compaction_drops_units_that_are_gone(lake: Lake) -> None:
    publish(lake, "a")
    publish(lake, "gone")
    assert lake.compact("hand_poses", SHARD, ["a"]) == 5
    assert set(lake.fingerprints("hand_poses", SHARD)) == {"a"}


def test_a_killed_compaction_leaves_each_row_once(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(lake, "a", 3)

    def killed(key: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(lake.storage, "delete", killed)
    with pytest.raises(KeyboardInterrupt):
        lake.compact("hand_poses", SHARD, ["a"])
    monkeypatch.undo()
    assert first_x(lake, "a") == 3
    assert lake.compact("hand_poses", SHARD, ["a"]) == 5


@pytest.mark.parametrize("when", ["before", "between", "after", "long after"])
def test_a_late_attempt_never_replaces_a_newer_one(lake: Lake, when: str) -> None:
    """Attempt 10 is late: it publishes before or after attempt 20 and the compactions."""

    def late() -> None:
        publish(lake, "a", 1, "late", token=10)

    if when == "before":
        late()
    publish(lake, "a", 2, "newer", token=20)
    if when == "between":
        late()
    lake.compact("hand_poses", SHARD, ["a"])
    if when == "after":
        late()
    assert first_x(lake, "a") == 2
    publish(lake, "b", 5)
    lake.compact("hand_poses", SHARD, ["a", "b"])
    if when == "long after":
        late()
    assert first_x(lake, "a") == 2
    assert lake.fingerprint("hand_poses", SHARD, "a") == "newer"
    lake.compact("hand_poses", SHARD, ["a", "b"])
    assert not list(lake.root.rglob("_fragments/*/*.parquet")), "the late rows are swept"
    assert lake.read("hand_poses", SHARD).num_rows == 10


def test_arrays_and_carried_state_are_fenced_too(lake: Lake) -> None:
    newer = lake.publish_arrays("scene_reconstruction", SHARD, "a", {"p": np.ones(2)}, 20)
    late = lake.publish_arrays("scene_reconstruction", SHARD, "a", {"p": np.zeros(2)}, 10)
    assert lake.read_arrays(newer)["p"].tolist() == [1, 1]
    assert newer != late
    lake.write_carried("s", SHARD, "a", {"n": 20}, 20)
    lake.write_carried("s", SHARD, "a", {"n": 10}, 10)
    lake.write_carried("s", SHARD, "ab", {"n": 5}, 5)
    assert lake.read_carried("s", SHARD, "a") == {"n": 20}
    lake.write_carried("s", SHARD, "a", {"n": 30}, 30)
    assert lake.read_carried("s", SHARD, "a") == {"n": 30}
    assert lake.read_carried("s", SHARD, "ab") == {"n": 5}
    assert len(list(lake.root.glob(f"_carried/s/{SHARD}/a.*"))) == 1


def test_two_compactions_at_once_lose_nothing(lake: Lake) -> None:
    """Without the lock, the slower one would write what it read before the faster one."""
    clips = [f"c{i}" for i in range(4)]
    errors: list[BaseException] = []

    def compact() -> None:
        try:
            for _ in range(15):
                Lake(lake.root).compact("hand_poses", SHARD, clips)
        except BaseException as error:
            errors.append(error)

    for clip in clips:
        publish(lake, clip, 0)
    threads = [threading.Thread(target=compact) for _ in range(3)]
    for thread in threads:
        thread.start()
    for round_ in range(1, 12):
        for clip in clips:
            publish(lake, clip, round_)
    for thread in threads:
        thread.join()
    assert errors == []
    lake.compact("hand_poses", SHARD, clips)
    assert [first_x(lake, c) for c in clips] == [11] * 4


def test_a_compacted_file_has_its_checksum_beside_it(lake: Lake) -> None:
    for x in (1, 2):
        publish(lake, "a", x)
        lake.compact("hand_poses", SHARD, ["a"])
    data = (lake.root / "hand_poses" / f"{SHARD}.parquet").read_bytes()
    (sums,) = (lake.root / "hand_poses" / "_checksums").iterdir()
    found = json.loads(sums.read_text())
    assert found == {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def test_an_empty_unit_counts_as_done(lake: Lake) -> None:
    empty = TABLES["hand_poses"].from_rows([])
    lake.publish("hand_poses", SHARD, "a", empty, provenance("nothing"))
    assert lake.compact("hand_poses", SHARD, ["a"]) == 0
    assert lake.fingerprint("hand_poses", SHARD, "a") == "nothing"
    assert lake.read("hand_poses", SHARD).num_rows == 0


def test_readers_see_every_row_once_while_compactions_run(lake: Lake) -> None:
    clips = [f"c{i}" for i in range(6)]
    for clip in clips:
        publish(lake, clip)
    over = threading.Event()
    seen: list[int] = []

    def read() -> None:
        while not over.is_set():
            seen.append(Lake(lake.root).read("hand_poses", SHARD).num_rows)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(10):
        lake.compact("hand_poses", SHARD, clips)
        for clip in clips:
            publish(lake, clip)
    over.set()
    reader.join()
    assert seen
    assert set(seen) == {30}


def test_a_batch_outside_the_contract_is_refused(lake: Lake) -> None:
    rows = poses("a", range(2))
    rows[1]["score"] = 1.5
    with pytest.raises(ContractError, match="score"):
        TABLES["hand_poses"].from_rows(rows)
    good = TABLES["hand_poses"].from_rows(poses("a", range(2)))
    with pytest.raises(ContractError, match="hand_poses"):
        lake.publish("hand_poses", SHARD, "a", good.drop_columns("side"), provenance())
    assert lake.read("hand_poses", SHARD).num_rows == 0


def test_a_damaged_file_is_named(lake: Lake) -> None:
    publish(lake, "a")
    lake.compact("hand_poses", SHARD, ["a"])
    path = lake.root / "hand_poses" / f"{SHARD}.parquet"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(LakeError, match="--repair"):
        lake.read("hand_poses", SHARD)


def test_carried_state_comes_back_as_it_was(lake: Lake) -> None:
    carried = {"count": 3, "names": ["a", "b"], "mask": np.arange(6, dtype=np.uint8).reshape(2, 3)}
    lake.write_carried("segmenter", SHARD, "a", carried)
    found = lake.read_carried("segmenter", SHARD, "a")
    assert found is not None
    assert (found["count"], found["names"]) == (3, ["a", "b"])
    np.testing.assert_array_equal(found["mask"], carried["mask"])
    assert found["mask"].dtype == np.uint8
    assert lake.read_carried("segmenter", SHARD, "b") is None


def test_a_shard_never_changes(lake: Lake) -> None:
    assert lake.write_shard(SHARD, {"files": [1]})
    assert not lake.write_shard(SHARD, {"files": [2]})
    assert lake.read_shard(SHARD) == {"files": [1]}
    with pytest.raises(LakeError, match="register_videos"):
        lake.read_shard("20260101-0001")
