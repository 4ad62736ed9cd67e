"""Cuts are found and not invented; long scenes become overlapping clips."""

from __future__ import annotations

import json
import pickle
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ego_assets.media.frame_index import index_frames
from ego_assets.models.packaged.declaration import TRANSNET
from ego_assets.models.weights import WeightsError
from ego_assets.videos.clips import (
    Boundary,
    ClipSplitter,
    boundaries,
    merge_short_scenes,
    split_scenes,
)
from ego_assets.videos.cuts import find_cuts
from ego_assets.videos.settings import ClipSettings
from ego_assets.videos.transitions import gradual
from ego_assets.videos.transitions.gradual import Transition
from samples import load_truth
from tests.engine.stage_bench import write_video
from tests.support.rendered import render_sample

PILLOW = "hands_pillow_portrait.mp4"
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
    PILLOW,
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
def test_one_take_has_no_cut_and_nothing_like_a_transition(real_data: Path, name: str) -> None:
    path = real_data / "videos" / name
    found = find_cuts(path, ClipSettings())
    assert found.cuts == []
    suspects = gradual.suspects(found.thumbs, index_frames(path).pts_s)
    assert suspects == ([(77, 77)] if name == PILLOW else [])


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
    clips = split_scenes([Boundary(c, c) for c in cuts], pts_s, duration_s, settings)
    new = [f for c in clips for f in range(c["start_frame"] + c["context_frames"], c["end_frame"])]
    assert new == list(range(len(steps)))
    for clip in clips:
        assert clip["end_pts_s"] - clip["start_pts_s"] <= 5.0 + 1.0 + 2 * max(steps)
        inside = [c for c in cuts if clip["start_frame"] < c < clip["end_frame"]]
        assert not inside, "a clip reaches over a cut"
        assert (clip["context_frames"] > 0) <= (clip["index_in_take"] > 0)


def test_a_flash_does_not_make_a_scene() -> None:
    pts_s = np.arange(300) / 30

    def kept(*cuts: int) -> list[int]:
        found = merge_short_scenes([Boundary(c, c) for c in cuts], pts_s, 0.5)
        return [b.start for b in found]

    assert kept(100, 103, 200) == [100, 200]
    assert kept(3, 100, 298) == [100]
    assert kept() == []


def test_frames_of_a_transition_belong_to_no_clip() -> None:
    pts_s = np.arange(300) / 30
    found = boundaries([50, 104, 200], [Transition(100, 110), Transition(280, 299)])
    assert found == [(50, 50), (100, 111), (200, 200), (280, 300)]
    clips = split_scenes(merge_short_scenes(found, pts_s, 0.5), pts_s, 10.0, ClipSettings())
    spans = [(c["start_frame"], c["end_frame"], c["split_reason"]) for c in clips]
    assert spans == [
        (0, 50, "start"),
        (50, 100, "cut"),
        (111, 200, "transition"),
        (200, 280, "cut"),
    ]
    assert [c["take"] for c in clips] == [0, 1, 2, 3]
    assert clips[1]["end_pts_s"] == pts_s[100]
    # A video that begins with a fade: its first scene begins where it ends.
    faded = split_scenes(boundaries([], [Transition(0, 20)]), pts_s, 10.0, ClipSettings())
    assert [(c["start_frame"], c["take"]) for c in faded] == [(21, 0)]


@pytest.mark.parametrize(
    ("cuts", "transitions", "spans"),
    [
        ([100], [(104, 112)], [(0, 104), (113, 300)]),
        ([], [(100, 110), (115, 125)], [(0, 100), (126, 300)]),
        ([118], [(100, 110), (125, 130)], [(0, 100), (131, 300)]),
        ([113], [(100, 110)], [(0, 100), (111, 300)]),
        ([], [(4, 20), (280, 292)], [(21, 280)]),
        ([290], [(280, 286)], [(0, 280)]),
        ([6], [(10, 20)], [(21, 300)]),
        ([100], [(130, 140)], [(0, 100), (100, 130), (141, 300)]),
    ],
)
def test_no_clip_is_shorter_than_a_scene(
    cuts: list[int], transitions: list[tuple[int, int]], spans: list[tuple[int, int]]
) -> None:
    pts_s = np.arange(300) / 30
    found = boundaries(cuts, [Transition(*t) for t in transitions])
    clips = split_scenes(merge_short_scenes(found, pts_s, 0.5), pts_s, 10.0, ClipSettings())
    assert [(c["start_frame"], c["end_frame"]) for c in clips] == spans


@given(st.lists(st.integers(1, 199), max_size=8), st.lists(st.integers(0, 19), max_size=4))
def test_frames_are_in_a_scene_or_belong_to_a_transition(
    cuts: list[int], places: list[int]
) -> None:
    pts_s, least_s = np.arange(200) / 30, 0.5
    transitions = [Transition(p * 10, p * 10 + 5) for p in sorted(set(places))]
    found = boundaries(sorted(set(cuts)), transitions)
    kept = merge_short_scenes(found, pts_s, least_s)
    assert set(kept) >= {b for b in kept if b.end == b.start} <= set(found)
    edges = [Boundary(0, 0), *kept, Boundary(200, 200)]
    scenes = [(a.start, b.end) for a, b in pairwise(edges) if a.start < b.end]
    inside = {f for start, end in scenes for f in range(start, end)}
    assert not inside & {f for t in transitions for f in range(t.first, t.last + 1)}
    if max(end - start for start, end in scenes) >= least_s * 30:
        assert all(pts_s[min(end, 199)] - pts_s[start] >= least_s for start, end in scenes)
    # What is in no scene lies between transitions, or one and an edge, that are less apart.
    solid = [0, *(f for t in transitions for f in (t.first, t.last + 1)), 200]
    assert inside, "no video is lost"
    for start, end in zip(solid[::2], solid[1::2], strict=True):
        if end - start > least_s * 30:
            assert set(range(start, end)) <= inside


def test_a_whole_video_may_be_short() -> None:
    found = boundaries([9], [Transition(3, 4)])
    assert merge_short_scenes(found, np.arange(12) / 30, 0.5) == [Boundary(3, 5)]
    assert merge_short_scenes([], np.arange(4) / 30, 0.5) == []
    assert merge_short_scenes([Boundary(2, 2)], np.arange(4) / 30, 0.5) == []


@pytest.fixture(scope="module")
def transnet(packaged_weights: Path) -> ClipSplitter:
    return ClipSplitter(ClipSettings(), packaged_weights)


def test_a_cross_fade_and_a_fade_are_found_with_their_extent(
    real_data: Path, transnet: ClipSplitter
) -> None:
    path = real_data / "constructed" / "cuts_gradual.mp4"
    rows = transnet.split({"video_id": "v", "shard": "s"}, path)
    truth = json.loads(path.with_suffix(".cuts.json").read_text())["scene_change_any_of"]
    assert [r["split_reason"] for r in rows] == ["start", "transition", "transition"]
    for before, after, (first, last) in zip(rows, rows[1:], truth, strict=False):
        assert before["end_frame"] == pytest.approx(first, abs=3)
        assert after["start_frame"] == pytest.approx(last, abs=3)


def test_the_network_tells_what_only_looks_like_a_transition(
    real_data: Path, transnet: ClipSplitter
) -> None:
    rows = transnet.split({"video_id": "v", "shard": "s"}, real_data / "videos" / PILLOW)
    assert {r["take_id"] for r in rows} == {"v-t000"}


def test_a_video_that_fades_from_end_to_end_is_one_clip(
    tmp_path: Path, transnet: ClipSplitter
) -> None:
    write_video(tmp_path / "fades.mp4", frames=10)
    (row,) = transnet.split({"video_id": "v", "shard": "s"}, tmp_path / "fades.mp4")
    assert (row["start_frame"], row["end_frame"], row["split_reason"]) == (0, 10, "start")


def test_hard_cuts_stay_as_they_are(real_data: Path, transnet: ClipSplitter) -> None:
    path = real_data / "constructed" / "cuts_hard.mp4"
    truth = json.loads(path.with_suffix(".cuts.json").read_text())
    rows = transnet.split({"video_id": "v", "shard": "s"}, path)
    cuts = [r["start_frame"] for r in rows if r["split_reason"] == "cut"]
    assert cuts == truth["hard_cut_first_frames"]
    assert not [r for r in rows if r["split_reason"] == "transition"]


def test_a_lamp_that_comes_on_is_no_transition() -> None:
    scene = np.random.default_rng(0).uniform(20, 80, (9, 16))
    lit = np.clip(np.linspace(1, 2.5, 60), 1.2, 2.2)[:, None, None] * scene
    other = np.random.default_rng(1).uniform(20, 80, (9, 16))
    share = np.clip(np.linspace(-1, 2, 60), 0, 1)[:, None, None]
    faded = (1 - share) * scene + share * other
    pts_s = np.arange(60) / 30
    assert gradual.suspects(dict(enumerate(lit.astype(np.uint8))), pts_s) == []
    ((first, last),) = gradual.suspects(dict(enumerate(faded.astype(np.uint8))), pts_s)
    assert 18 <= first <= last <= 42
    # Of what the fast search did not see, nothing is known.
    seen = {i: p for i, p in enumerate(faded.astype(np.uint8)) if not 25 < i < 35}
    assert all(b <= 25 or a >= 35 for a, b in gradual.suspects(seen, pts_s))


@pytest.mark.parametrize("kind", ["no zip", "empty", "half", "code", "text", "other", "no numbers"])
def test_weights_that_are_not_the_networks_are_told_as_such(
    kind: str, packaged_weights: Path, tmp_path: Path
) -> None:
    import torch

    place = Path(TRANSNET.paths[0])
    whole = (packaged_weights / place).read_bytes()
    held = torch.load(packaged_weights / place, weights_only=True)
    contents = {
        "no zip": b"version https://git-lfs.github.com/spec/v1\n",
        "empty": b"",
        "half": whole[: len(whole) // 2],
        "code": pickle.dumps(print),
    }
    objects: dict[str, Any] = {
        "text": dict.fromkeys(held, "text"),
        "other": {"conv.weight": torch.zeros(3)},
        "no numbers": {k: v * float("nan") for k, v in held.items()},
    }
    (tmp_path / place).parent.mkdir(parents=True)
    if kind in contents:
        (tmp_path / place).write_bytes(contents[kind])
    else:
        torch.save(objects[kind], tmp_path / place)
    with pytest.raises(WeightsError, match=re.escape(str(tmp_path / place))):
        ClipSplitter.check(ClipSettings(), tmp_path)
