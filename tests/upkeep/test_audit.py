"""`verify` names every damage, `repair` has it made again, and a sound lake raises no alarm."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ego_assets.catalog import TABLES
from ego_assets.upkeep.audit import repair, verify
from resources.lake import Lake, Provenance
from resources.ledger import Ledger, State

SHARD = "20260101-0000"
TABLE = "clips"
ITEMS = [f"{n:016x}" for n in range(4)]


def rows_of(item: str) -> list[dict[str, Any]]:
    fields: dict[str, Any] = dict.fromkeys(TABLES[TABLE].model_fields)
    return [
        fields
        | {"video_id": item, "shard": SHARD, "clip_id": f"{item}-{n:04d}", "clip_index": n}
        | {"take_id": f"{item}-t000", "index_in_take": n, "start_frame": n, "end_frame": n + 1}
        | {"start_pts_s": float(n), "end_pts_s": n + 1.0, "context_frames": 0}
        | {"split_reason": "start", "estimated_cost": 1.0}
        for n in range(3)
    ]


class Bench:
    """A lake with one table of one shard, its items done as workers do them."""

    def __init__(self, folder: Path) -> None:
        self.lake = Lake(folder / "lake")
        self.ledger = Ledger.beside(self.lake.root)
        self.lake.write_shard(SHARD, {"files": []})
        self.ledger.expect(TABLE, SHARD, [(u, u) for u in ITEMS])
        self.work()

    def work(self, *, compact: bool = True) -> int:
        """Do what is not done. Returns how many items that was."""
        todo = [e.item_id for e in self.ledger.entries() if e.state is not State.DONE]
        self._do(todo, "r", "f", compact)
        return len(todo)

    def work_again(self, run_id: str, fingerprint: str) -> None:
        """Do everything once more, as another run."""
        self._do(ITEMS, run_id, fingerprint, True)

    def _do(self, todo: list[str], run_id: str, fingerprint: str, compact: bool) -> None:
        for item in todo:
            attempt = self.ledger.start(
                TABLE, item, fingerprint=fingerprint, worker="w", run_id=run_id
            )
            names: dict[str, Any] = dict.fromkeys(Provenance.__dataclass_fields__, "x")
            values = names | {"attempt": 1, "fingerprint": fingerprint, "token": attempt.token}
            values["run_id"] = run_id
            batch = TABLES[TABLE].from_rows(rows_of(item))
            published = self.lake.publish(TABLE, SHARD, item, batch, Provenance(**values))
            self.ledger.finish(TABLE, item, attempt, published.sha256)
        if compact:
            self.lake.compact(TABLE, SHARD, ITEMS)

    @property
    def file(self) -> Path:
        return self.lake.root / TABLE / f"{SHARD}.parquet"

    def fragment(self) -> Path:
        """Of the first item, done again and not compacted."""
        self.ledger.requeue(TABLE, [ITEMS[0]], "test")
        self.work(compact=False)
        (found,) = self.lake.root.glob(f"{TABLE}/_fragments/{SHARD}/{ITEMS[0]}.*")
        return found

    def kinds(self) -> list[str]:
        return [p.kind for p in verify(self.lake, self.ledger)]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << (position % 8)
    path.write_bytes(data)


def test_a_sound_lake_has_no_problems(bench: Bench) -> None:
    assert verify(bench.lake, bench.ledger) == []
    bench.fragment()
    assert verify(bench.lake, bench.ledger) == []


def test_every_flipped_bit_is_found(bench: Bench) -> None:
    """In pages, footer, metadata and magic alike."""
    good = bench.file.read_bytes()
    positions = [*random.Random(3).sample(range(len(good)), 150), 0, len(good) - 1]
    for position in positions:
        flip(bench.file, position)
        assert bench.kinds() == ["damaged"], position
        bench.file.write_bytes(good)
    assert bench.kinds() == []


def _cut(bench: Bench) -> None:
    bench.file.write_bytes(bench.file.read_bytes()[:-10])


def _empty(bench: Bench) -> None:
    bench.file.write_bytes(b"")


def _remove(bench: Bench) -> None:
    bench.file.unlink()


def _other_columns(bench: Bench) -> None:
    """By a program that knows neither our contract nor our checksums."""
    table = pq.read_table(bench.file)
    pq.write_table(table.drop_columns("split_reason"), bench.file)
    for path in (bench.lake.root / TABLE / "_checksums").iterdir():
        path.unlink()


def _flip_fragment(bench: Bench) -> None:
    flip(bench.fragment(), 300)


def _cut_fragment(bench: Bench) -> None:
    fragment = bench.fragment()
    fragment.write_bytes(fragment.read_bytes()[:200])


def _lose_fragment(bench: Bench) -> None:
    bench.fragment().unlink()
    bench.file.unlink()


def _other_fingerprint(bench: Bench) -> None:
    attempt = bench.ledger.start(TABLE, ITEMS[2], fingerprint="g", worker="w", run_id="r")
    bench.ledger.finish(TABLE, ITEMS[2], attempt)


@pytest.mark.parametrize(
    ("damage", "kind", "items"),
    [
        (_cut, "damaged", 4),
        (_empty, "damaged", 4),
        (_remove, "missing", 4),
        (_other_columns, "breaks_contract", 4),
        (_flip_fragment, "damaged", 1),
        (_cut_fragment, "damaged", 1),
        (_lose_fragment, "missing", 4),
        (_other_fingerprint, "stale", 1),
    ],
)
def test_what_is_damaged_is_named_and_made_again(
    bench: Bench, damage: Callable[[Bench], None], kind: str, items: int
) -> None:
    damage(bench)
    problems = verify(bench.lake, bench.ledger)
    assert [(p.kind, len(p.units)) for p in problems] == [(kind, items)]
    assert SHARD in str(problems[0])
    assert repair(bench.lake, bench.ledger, problems)["units"] == items
    assert bench.work() == items
    assert verify(bench.lake, bench.ledger) == []
    assert bench.lake.read(TABLE, SHARD).num_rows == 3 * len(ITEMS)


def test_damaged_files_are_put_aside_and_never_deleted(bench: Bench) -> None:
    flip(bench.file, 50)
    data = bench.file.read_bytes()
    repair(bench.lake, bench.ledger, verify(bench.lake, bench.ledger))
    assert not bench.file.exists()
    assert (bench.lake.root / "_damaged" / TABLE / bench.file.name).read_bytes() == data


def test_what_belongs_nowhere_is_named(bench: Bench) -> None:
    stray = bench.file.with_name("20991231-0000.parquet")
    stray.write_bytes(bench.file.read_bytes())
    orphan = bench.fragment().with_name("ffff.0000000000000001.parquet")
    orphan.write_bytes(b"x")
    problems = verify(bench.lake, bench.ledger)
    assert {(p.kind, Path(p.key).name) for p in problems} == {
        ("extra", stray.name),
        ("extra", orphan.name),
    }
    repair(bench.lake, bench.ledger, problems)
    assert verify(bench.lake, bench.ledger) == []


def test_a_file_of_a_release_without_checksums_gets_one(bench: Bench) -> None:
    for path in (bench.lake.root / TABLE / "_checksums").iterdir():
        path.unlink()
    assert bench.kinds() == ["unverified"]
    repair(bench.lake, bench.ledger, verify(bench.lake, bench.ledger))
    assert bench.kinds() == []
    flip(bench.file, 40)
    assert bench.kinds() == ["damaged"]
