"""Cleaning brings a trajectory nearer to the truth, without lag, and says what it did."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ego_assets.episodes.cleaning import ABSENT, FILLED, MEASURED, SMOOTHED, CleanPath, clean
from tests.episodes.made_footage import FPS, MadeVideo, cut, without

COUNT = 240
PTS = np.arange(COUNT) / FPS
ONE_TRACK = np.zeros(COUNT, int)


def truth() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A hand that moves at about 0.5 m/s and turns by up to 60 degrees."""
    phase = 2 * np.pi * 0.5 * PTS
    position = np.stack([0.15 * np.cos(phase), 0.1 * np.sin(2 * phase), 0.5 + 0 * phase], axis=1)
    xyzw = Rotation.from_rotvec(np.stack([np.sin(phase), 0 * phase, 0 * phase], axis=1)).as_quat()
    local = np.tile(np.linspace(0, 0.1, 63).reshape(21, 3), (COUNT, 1, 1))
    return position, xyzw, local


def cleaned(
    position: np.ndarray, xyzw: np.ndarray, local: np.ndarray, smoothing_s: float = 0.25
) -> CleanPath:
    return clean(
        PTS,
        ONE_TRACK,
        position,
        xyzw,
        local,
        fill_gap_s=0.2,
        outlier_m=0.05,
        smoothing_s=smoothing_s,
    )


def test_noise_is_taken_out_without_lag() -> None:
    rng = np.random.default_rng(0)
    position, xyzw, local = truth()
    noisy = position + rng.normal(0, 0.004, position.shape)
    turned = Rotation.from_quat(xyzw) * Rotation.from_rotvec(rng.normal(0, 0.05, (COUNT, 3)))
    found = cleaned(noisy, turned.as_quat(), local)
    assert set(found.origin) == {SMOOTHED}
    assert found.after_mm < 0.3 * found.before_mm
    apart = np.linalg.norm(found.position - position, axis=1)
    assert np.sqrt((apart**2).mean()) < 0.7 * np.sqrt(3) * 0.004
    angle = (Rotation.from_quat(found.xyzw) * Rotation.from_quat(xyzw).inv()).magnitude()
    assert np.sqrt((angle**2).mean()) < 0.7 * np.sqrt(3) * 0.05

    def mismatch(shift: int) -> float:
        inner = np.arange(20, COUNT - 20)
        return float(((found.position[inner] - position[inner + shift]) ** 2).sum())

    assert min(range(-3, 4), key=mismatch) == 0


def test_a_smooth_path_stays_what_it_is() -> None:
    position, xyzw, local = truth()
    found = cleaned(position, xyzw, local)
    assert np.abs(found.position - position).max() < 0.002
    exact = cleaned(position, xyzw, local, smoothing_s=0)
    assert set(exact.origin) == {MEASURED}
    assert np.array_equal(exact.position, position)


def test_short_gaps_are_filled_and_long_ones_are_not() -> None:
    position, xyzw, _ = truth()
    seen = np.ones(COUNT, bool)
    seen[50:54], seen[100:130] = False, False
    hidden = [np.where(seen.reshape(-1, *[1] * (v.ndim - 1)), v, np.nan) for v in truth()]
    found = cleaned(*hidden, smoothing_s=0)
    assert (found.origin[50:54] == FILLED).all() and (found.origin[100:130] == ABSENT).all()
    assert np.isnan(found.position[100:130]).all() and np.isnan(found.local[100:130]).all()
    # The gap is at a turning point, which a filling without overshoot cuts off.
    assert np.abs(found.position[50:54] - position[50:54]).max() < 0.01
    angle = Rotation.from_quat(found.xyzw[50:54]) * Rotation.from_quat(xyzw[50:54]).inv()
    assert np.degrees(angle.magnitude()).max() < 2.0
    assert np.array_equal(found.position[seen], position[seen])
    smooth = cleaned(*hidden)
    assert (smooth.origin[50:54] == FILLED).all(), "a filled frame is never called smoothed"


def test_nothing_is_filled_at_the_ends() -> None:
    position, xyzw, local = truth()
    for values in (position, xyzw, local):
        values[:3] = values[-3:] = np.nan
    found = cleaned(position, xyzw, local)
    assert (found.origin[:3] == ABSENT).all() and (found.origin[-3:] == ABSENT).all()


def test_outliers_are_rejected_and_replaced() -> None:
    position, xyzw, local = truth()
    wrong = position.copy()
    wrong[[60, 150]] += [[0.2, 0.0, 0.3], [0.0, -0.3, 0.0]]
    found = cleaned(wrong, xyzw, local)
    assert found.rejected == 2 and (found.origin[[60, 150]] == FILLED).all()
    assert np.linalg.norm(found.position - position, axis=1).max() < 0.01


def test_quaternions_that_flip_their_sign_are_one_rotation() -> None:
    position, xyzw, local = truth()
    flipped = xyzw * np.where(np.arange(COUNT) % 2, 1, -1)[:, None]
    found = cleaned(position, flipped, local)
    angle = (Rotation.from_quat(found.xyzw) * Rotation.from_quat(xyzw).inv()).magnitude()
    assert angle.max() < 0.02


@pytest.mark.parametrize("rate", ["changing", "alternating", "with a hole"])
def test_a_steady_hand_stays_where_it_is_at_any_rate(rate: str) -> None:
    steps = np.full(COUNT, 1 / FPS)
    if rate == "changing":
        steps[COUNT // 2 :] *= 1.5
    elif rate == "alternating":
        steps[::2] *= 1.5
    else:
        steps[100] = 1.5
    pts = np.cumsum(steps)
    position = np.array([0.5, 0.1, 0.0]) * pts[:, None] + [0, 0, 0.5]
    _, xyzw, local = truth()
    still = np.tile(xyzw[0], (COUNT, 1))
    found = clean(
        pts, ONE_TRACK, position, still, local, fill_gap_s=0.2, outlier_m=0.5, smoothing_s=0.25
    )
    assert set(found.origin) == {SMOOTHED}
    assert np.abs(found.position - position).max() < 1e-9


def test_nothing_is_filled_or_smoothed_from_one_person_to_another() -> None:
    position, xyzw, local = truth()
    track = np.where(np.arange(COUNT) < 120, 0, 1)
    position[120:] += [0.3, 0, 0]
    for values in (position, xyzw, local):
        values[118:121] = np.nan
    found = clean(
        PTS, track, position, xyzw, local, fill_gap_s=0.2, outlier_m=1.0, smoothing_s=0.25
    )
    assert (found.origin[118:121] == ABSENT).all()
    alone = clean(
        PTS[:118],
        track[:118],
        position[:118],
        xyzw[:118],
        local[:118],
        fill_gap_s=0.2,
        outlier_m=1.0,
        smoothing_s=0.25,
    )
    assert np.array_equal(found.position[:118], alone.position)


@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_few_frames_are_left_as_they_are(count: int) -> None:
    position, xyzw, local = (v[:count] for v in truth())
    found = clean(
        PTS[:count],
        ONE_TRACK[:count],
        position,
        xyzw,
        local,
        fill_gap_s=0.2,
        outlier_m=0.05,
        smoothing_s=0.25,
    )
    assert np.array_equal(found.position, position) and set(found.origin) <= {MEASURED}
    assert np.isnan(found.before_mm) == (count < 3)


def test_rows_say_what_was_measured_and_fit_the_camera() -> None:
    """Camera and world of one row agree, whatever was filled."""
    video = without(without(MadeVideo(), "is_valid", 100, 104), "camera_valid", 200, 203)
    video.camera_m[:, 0] = np.linspace(0, 1, 300)
    angle = np.linspace(0, 0.5, 300)
    video.camera_xyzw[:] = Rotation.from_rotvec(angle[:, None] * [0.0, 1.0, 0.0]).as_quat()
    made = cut(video)
    hands = {(r["frame_index"], r["side"]): r for r in made["episode_hands"]}
    frames = {r["frame_index"]: r for r in made["episode_frames"]}
    assert {hands[f, "left"]["origin"] for f in range(100, 104)} == {"filled"}
    assert hands[102, "left"]["clip_id"] is None and hands[99, "left"]["clip_id"] is not None
    assert hands[99, "right"]["origin"] == "smoothed"
    assert {frames[f]["camera_origin"] for f in range(200, 203)} == {"filled"}
    assert made["episodes"][0]["filled_hand_share"] == pytest.approx(8 / 600)
    for (frame, _), row in hands.items():
        camera = frames[frame]
        turn = Rotation.from_quat(camera["world_from_camera_xyzw"])
        there = turn.apply(row["joints_camera_m"]) + camera["world_from_camera_m"]
        assert np.abs(there - row["joints_world_m"]).max() < 1e-5
        assert np.abs(there[0] - row["world_from_hand_m"]).max() < 1e-5
        same = turn * Rotation.from_quat(row["camera_from_hand_xyzw"])
        apart = same * Rotation.from_quat(row["world_from_hand_xyzw"]).inv()
        assert apart.magnitude() < 1e-4
    for frame in (50, 102, 250):
        joints = np.array(hands[frame, "right"]["joints_camera_m"])
        assert np.linalg.norm(joints[0] - video.wrist_m[frame] - [0, 0, 0]) < 0.01


def test_there_is_no_world_where_its_units_are_not_metres() -> None:
    made = cut(MadeVideo(scale_kind="arbitrary"))
    assert made["episodes"][0]["scale_kind"] == "arbitrary"
    assert {r["world_from_hand_m"] for r in made["episode_hands"]} == {None}
    assert {r["world_from_camera_m"] for r in made["episode_frames"]} == {None}
