"""What was chosen for a shard is kept, and each take is made as it was chosen for it last."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ego_assets.engine.choices import Choice, ChoiceError, Choices, Part, share_out
from ego_assets.engine.plan import ShardInputs
from ego_assets.engine.runner import run_stage
from ego_assets.upkeep.staleness import find_stale
from resources.lake import Lake
from tests.engine.stage_bench import SHARD, Bench

SHORT = "short00000000000-0000"
MIDDLE = "long000000000000-0001"
WIDE = Choice({"touch_share": 0.5}, {}, (), "a")
ONE = Choice({"touch_share": 0.7}, {}, (MIDDLE,), "b")


def test_the_last_word_on_a_shard_or_a_clip_counts(tmp_path: Path) -> None:
    choices = Choices(Lake(tmp_path))
    assert choices.of("clips", SHARD) == []
    choices.keep("clips", SHARD, WIDE)
    choices.keep("clips", SHARD, ONE)
    assert choices.of("clips", SHARD) == [WIDE, ONE]
    stored = json.loads(next(tmp_path.rglob(f"{SHARD}.json")).read_text())
    assert stored[1]["units"] == [MIDDLE], "as all releases read it"
    assert choices.of("clips", "another") == choices.of("other", SHARD) == []
    other = replace(ONE, settings={}, run_id="c")  # back to the defaults, for this clip
    choices.keep("clips", SHARD, other)
    assert Choices(Lake(tmp_path)).of("clips", SHARD) == [WIDE, other]
    choices.keep("clips", SHARD, Choice())
    assert choices.of("clips", SHARD) == []


def test_what_held_once_holds_again(tmp_path: Path) -> None:
    choices = Choices(Lake(tmp_path))
    wide, one = replace(WIDE, made_at="2026-01-01"), replace(ONE, made_at="2026-01-02")
    default = Choice(made_at="2026-01-03")
    for choice in (wide, one, default):
        choices.keep("clips", SHARD, choice)
    assert not choices.go_back("clips", SHARD, "2026-01-04")
    assert choices.go_back("clips", SHARD, "2026-01-02")
    assert choices.of("clips", SHARD) == [wide, one]
    for day in range(30):  # an old one that still holds is kept, however many come
        choices.keep("clips", SHARD, replace(one, made_at=f"2026-02-{day:02d}"))
    assert choices.of("clips", SHARD)[0] == wide
    assert choices.go_back("clips", SHARD, "2025")
    assert choices.of("clips", SHARD) == []
    assert not list(tmp_path.rglob("*.json"))


def test_a_file_that_makes_no_sense_says_what_to_do(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    Choices(lake).keep("clips", SHARD, WIDE)
    for entry in (b'"what": 1', b'"settings": 5', b'"units": "abc"', b'"settings": {"\xff": 1}'):
        lake.storage.write(f"_choices/clips/{SHARD}.json", b"[{" + entry + b"}]")
        with pytest.raises(ChoiceError, match="delete it"):
            Choices(lake).of("clips", SHARD)


def test_two_runs_that_choose_at_once_are_both_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Lake(tmp_path), Lake(tmp_path)
    ours, theirs = (replace(ONE, items=(name,), run_id=name) for name in ("a", "b"))
    other = threading.Thread(target=Choices(second).keep, args=("clips", SHARD, theirs))
    waits = threading.Event()
    lock, write = second.storage.lock, first.storage.write

    def tell_then_lock(name: str) -> Any:
        waits.set()
        return lock(name)

    def write_late(key: str, data: bytes) -> bool:
        """As if the other run came between our reading and our writing, if nothing keeps it."""
        other.start()
        assert waits.wait(60)
        return write(key, data)

    monkeypatch.setattr(second.storage, "lock", tell_then_lock)
    monkeypatch.setattr(first.storage, "write", write_late)
    Choices(first).keep("clips", SHARD, ours)
    other.join()
    assert Choices(Lake(tmp_path)).of("clips", SHARD) == [ours, theirs]


def parts_of(bench: Bench) -> list[Part]:
    """By default, and otherwise for the take of a clip."""
    other = replace(bench.spec, settings={"touch_share": 0.7})
    return [Part(bench.spec), Part(other, (MIDDLE,))]


def test_a_take_is_made_as_it_was_chosen_for_one_of_its_clips(bench: Bench) -> None:
    parts = parts_of(bench)
    shares = share_out(parts, ShardInputs(bench.lake, bench.ledger, SHARD))
    named = [[u.item_id for g in groups for u in g.items] for _, groups in shares]
    assert named == [[SHORT], [f"long000000000000-{i:04d}" for i in range(3)]]
    for (part, _), items in zip(shares, named, strict=True):
        run_stage(replace(part.spec, items=tuple(items)), isolate=False)
    (found,) = find_stale(bench.lake, bench.ledger, lambda _: [parts], [SHARD])
    assert found.items == {}
    (found,) = find_stale(bench.lake, bench.ledger, lambda _: [parts[:1]], [SHARD])
    assert found.items == {"object_movements": 3}


def test_what_cannot_be_judged_does_not_stop_the_others(bench: Bench) -> None:
    run_stage(bench.spec, isolate=False)
    for shard in ("20260101-0001", "20260101-0002"):
        bench.lake.write_shard(shard, {"files": []})
    bench.lake.storage.write("video_manifest/20260101-0001.parquet", b"no Parquet")

    def recipe_of(shard: str) -> list[list[Part]]:
        if shard == SHARD:
            raise ChoiceError("its weights are gone")
        return [[Part(bench.spec)]]

    first, second, third = find_stale(bench.lake, bench.ledger, recipe_of, bench.lake.shards())
    assert first.problem == "its weights are gone"
    assert "20260101-0001.parquet" in second.problem
    assert not third.problem
    assert {*first.items, *second.items, *third.items} == set()


def test_a_profile_without_a_name_is_called_after_its_run(tmp_path: Path) -> None:
    choices = Choices(Lake(tmp_path))
    choices.keep("clips", SHARD, replace(WIDE, run_id="1a2b3c4d-0000"))
    choices.keep("clips", SHARD, replace(ONE, profile="close-up"))
    assert [c.name for c in choices.of("clips", SHARD)] == ["run-1a2b3c4d", "close-up"]
    assert choices.shards("clips") == [SHARD]
    assert Choice(profile="unused").name == ""
    assert choices.shards("other") == []
