"""Cuts are found and not invented; long scenes become overlapping clips."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ego_assets.videos.clips import ClipSplitter, merge_short_scenes, split_scenes
from ego_assets.videos.cuts import find_cuts
from ego_assets.videos.settings import ClipSettings
from samples import load_truth
from tests.support.rendered import render_sample

ONE_TAKE = [
    "ego_table_objects.mp4",
    "ego_dinner_table.mp4",
    "ego_office_two_hands.mp4",
    "hands_blocks_topdown.mp4",
    "hands_cups_shuffle.mp4",
    "hand_gestures_webcam.mp4",
    "hands_toy_mixer.mp4",
    "robot_toy_mixer.mp4",
    "object_orbit_basketball.mp4",
    "hands_pillow_portrait.mp4",
    "hands_kneading_dough.mp4",
    "pancake_flip_audio.mkv",
]


def cuts_of(path: Path, **settings: object) -> list[int]:
    return find_cuts(path, ClipSettings(**settings)).cuts  # type: ignore[arg-type]


@pytest.mark.parametrize("detector", ["content", "adaptive"])
def test_hard_cuts_are_found_exactly(real_data: Path, detector: str) -> None:
    truth = json.loads((real_data / "constructed" / "cuts_hard.cuts.json").read_text())
    found = cuts_of(real_data / "constructed" / "cuts_hard.mp4", detector=detector)
    assert found == truth["hard_cut_first_frames"]


def test_without_confirmation_the_stepping_scene_gives_false_cuts(real_data: Path) -> None:
    path = real_data / "constructed" / "cuts_hard.mp4"
    assert 300 in cuts_of(path, min_histogram_distance=0)


@pytest.mark.parametrize("name", ONE_TAKE)
def test_one_take_has_no_cut(real_data: Path, name: str) -> None:
    assert cuts_of(real_data / "videos" / name) == []


@pytest.mark.parametrize("seed", [0, 1])
def test_cuts_of_samples(tmp_path: Path, seed: int) -> None:
    video = render_sample(tmp_path, seed=seed, duration_s=4.0, scenes=3, width=320, height=180)
    assert cuts_of(video) == load_truth(video).cuts


def test_rows_of_a_real_video(real_data: Path) -> None:
    path = real_data / "videos" / "hand_gestures_webcam.mp4"
    rows = ClipSplitter(ClipSettings(max_clip_s=8)).split({"video_id": "v", "shard": "s"}, path)
    assert [r["clip_id"] for r in rows] == ["v-0000", "v-0001", "v-0002"]
    assert {r["take_id"] for r in rows} == {"v-t000"}
    assert [r["split_reason"] for r in rows] == ["start", "length", "length"]
    assert [r["context_frames"] for r in rows] == [0, 45, 45]
    assert rows[-1]["end_frame"] == 621


lengths = st.lists(st.floats(0.01, 0.2), min_size=1, max_size=400)


@given(lengths, st.data())
def test_every_frame_is_new_in_one_clip_and_limits_hold(steps: list[float], data) -> None:  # type: ignore[no-untyped-def]
    pts_s = np.r_[0.0, np.cumsum(steps[:-1])]
    duration_s = float(np.sum(steps))
    cuts = sorted(set(data.draw(st.lists(st.integers(1, max(1, len(steps) - 1)), max_size=4))))
    cuts = [c for c in cuts if c < len(steps)]
    settings = ClipSettings(max_clip_s=5.0, overlap_s=1.0)
    clips = split_scenes(cuts, pts_s, duration_s, settings)
    new = [f for c in clips for f in range(c["start_frame"] + c["context_frames"], c["end_frame"])]
    assert new == list(range(len(steps)))
    for clip in clips:
        assert clip["end_pts_s"] - clip["start_pts_s"] <= 5.0 + 1.0 + 2 * max(steps)
        inside = [c for c in cuts if clip["start_frame"] < c < clip["end_frame"]]
        assert not inside, "a clip reaches over a cut"
        assert (clip["context_frames"] > 0) <= (clip["index_in_take"] > 0)


def test_a_flash_does_not_make_a_scene() -> None:
    pts_s = np.arange(300) / 30
    assert merge_short_scenes([100, 103, 200], pts_s, 0.5) == [100, 200]
    assert merge_short_scenes([3, 100, 298], pts_s, 0.5) == [100]
    assert merge_short_scenes([], pts_s, 0.5) == []
