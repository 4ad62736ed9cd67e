"""Which reviews still count, and what they do: runs again, exports, commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner

from dagster_project.cli.program import main
from ego_assets.reviews.fingerprints import Fingerprints
from ego_assets.reviews.standing import Standing, reviews_table
from ego_assets.reviews.subjects import FactTeller, list_subjects
from resources.lake import Lake
from tests.reviews.judged_lake import SHARD, JudgedLake, review
from tests.viewing.shown_lake import FIRST, SECOND, ShownLake
from tests.viewing.shown_lake import SHARD as SHOWN_SHARD


@pytest.fixture
def judged(tmp_path: Path) -> JudgedLake:
    return JudgedLake.build(tmp_path)


def states(lake: Lake) -> dict[str, str]:
    return {subject: each.state for (_, subject), each in Standing(lake).judgements().items()}


def ego(*arguments: str) -> str:
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_run_that_makes_the_same_rows_again_keeps_reviews(
    judged: JudgedLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = judged.episodes[0]
    judged.judge(first)
    with monkeypatch.context() as patch:  # nothing was run since: no row is read
        patch.setattr(Fingerprints, "_compute", lambda *_: pytest.fail("rows were read"))
        assert states(judged.lake) == {first: "current"}
    judged.run_again(token=1)
    assert states(judged.lake) == {first: "current"}


def test_other_rows_put_the_review_of_their_episode_out_of_date_and_no_other(
    judged: JudgedLake,
) -> None:
    for name in judged.episodes:
        judged.judge(name)
    first, second, third = judged.episodes
    judged.run_again(token=1, moved=second)
    assert states(judged.lake) == {first: "current", second: "out of date", third: "current"}
    judged.judge(second)
    assert states(judged.lake)[second] == "current"
    judged.run_again(token=2)
    assert states(judged.lake)[second] == "out of date"


def test_where_rows_lie_says_nothing(judged: JudgedLake) -> None:
    before = Fingerprints(judged.lake).of("episode", SHARD)[1]
    for table in ("episodes", "episode_frames", "episode_hands"):
        judged.lake.compact(table, SHARD, {"unit"})
    assert Fingerprints(judged.lake).of("episode", SHARD)[1] == before
    assert len(set(before.values())) == 3


def test_a_clip_is_its_rows_in_every_table(tmp_path: Path) -> None:
    shown = ShownLake(tmp_path)
    before = Fingerprints(shown.lake).of("clip", SHOWN_SHARD)[1]
    assert set(before) == {FIRST, SECOND}
    rows = [r for r in shown.rows["object_masks"] if r["clip_id"] == FIRST]
    shown._add("object_masks", FIRST, [*rows[:-1], rows[-1] | {"score": 0.1}])
    after = Fingerprints(shown.lake).of("clip", SHOWN_SHARD)[1]
    assert (after[FIRST] == before[FIRST], after[SECOND] == before[SECOND]) == (False, True)


def test_an_episode_that_is_no_more_is_told_from_one_that_changed(judged: JudgedLake) -> None:
    Standing(judged.lake).files.add(review("gone-e000000"))
    assert states(judged.lake) == {"gone-e000000": "gone"}


def exported(judged: JudgedLake, *options: str) -> dict[str, Any]:
    report: dict[str, Any] = judged.made.export(*options)
    return report


def test_an_export_leaves_out_what_was_rejected_and_says_why(judged: JudgedLake) -> None:
    first, second, third = judged.episodes
    judged.judge(first, verdict="reject", reason="hands are wrong", reviewer="anna")
    judged.judge(second, side_swap=True)
    report = exported(judged)
    assert report["skipped"] == {
        first: "rejected by anna: hands are wrong",
        second: "accepted, but left and right hands are mixed up",
    }
    assert report["episodes"] == 1
    assert {row["source_frame"] for row in judged.made.data().rows} == set(range(180, 270))
    assert exported(judged, "--reviews", "ignore")["episodes"] == 3
    judged.judge(first, reviewer="ben")
    report = exported(judged, "--reviews", "only_accepted")
    assert report["episodes"] == 1
    assert report["skipped"][third] == "nobody has accepted it"
    judged.run_again(token=1, moved=first)
    report = exported(judged)
    assert set(report["skipped"]) == {second}


def test_a_rejection_that_is_out_of_date_leaves_nothing_out(judged: JudgedLake) -> None:
    first = judged.episodes[0]
    judged.judge(first, verdict="reject", reason="jitter")
    judged.run_again(token=1, moved=first)
    assert exported(judged)["skipped"] == {}


def test_commands_tell_what_was_said(judged: JudgedLake) -> None:
    lake = str(judged.lake.location)
    assert "nobody has judged anything" in ego("reviews", "--lake", lake)
    first, second, third = judged.episodes
    judged.judge(first, verdict="reject", reason="[bold]blurred", reviewer="anna")
    judged.judge(second)
    judged.judge(third)
    judged.run_again(token=1, moved=third)
    rows = {
        row["subject"]: row
        for row in json.loads(ego("reviews", "--lake", lake, "--json"))["reviews"]
    }
    assert rows[first]["verdict"] == "reject" and rows[first]["state"] == "current"
    assert rows[third]["state"] == "out of date"
    shown = ego("reviews", "--lake", lake)
    for words in (first, "rejected by anna", "[bold]blurred", "accepted (out of date)"):
        assert words in shown
    frame = pl.DataFrame(reviews_table(judged.lake))
    assert frame.filter(pl.col("verdict") == "reject")["subject"].to_list() == [first]
    said = ego("yield", "--lake", lake)
    assert "2 judged, 1 of them rejected, 1 to judge again, because they have changed" in said
    counts = json.loads(ego("yield", "--lake", lake, "--json"))["reviews"]
    assert counts == {"subjects": 3, "judged": 2, "rejected": 1, "out_of_date": 1}


def test_hands_of_several_people_in_a_frame_count_once(tmp_path: Path) -> None:
    shown = ShownLake(tmp_path)

    def said() -> str:
        (clip,) = (s for s in list_subjects(shown.lake, "clip") if s.name == FIRST)
        return dict(FactTeller(shown.lake).facts(clip))["right hand"].partition(",")[0]

    before = said()
    rows = [row for row in shown.rows["hand_poses"] if row["clip_id"] == FIRST]
    others = [row | {"track_id": f"{row['track_id']}x"} for row in rows if row["side"] == "right"]
    shown._add("hand_poses", FIRST, [*rows, *others])
    assert said() == before
