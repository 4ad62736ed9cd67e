"""Every second of footage ends in one bin, and in the right one."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from ego_assets.catalog import TABLES
from ego_assets.episodes.cutter import EpisodeCutter, split_of
from ego_assets.episodes.settings import EpisodeSettings
from ego_assets.episodes.waterfall import waterfall
from ego_assets.operator import BadInputError
from tests.episodes.made_footage import FPS, SHARD, MadeVideo, bins, cut, tables_of, without


def seconds(footage: list[dict[str, Any]]) -> float:
    return sum(r["end_pts_s"] - r["start_pts_s"] for r in footage)


def test_good_footage_is_one_episode() -> None:
    made = cut(MadeVideo())
    assert bins(made["footage"]) == [("kept", 0, 300)]
    (episode,) = made["episodes"]
    assert episode["episode_id"] == "00000000000000a1-t000-e000000"
    assert made["footage"][0]["episode_id"] == episode["episode_id"]
    assert (episode["valid_hand_share"], episode["valid_camera_share"]) == (1, 1)
    assert len(made["episode_frames"]) == 300 and len(made["episode_hands"]) == 600


def test_hands_may_be_away_for_a_moment_only() -> None:
    short = without(MadeVideo(), "is_there", 100, 110)
    assert bins(cut(short)["footage"]) == [("kept", 0, 300)]
    long = without(MadeVideo(), "is_there", 100, 200)
    assert bins(cut(long)["footage"]) == [
        ("kept", 0, 100),
        ("no hands", 100, 200),
        ("kept", 200, 300),
    ]


def test_both_hands_may_be_asked_for() -> None:
    video = MadeVideo(sides=("right",))
    assert bins(cut(video)["footage"]) == [("kept", 0, 300)]
    assert bins(cut(video, hands="both")["footage"]) == [("no hands", 0, 300)]


def test_hands_of_others_count_only_where_they_are_asked_for() -> None:
    video = MadeVideo(is_wearer=False)
    assert bins(cut(video)["footage"]) == [("no hands", 0, 300)]
    assert bins(cut(video, whose_hands="anyone")["footage"]) == [("kept", 0, 300)]
    unsaid = MadeVideo(is_wearer=None)
    assert bins(cut(unsaid)["footage"]) == [("kept", 0, 300)]


def test_idle_stretches_are_dropped_and_pauses_kept() -> None:
    video = MadeVideo()
    video.wrist_m[60:180] = video.wrist_m[60]  # 4 s
    found = cut(video)["footage"]
    assert [b for b, _, _ in bins(found)] == ["kept", "idle", "kept"] or [
        b for b, _, _ in bins(found)
    ] == ["too short", "idle", "kept"]
    (idle,) = (r for r in found if r["bin"] == "idle")
    assert abs(idle["start_frame"] - 60) <= 10 and abs(idle["end_frame"] - 180) <= 10
    pause = MadeVideo()
    pause.wrist_m[60:105] = pause.wrist_m[60]  # 1.5 s
    assert bins(cut(pause)["footage"]) == [("kept", 0, 300)]


def test_odd_poses_that_are_not_valid_are_no_motion() -> None:
    video = MadeVideo(count=900)
    video.wrist_m[:] = video.wrist_m[0]
    video.is_valid[20::45] = False
    assert [b for b, _, _ in bins(cut(video)["footage"])] == ["idle"]


def test_people_are_not_mixed_frame_by_frame() -> None:
    video = MadeVideo(count=90, sides=("left",))
    item = tables_of(video)
    rows = item.shards[SHARD]["hand_poses"].to_pylist()
    other = [
        r
        | {
            "track_id": "somebody",
            "camera_from_hand_m": [x + 0.5 for x in r["camera_from_hand_m"]],
            "joints_camera_m": (np.array(r["joints_camera_m"]) + 0.5).tolist(),
            "score": 0.95 if r["frame_index"] % 2 else 0.5,
        }
        for r in rows
        if r["frame_index"] > 3
    ]
    poses = pa.Table.from_pylist(rows + other, schema=item.shards[SHARD]["hand_poses"].schema)
    item = replace(item, shards={SHARD: dict(item.shards[SHARD]) | {"hand_poses": poses}})
    made = EpisodeCutter(EpisodeSettings(whose_hands="anyone")).process(item).tables
    assert {r["track_id"] for r in made["episode_hands"]} == {rows[0]["track_id"]}


def test_overlapping_clips_of_a_take_count_once() -> None:
    held = moving(state="held", touching_side="right", displacement_px=5.0)
    short = moving(track_id="t-o002", label="lid", state="held", start_frame=130, end_frame=150)
    short |= {"touching_side": "right", "displacement_px": 5.0}
    long = moving(track_id="t-o003", label="jar", state="held", start_frame=0, end_frame=30)
    long |= {"touching_side": "right", "displacement_px": 5.0}
    video = MadeVideo(cuts=(150,), overlap=45, objects=(held, short, long))
    made = cut(video)
    assert bins(made["footage"]) == [("kept", 0, 300)]
    (episode,) = made["episodes"]
    # The lid is held for 20 frames, all in the overlap; the jar for 30.
    assert episode["objects"] == ["cup", "jar", "lid"]
    assert len(made["episode_frames"]) == 300 and len(made["episode_hands"]) == 600
    assert {r["clip_id"][-4:] for r in made["episode_hands"] if r["frame_index"] < 150} == {"0000"}
    assert {r["clip_id"][-4:] for r in made["episode_hands"] if r["frame_index"] >= 150} == {"0001"}


def test_shares_hold_in_each_part_of_a_long_stretch() -> None:
    rng = np.random.default_rng(3)
    for _ in range(4):
        video = replace(MadeVideo(count=600), is_valid=rng.random(600) < 0.75)
        made = cut(video, max_length_s=4.0)
        assert all(e["valid_hand_share"] >= 0.7 for e in made["episodes"])


def test_parts_are_of_equal_length_in_time() -> None:
    steps = np.where(np.arange(400) < 100, 0.1, 1 / 30)  # 10 s, then 10 s
    video = MadeVideo(count=400, pts_s=np.concatenate([[0.0], np.cumsum(steps)]))
    made = cut(video, max_length_s=10.0)
    assert [(e["start_frame"], e["end_frame"]) for e in made["episodes"]] == [(0, 100), (100, 400)]
    assert seconds(made["footage"]) == pytest.approx(20.0)


def test_still_hands_are_not_idle_while_an_object_moves() -> None:
    video = MadeVideo(objects=(moving(),))
    video.wrist_m[:] = video.wrist_m[0]
    assert bins(cut(video)["footage"]) == [("kept", 0, 300)]


def moving(**changes: Any) -> dict[str, Any]:
    row = {
        "track_id": "t-o001",
        "label": "cup",
        "start_frame": 0,
        "end_frame": 300,
        "state": "moving",
        "touching_side": None,
        "displacement_px": 100.0,
    }
    return row | changes


def test_hands_held_still_before_a_walking_camera_are_not_idle() -> None:
    """What stays in the picture moves in the world."""
    video = MadeVideo()
    video.wrist_m[:] = video.wrist_m[0]
    assert bins(cut(video)["footage"]) == [("idle", 0, 300)]
    video.camera_m[:, 0] = np.arange(300) / FPS  # 1 m/s
    assert bins(cut(video)["footage"]) == [("kept", 0, 300)]


def test_noise_along_the_line_of_sight_is_no_motion() -> None:
    rng = np.random.default_rng(0)
    video = MadeVideo(scale=1 + rng.normal(0, 0.03, 300))
    video.wrist_m[:] = video.wrist_m[0]
    found = cut(video, outlier_m=1.0)["footage"]
    assert bins(found) == [("idle", 0, 300)]


def test_violent_turns_of_the_head_are_dropped() -> None:
    video = MadeVideo()
    turn = np.zeros(300)
    turn[150:160] = np.radians(12.0)  # a frame: 360 degrees a second
    half = np.cumsum(turn) / 2
    video.camera_xyzw[:] = np.stack([0 * half, np.sin(half), 0 * half, np.cos(half)], axis=1)
    found = bins(cut(video)["footage"])
    assert [b for b, _, _ in found] == ["kept", "head motion", "kept"]
    _, first, last = found[1]
    assert first <= 150 and last >= 160 and last - first < 25
    assert [b for b, _, _ in bins(cut(video, max_head_turn_dps=400.0)["footage"])] == ["kept"]


def test_shares_of_valid_poses_and_cameras_hold_in_every_episode() -> None:
    rng = np.random.default_rng(1)
    for _ in range(6):
        video = replace(
            MadeVideo(count=600),
            is_valid=rng.random(600) < 0.85,
            camera_valid=rng.random(600) < 0.6,
        )
        made = cut(video, min_valid_camera_share=0.5, min_valid_hand_share=0.8)
        for episode in made["episodes"]:
            assert episode["valid_hand_share"] >= 0.8
            assert episode["valid_camera_share"] >= 0.5
    bad = without(MadeVideo(), "is_valid", 0, 300)
    assert bins(cut(bad)["footage"]) == [("few valid hands", 0, 300)]
    blind = without(MadeVideo(), "camera_valid", 0, 300)
    assert bins(cut(blind)["footage"]) == [("kept", 0, 300)]
    assert bins(cut(blind, min_valid_camera_share=0.5)["footage"]) == [
        ("few valid cameras", 0, 300)
    ]


def test_damaged_pictures_are_in_no_episode() -> None:
    video = MadeVideo(damaged=tuple(range(120, 125)))
    made = cut(video)
    assert bins(made["footage"]) == [("kept", 0, 120), ("damaged", 120, 125), ("kept", 125, 300)]
    assert not {r["frame_index"] for r in made["episode_frames"]} & set(range(120, 125))


def test_pictures_that_the_decoder_made_up_are_in_no_episode() -> None:
    video = MadeVideo(concealed=((120, 123), (200, 205)))
    made = cut(video)
    assert bins(made["footage"]) == [
        ("kept", 0, 120),
        ("damaged", 120, 123),
        ("kept", 123, 200),
        ("damaged", 200, 205),
        ("kept", 205, 300),
    ]
    assert seconds(made["footage"]) == pytest.approx(10.0)


def test_a_clip_that_fails_a_check_is_dropped_with_its_name() -> None:
    """Fingers that bend backward: the left hand taken for the right one."""
    good, bad = MadeVideo(), MadeVideo(video_id="00000000000000b2")
    item = tables_of(good, bad)
    poses = item.shards[SHARD]["hand_poses"].to_pylist()
    for row in poses:
        if row["clip_id"].startswith(bad.video_id):
            joints = np.array(row["joints_camera_m"])
            curl = np.linspace(0, 0.12, 4)[None] ** 1.2
            joints[1:].reshape(5, 4, 3)[:, :, 2] -= curl
            row["joints_camera_m"] = joints.tolist()
    schema = item.shards[SHARD]["hand_poses"].schema
    tables = dict(item.shards[SHARD]) | {"hand_poses": pa.Table.from_pylist(poses, schema=schema)}
    item = replace(item, shards={SHARD: tables})
    found = EpisodeCutter(EpisodeSettings()).process(item).tables["footage"]
    by_video = {r["video_id"]: (r["bin"], r["detail"]) for r in found}
    assert by_video == {
        good.video_id: ("kept", None),
        bad.video_id: ("failed check", "hands_are_not_mirrored"),
    }
    lenient = EpisodeCutter(EpisodeSettings(failed_checks="none")).process(item).tables["footage"]
    assert {r["bin"] for r in lenient} == {"kept"}


def test_a_clip_that_no_stage_has_done_is_not_processed() -> None:
    video = MadeVideo(cuts=(150,), unmade=(1,))
    assert bins(cut(video)["footage"]) == [("kept", 0, 150), ("not processed", 150, 300)]


def test_frames_between_clips_and_rejected_files_are_counted() -> None:
    video = MadeVideo(cuts=(150,), gap_frames=30)
    rejected = [
        video.manifest()
        | {"accepted": False, "reject_reason": r, "uri": u, "duration_s": s}
        | {"video_id": "00000000000000c3"}
        for r, u, s in (("duplicate", "/raw/x", 4.0), ("too_short", "/raw/y", None))
    ]
    found = cut(video, more=rejected)["footage"]
    assert bins(found) == [
        ("kept", 0, 150),
        ("between clips", 150, 180),
        ("kept", 180, 300),
        ("rejected", 0, 0),
    ]
    assert found[-1]["detail"] == "duplicate, too_short" and found[-1]["end_pts_s"] == 4.0


def test_a_video_without_clips_is_not_processed() -> None:
    video = MadeVideo()
    item = tables_of(video)
    tables = {
        n: t if n == "video_manifest" else t.slice(0, 0) for n, t in item.shards[SHARD].items()
    }
    found = EpisodeCutter(EpisodeSettings()).process(replace(item, shards={SHARD: tables}))
    assert bins(found.tables["footage"]) == [("not processed", 0, 300)]


def test_every_second_is_in_exactly_one_bin_whatever_happens() -> None:
    rng = np.random.default_rng(2)
    for trial in range(15):
        count = int(rng.integers(40, 500))

        def blocks(share: float, count: int = count) -> np.ndarray:
            changes = rng.random(count) < 0.03
            mask: np.ndarray = rng.random(count)[np.cumsum(changes)] < share
            return mask

        cuts = tuple(sorted(int(c) for c in rng.integers(20, count - 20, rng.integers(0, 3))))
        video = MadeVideo(
            count=count,
            cuts=tuple(dict.fromkeys(cuts)),
            is_there=blocks(0.8),
            is_valid=blocks(0.9),
            camera_valid=blocks(0.8),
            damaged=tuple(np.flatnonzero(rng.random(count) < 0.01)),
            overlap=10 if trial % 2 else 0,
            pts_s=np.concatenate([[0.0], np.cumsum(rng.uniform(0.01, 0.06, count))]),
            unmade=(1,) if trial % 5 == 0 else (),
        )
        found = cut(video, max_length_s=4.0)["footage"]
        assert abs(seconds(found) - video.pts_s[-1]) < 1e-6
        edges = sorted((r["start_frame"], r["end_frame"]) for r in found)
        assert edges[0][0] == 0 and edges[-1][1] == count
        assert all(a[1] == b[0] for a, b in pairwise(edges))


def test_long_stretches_become_episodes_of_equal_length() -> None:
    made = cut(MadeVideo(count=1000), max_length_s=10.0)
    assert bins(made["footage"]) == [
        ("kept", 0, 250),
        ("kept", 250, 500),
        ("kept", 500, 750),
        ("kept", 750, 1000),
    ]
    assert len({e["episode_id"] for e in made["episodes"]}) == 4


def test_short_stretches_are_dropped() -> None:
    assert bins(cut(MadeVideo(count=59))["footage"]) == [("too short", 0, 59)]
    assert bins(cut(MadeVideo(count=60))["footage"]) == [("kept", 0, 60)]


def test_an_episode_is_in_one_world() -> None:
    made = cut(MadeVideo(cuts=(150,)))
    assert [e["world_id"][-4:] for e in made["episodes"]] == ["0000", "0001"]


def test_splits_go_by_recording_and_stay() -> None:
    settings = EpisodeSettings(validation_share=0.2, test_share=0.1)
    names = [f"{i:016x}" for i in range(4000)]
    first = {name: split_of(name, settings) for name in names}
    shares = {s: sum(v == s for v in first.values()) / 4000 for s in set(first.values())}
    assert shares == pytest.approx({"train": 0.7, "validation": 0.2, "test": 0.1}, abs=0.03)
    assert all(split_of(name, settings) == first[name] for name in reversed(names))
    other = EpisodeSettings(validation_share=0.2, test_share=0.1, split_seed="1")
    assert sum(split_of(n, other) != first[n] for n in names) > 1000
    made = cut(MadeVideo(count=600), max_length_s=5.0)
    assert len(made["episodes"]) == 4 and len({e["split"] for e in made["episodes"]}) == 1


def test_words_say_what_is_held_and_where_they_come_from() -> None:
    held = moving(state="held", touching_side="right", displacement_px=5.0)
    far = held | {"displacement_px": 50.0}
    words = [
        ([], "Move the hands", "hand_poses"),
        ([held], "Hold the cup with the hands", "object_movements"),
        ([far], "Move the cup with the hands", "object_movements"),
        ([moving()], "Move the hands", "hand_poses"),
    ]
    for objects, *said in words:
        (episode,) = cut(MadeVideo(objects=tuple(objects)))["episodes"]
        assert [episode["instruction"], episode["instruction_source"]] == said
    shortest = moving(track_id="t-o002", label="dining_table", state="held", end_frame=10)
    shortest["displacement_px"] = 0.0
    (episode,) = cut(MadeVideo(objects=(held, shortest), sides=("left",)))["episodes"]
    assert episode["instruction"] == "Hold the cup and dining table with the left hand"
    assert episode["objects"] == ["cup", "dining_table"]


def test_templates_are_checked() -> None:
    for wrong, why in (
        ("Go to {place}", "names 'place'; there are"),
        ("Go {", "is no template"),
        ("{verb!x} it", "and nothing else"),
        ("{verb:d} it", "and nothing else"),
        (" ", "says nothing"),
    ):
        with pytest.raises(ValidationError, match=why):
            EpisodeSettings(instruction_without_objects=wrong)
    with pytest.raises(ValidationError, match=r"names 'objects\.__class__'"):
        EpisodeSettings(instruction="{objects.__class__}")
    with pytest.raises(BadInputError, match="no installed package brings a captioner 'vlm'"):
        EpisodeCutter(EpisodeSettings(captioner="vlm"))


def test_the_waterfall_ends_with_what_is_kept() -> None:
    video = without(without(MadeVideo(), "is_there", 100, 150), "is_valid", 200, 300)
    rows = cut(video)["footage"]
    table = pa.Table.from_pylist(rows, schema=TABLES["footage"].arrow_schema())
    found = waterfall([table, table.slice(0, 0)])
    assert found.total_s == pytest.approx(10.0) and found.episodes == 1
    steps = found.steps()
    assert steps[0] == ("footage", pytest.approx(10.0)) and steps[-1][0] == "kept"
    assert steps[-1][1] == pytest.approx(steps[-2][1])
    assert set(found.as_json()["lost_s"]) == {"no hands", "few valid hands", "too short"}


def test_an_installed_captioner_says_it_and_its_version_is_in_the_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "made_captions.py").write_text(
        "def say(facts):\n    return f'Stir for {facts.end_pts_s - facts.start_pts_s:.0f} s'\n"
    )
    info = tmp_path / "made_captions-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: made-captions\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text("[ego_assets.captioners]\nstirrer = made_captions:say\n")
    monkeypatch.syspath_prepend(tmp_path)
    (episode,) = cut(MadeVideo(), captioner="stirrer")["episodes"]
    assert (episode["instruction"], episode["instruction_source"]) == ("Stir for 10 s", "stirrer")
    settings = EpisodeSettings(captioner="stirrer")
    assert EpisodeCutter.identity(settings, tmp_path).endswith(" made-captions 1.5")
    plain = EpisodeCutter.identity(EpisodeSettings(), tmp_path)
    assert plain and plain != EpisodeCutter.identity(EpisodeSettings(failed_checks="all"), tmp_path)
    assert EpisodeCutter.identity(EpisodeSettings(failed_checks="none"), tmp_path) == ""


def test_a_shard_of_rejected_files_has_footage_and_no_episode() -> None:
    row = MadeVideo().manifest() | {"accepted": False, "reject_reason": "corrupt"}
    made = cut(more=[row])
    assert bins(made["footage"]) == [("rejected", 0, 0)]
    assert made["episodes"] == made["episode_hands"] == []
