"""Probes held against what people said, and the command that tells it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dagster_project.cli.program import main
from ego_assets import catalog
from ego_assets.quality.finding import Evidence, Finding, Probe, Units, judge
from ego_assets.reviews.precision import ProbePrecision, probes_against_reviews
from tests.reviews.judged_lake import JudgedLake


@pytest.fixture
def judged(tmp_path: Path) -> JudgedLake:
    return JudgedLake.build(tmp_path)


def clips_of(judged: JudgedLake) -> list[str]:
    return sorted(row["clip_id"] for row in judged.video.clips)


def naming(name: str, *clips: str, looks: bool = True) -> Probe:
    """A probe that names tracks of these clips, of those that the table has."""

    def measure(evidence: Evidence, _: Any) -> Finding:
        found = evidence.rows["clip_id"].to_pylist() if looks else []
        values = [float(clip in clips) for clip in found]
        return judge(Units.of([f"{c} h000" for c in found], values), 0.5, "", "tracks", 1.0)

    return Probe(name, "clips", "warn", {"clips": ("clip_id",)}, name, measure)


def crashes(*_: Any) -> Finding:
    raise RuntimeError("of somebody else")


def use(monkeypatch: pytest.MonkeyPatch, *probes: Probe) -> None:
    monkeypatch.setattr(catalog, "all_probes", lambda: probes)


def test_what_probes_name_is_compared_with_what_people_rejected(
    judged: JudgedLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips, episodes = clips_of(judged), judged.episodes
    broken = Probe("crashes", "clips", "warn", {"clips": ()}, "", crashes)
    blind = naming("blind", looks=False)
    use(monkeypatch, naming("two", *clips[:2]), naming("none"), broken, blind)
    assert probes_against_reviews(judged.lake) == []

    judged.judge(clips[0], "clip", verdict="reject", reason="jumps")
    judged.judge(clips[1], "clip")
    judged.judge(episodes[0], side_swap=True)  # it lies in the first clip
    judged.judge(episodes[2], verdict="reject", reason="dull")
    two, none = probes_against_reviews(judged.lake)
    assert two == ProbePrecision("clips", "two", "warn", judged=4, rejected=3, named=3, hits=2)
    assert (two.precision, two.recall) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert (none.named, none.precision, none.precision_interval, none.recall) == (0, None, None, 0)


def test_a_verdict_on_rows_that_have_changed_says_nothing_of_probes(
    judged: JudgedLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, naming("all", *clips_of(judged)))
    first, second, _ = judged.episodes
    judged.judge(first)
    judged.judge(second, verdict="reject", reason="jumps")
    judged.run_again(token=1, moved=second)
    (found,) = probes_against_reviews(judged.lake)
    assert (found.judged, found.named, found.hits) == (1, 1, 0)


def test_an_interval_is_as_wide_as_little_was_judged() -> None:
    few = ProbePrecision("clips", "p", "warn", judged=4, rejected=4, named=4, hits=4)
    many = ProbePrecision("clips", "p", "warn", judged=400, rejected=90, named=100, hits=90)
    # Of `statsmodels.stats.proportion.proportion_confint(…, method="wilson")`.
    assert few.precision_interval == pytest.approx((0.5101, 1.0), abs=1e-4)
    assert many.precision_interval == pytest.approx((0.8256, 0.9448), abs=1e-4)


def ego(*arguments: str) -> str:
    done = CliRunner().invoke(main, ["probes", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_command_tells_it_in_a_table_and_in_json(
    judged: JudgedLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, naming("two", *clips_of(judged)[:2]), naming("none"))
    options = ("--lake", judged.lake.location, "--against-reviews")
    assert "nobody has judged anything" in ego(*options)
    judged.judge(judged.episodes[0], verdict="reject", reason="jumps")
    judged.judge(judged.episodes[1])
    shown = ego(*options)
    assert "clips: two" in shown and "50 % (9 % to 91 %)" in shown
    assert "1 probe named nothing" in shown
    said = json.loads(ego(*options, "--json"))["probes"][0]
    assert (said["probe"], said["precision"], said["recall"]) == ("two", 0.5, 1.0)


def test_every_probe_is_listed(judged: JudgedLake) -> None:
    said = json.loads(ego("--json"))["probes"]
    assert [p["name"] for p in said] == [p.name for p in catalog.all_probes()]
    assert "hands_do_not_jitter" in ego()
