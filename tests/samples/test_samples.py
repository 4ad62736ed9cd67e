"""The truth of a sample is the truth of its pictures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

import samples
from samples import Truth, load_truth
from samples.geometry import ease
from samples.truth import truth_path
from tests.support.rendered import render_sample


def pictures(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Truth]:
    path = render_sample(tmp_path_factory.mktemp("sample"), seed=4, duration_s=3.0)
    return path, load_truth(path)


def test_the_same_seed_gives_the_same_video_and_truth(tmp_path: Path) -> None:
    options = {"seed": 9, "duration_s": 1.0, "width": 160, "height": 90, "scenes": 2}
    one, other = (samples.render_sample(tmp_path / n, **options) for n in "ab")
    assert all(np.array_equal(a, b) for a, b in zip(pictures(one), pictures(other), strict=True))
    with np.load(truth_path(one)) as first, np.load(truth_path(other)) as second:
        assert all(np.array_equal(first[k], second[k], equal_nan=k[:5] == "world") for k in first)
    third = render_sample(tmp_path / "c", **options | {"seed": 10})
    assert not np.array_equal(pictures(one)[0], pictures(third)[0])


def test_shapes(sample: tuple[Path, Truth]) -> None:
    path, truth = sample
    assert len(pictures(path)) == truth.frame_count == 90
    assert truth.joints_px.shape == (90, 2, 21, 2)
    assert truth.world_from_object.shape == (90, len(truth.object_names), 4, 4)


def test_corners_of_objects_project_onto_their_masks(sample: tuple[Path, Truth]) -> None:
    _, truth = sample
    for frame in (0, 45, 89):
        for index in range(len(truth.object_names)):
            mask = truth.object_mask(frame, index)
            if mask.sum() < 100:
                continue
            camera_from_world = np.linalg.inv(truth.world_from_camera[frame])
            centre = camera_from_world @ truth.world_from_object[frame, index][:, 3]
            x = truth.fx * centre[0] / centre[2] + truth.cx
            y = truth.fy * centre[1] / centre[2] + truth.cy
            rows, columns = np.nonzero(mask)
            assert columns.min() - 2 <= x <= columns.max() + 2
            assert rows.min() - 2 <= y <= rows.max() + 2


def test_joints_project_into_the_hand_that_shows_them(sample: tuple[Path, Truth]) -> None:
    _, truth = sample
    for frame in (0, 40, 80):
        for side in (0, 1):
            mask = truth.hand_mask(frame, side)
            grown = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5)))
            pixels = np.round(truth.joints_px[frame, side]).astype(int)
            inside = [
                grown[y, x] for x, y in pixels if 0 <= x < truth.width and 0 <= y < truth.height
            ]
            assert np.mean(inside) > 0.6  # the others are behind an object
            camera = truth.joints_camera_m[frame, side]
            assert np.allclose(
                truth.fx * camera[:, 0] / camera[:, 2] + truth.cx,
                truth.joints_px[frame, side, :, 0],
            )


def test_masks_show_what_is_drawn(sample: tuple[Path, Truth]) -> None:
    """Skin has the colour of skin, and nothing else in the mask."""
    path, truth = sample
    image = pictures(path)[0].astype(float)
    core = cv2.erode(truth.hand_mask(0, 1).astype(np.uint8), np.ones((5, 5))) > 0
    colors = image[core] / image[core].sum(axis=1, keepdims=True)
    assert colors.std(axis=0).max() < 0.02


def test_bones_keep_their_length(sample: tuple[Path, Truth]) -> None:
    _, truth = sample
    joints = truth.joints_camera_m
    lengths = np.linalg.norm(joints[:, :, 6] - joints[:, :, 5], axis=-1)
    assert np.ptp(lengths) < 1e-9


def test_objects_move_only_when_they_are_held(sample: tuple[Path, Truth]) -> None:
    _, truth = sample
    for index in range(len(truth.object_names)):
        held = truth.contacts[:, :, index].any(axis=1)
        place = truth.world_from_object[:, index, :3, 3]
        step = np.linalg.norm(np.diff(place, axis=0), axis=1)
        free = ~(held[1:] | held[:-1])
        assert step[free].max(initial=0) < 1e-9
        if held.any():
            assert step[held[1:]].sum() > 0.08
    assert truth.contacts.any()


def test_there_is_parallax(sample: tuple[Path, Truth]) -> None:
    _, truth = sample
    assert np.linalg.norm(np.ptp(truth.world_from_camera[:, :3, 3], axis=0)) > 0.1


def test_cuts_change_the_world(tmp_path: Path) -> None:
    path = render_sample(tmp_path, seed=1, duration_s=3.0, scenes=3, width=160, height=90)
    truth, shown = load_truth(path), pictures(path)
    assert len(truth.cuts) == 2
    for cut in truth.cuts:
        change = np.abs(shown[cut].astype(int) - shown[cut - 1]).mean()
        before = np.abs(shown[cut - 1].astype(int) - shown[cut - 2]).mean()
        assert change > 3 * before
        there = ~np.isnan(truth.world_from_object[:, :, 0, 0])
        assert not (there[cut] & there[cut - 1]).any()


def test_the_audio_knocks_when_something_is_touched(sample: tuple[Path, Truth]) -> None:
    path, truth = sample
    with av.open(str(path)) as container:
        parts = [f.to_ndarray()[0] for f in container.decode(audio=0)]
    wave = np.concatenate(parts)
    assert truth.contact_onsets_s
    for onset in truth.contact_onsets_s:
        at = int(onset * 48_000)
        assert np.abs(wave[at : at + 2400]).max() > 10 * np.abs(wave[at - 4800 : at - 1200]).std()


def test_the_command_line_renders(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "samples",
        str(tmp_path),
        "--count",
        "2",
        "--duration-s",
        "0.2",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert [Path(line).exists() for line in done.stdout.split()] == [True, True]


def test_easing_stays_within_its_range() -> None:
    values = [ease(x) for x in np.linspace(0.99, 1.0, 20_001)]
    assert max(values) <= 1.0
