"""What a file beside a video says decides whether its footage is used, and in which split it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from ego_assets.catalog import TABLES
from ego_assets.consent import SAID
from ego_assets.episodes.cutter import EpisodeCutter
from ego_assets.episodes.probes import footage_is_kept
from ego_assets.episodes.settings import EpisodeProbeSettings, EpisodeSettings
from ego_assets.episodes.waterfall import waterfall
from ego_assets.quality.finding import Evidence
from tests.episodes.made_footage import MadeVideo, bins, cut, tables_of


def made(number: int = 1, **said: str) -> MadeVideo:
    return MadeVideo(count=90, video_id=f"{number:016x}", said=said)


def seconds(footage: list[dict[str, Any]]) -> float:
    return sum(r["end_pts_s"] - r["start_pts_s"] for r in footage)


@pytest.mark.parametrize(
    ("said", "settings", "bin_", "detail"),
    [
        ({}, {}, "kept", None),
        ({"consent": "granted"}, {}, "kept", None),
        ({"consent": "unknown"}, {}, "kept", None),
        ({"consent": "withdrawn"}, {}, "no consent", "withdrawn"),
        ({"consent": "refused"}, {}, "no consent", "refused"),
        ({}, {"require_consent": True}, "no consent", "nothing is said of it"),
        ({"consent": "unknown"}, {"accepted_consents": "granted"}, "no consent", "unknown"),
        ({"consent": "granted"}, {"require_consent": True}, "kept", None),
        ({"license": "CC-BY-4.0"}, {"accepted_licenses": "MIT,cc-by-4.0"}, "kept", None),
        ({"license": "MIT"}, {"accepted_licenses": "CC-BY-4.0"}, "license", "MIT"),
        ({}, {"accepted_licenses": "CC-BY-4.0"}, "license", "nothing is said of it"),
    ],
)
def test_a_rule_drops_the_whole_video_and_says_why(
    said: dict[str, str], settings: dict[str, Any], bin_: str, detail: str | None
) -> None:
    found = cut(made(1, **said), made(2, consent="granted", license="CC-BY-4.0"), **settings)
    mine = [r for r in found["footage"] if r["video_id"] == f"{1:016x}"]
    assert bins(mine) == [(bin_, 0, 90)]
    assert [r["detail"] for r in mine] == [detail]
    assert seconds(found["footage"]) == pytest.approx(6.0)
    kept = {e["video_id"] for e in found["episodes"]}
    assert (f"{1:016x}" in kept, f"{2:016x}" in kept) == (bin_ == "kept", True)
    names = {r["video_id"] for t in ("episode_frames", "episode_hands") for r in found[t]}
    assert names == kept


@pytest.mark.parametrize(
    "settings",
    [
        {"accepted_consents": "granted, withdrawn"},
        {"accepted_consents": "refused"},
        {"accepted_consents": "yes"},
        {"accepted_licenses": "CC-BY-4"},
    ],
)
def test_no_setting_lets_through_what_was_withdrawn_or_makes_no_sense(
    settings: dict[str, Any],
) -> None:
    with pytest.raises(ValidationError):
        EpisodeSettings(**settings)


def test_what_is_said_goes_into_episodes_and_the_task_is_their_instruction() -> None:
    said = {"person": "p", "consent": "granted", "license": "MIT", "site": "s", "device": "d"}
    found = cut(made(1, task="fold the towel", **said), made(2))
    first, second = sorted(found["episodes"], key=lambda e: str(e["video_id"]))
    assert {name: first[name] for name in SAID} == said | {"task": "fold the towel"}
    words = ("instruction", "instruction_source")
    assert [first[w] for w in words] == ["fold the towel", "sidecar"]
    assert [second[w] for w in words] == ["Move the hands", "hand_poses"]
    assert {second[name] for name in SAID} == {None}


def splits(*videos: MadeVideo) -> dict[str, str]:
    found = cut(*videos, validation_share=0.5)["episodes"]
    return {e["video_id"]: e["split"] for e in found}


def test_a_wearer_is_in_one_split_which_stays_when_data_is_added() -> None:
    videos = [made(n, person=f"p{n % 6}") for n in range(1, 25)]
    found = splits(*videos)
    of = {
        p: {found[v.video_id] for v in videos if v.said["person"] == p}
        for p in (f"p{n}" for n in range(6))
    }
    assert {len(s) for s in of.values()} == {1}
    assert set(found.values()) == {"train", "validation"}
    more = splits(*videos, *(made(n, person=f"q{n}") for n in range(30, 34)))
    assert {v: more[v] for v in found} == found


def test_chapters_of_a_recording_are_in_one_split() -> None:
    videos = [made(n, recording_id=f"r{n % 6}") for n in range(1, 25)]
    found = splits(*videos)
    for number in range(6):
        assert len({found[v.video_id] for v in videos[number - 1 :: 6]}) == 1
    assert set(found.values()) == {"train", "validation"}


def test_a_chapter_whose_file_names_nobody_is_in_the_split_of_its_recording() -> None:
    videos = [
        made(n, recording_id=f"r{n // 3}", **({"person": f"p{n // 3}"} if n % 3 == 1 else {}))
        for n in range(24)
    ]
    found = splits(*videos)
    for number in range(0, 24, 3):
        assert len({found[v.video_id] for v in videos[number : number + 3]}) == 1
    assert set(found.values()) == {"train", "validation"}
    persons = {e["person"] for e in cut(*videos)["episodes"] if e["recording_id"] == "r0"}
    assert persons == {None, "p0"}  # the column is what was said


def test_a_chapter_is_in_the_split_of_the_wearer_whom_another_shard_names() -> None:
    settings = EpisodeSettings(validation_share=0.5)
    for number in range(12):
        person, chapter = f"p{number}", made(1, recording_id="r")
        (named,) = splits(made(2, person=person)).values()
        for wearers in ({"r": person}, {"r": person, "other": "x"}):
            item = replace(tables_of(chapter), wearers=wearers)
            (episode,) = EpisodeCutter(settings).process(item).tables["episodes"]
            assert (episode["split"], episode["person"]) == (named, None)


def test_the_waterfall_sums_up_by_what_is_said() -> None:
    videos = [made(1, person="a", consent="granted"), made(2, person="b", consent="withdrawn")]
    videos.append(made(3))
    copy = videos[0].manifest() | {"accepted": False, "reject_reason": "duplicate", "person": "z"}
    footage = TABLES["footage"].from_rows(cut(*videos)["footage"])
    rows = pa.Table.from_pylist(
        [copy, *(v.manifest() for v in videos)], schema=TABLES["video_manifest"].arrow_schema()
    ).select(["video_id", "accepted", "person", "site", "consent", "license"])
    found = waterfall([footage], [rows])
    assert found.seconds["no consent"] == pytest.approx(3.0)
    assert found.said.keys() == {"person", "consent"}
    for sums in found.said.values():
        assert sum(footage for footage, _ in sums.values()) == pytest.approx(found.total_s)
        assert sum(kept for _, kept in sums.values()) == pytest.approx(found.kept_s)
    kept = {value: kept > 2.9 for value, (_, kept) in found.said["person"].items()}
    assert kept == {"a": True, "b": False, "not said": True}
    assert found.as_json()["by"]["consent"]["withdrawn"] == {
        "footage_s": pytest.approx(3.0),
        "kept_s": 0.0,
    }
    assert waterfall([footage], [rows.slice(3)]).said == {}


@pytest.mark.parametrize("said", [{"consent": "withdrawn"}, {"consent": "granted"}])
def test_what_may_not_be_used_is_no_sign_that_rules_are_wrong(said: dict[str, str]) -> None:
    videos = [made(1), *(made(n, **said) for n in range(2, 9))]
    for video in videos[1:]:
        video.is_there[:] = False
    footage = TABLES["footage"].from_rows(cut(*videos)["footage"])
    manifest = pa.Table.from_pylist(
        [v.manifest() for v in videos], schema=TABLES["video_manifest"].arrow_schema()
    ).select(["video_id", "accepted", "duration_s"])
    evidence = Evidence("footage", {"footage": footage, "video_manifest": manifest})
    (probe,) = footage_is_kept
    is_usable = said["consent"] == "granted"
    assert probe(evidence, EpisodeProbeSettings()).passed is not is_usable
