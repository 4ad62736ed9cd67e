"""What no map can say of itself: that other features contradict it, and that a zoom explains it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import cv2
import numpy as np
import pytest

from ego_assets.scene.colmap.keyframes import parallax_px
from ego_assets.scene.colmap.mapping import SparseMap
from ego_assets.scene.colmap.point_tracks import TrackTable, collect_tracks
from ego_assets.scene.colmap.registration import Registration, register_frames
from ego_assets.scene.colmap.witnesses import Witnesses, epipolar_errors, without_contradicted
from ego_assets.scene.settings import ReconstructSettings
from ego_assets.vision.geometry import invert_pose, pose_matrix
from tests.support.plane_scene import LENS, Scene, head_motion, room

FRAMES = 60
SETTINGS = ReconstructSettings()
WRONG = range(15, FRAMES)
AMONG = slice(40, 55)
"""Inside of the wrong stretch: near its begin, pictures of the right one are asked, too."""


@cache
def watched() -> tuple[Witnesses, TrackTable]:
    """Features and frames of a head that looks around in a room."""
    scene = Scene(room(1), head_motion, 0, FRAMES)
    witnesses = Witnesses()
    frames = witnesses.watch(scene.read(), lambda *_: None)
    return witnesses, collect_tracks(frames, lambda *_: None, 50)


def registered(poses: Sequence[np.ndarray]) -> list[Registration]:
    return [Registration(p, "pnp", inliers=40, matches=50, error=0.5) for p in poses]


def test_features_agree_with_the_true_poses() -> None:
    witnesses, tracks = watched()
    found = registered([head_motion(f) for f in range(FRAMES)])
    share = witnesses.agreeing(tracks, found, LENS, SETTINGS)
    assert share.min() > 0.9
    kept = without_contradicted(found, share, SETTINGS.min_witness_share)
    assert kept == [replace(r, agreeing=s) for r, s in zip(found, share, strict=True)]


def test_a_pose_that_features_contradict_is_dropped_and_keeps_its_evidence() -> None:
    """As of a map that rests on a person who walks: it is smooth, and wrong."""
    witnesses, tracks = watched()
    turns = {f: 0.03 * (f - WRONG[0]) * np.array([0.3, 1.0, 0.1]) for f in WRONG}
    away = {f: pose_matrix(cv2.Rodrigues(turn)[0], np.zeros(3)) for f, turn in turns.items()}
    found = registered([head_motion(f) @ away.get(f, np.eye(4)) for f in range(FRAMES)])
    share = witnesses.agreeing(tracks, found, LENS, SETTINGS)
    kept = without_contradicted(found, share, SETTINGS.min_witness_share)
    dropped = kept[AMONG]
    assert {(r.pose is None, r.reason) for r in dropped} == {(True, "other features disagree")}
    assert {(r.inliers, r.matches, r.error) for r in dropped} == {(40, 50, 0.5)}


def test_pictures_without_features_contradict_nothing() -> None:
    witnesses = Witnesses()
    dark = Scene([], head_motion, 0, 20, noise=0.0)
    tracks = collect_tracks(witnesses.watch(dark.read(), lambda *_: None), lambda *_: None, 50)
    found = registered([head_motion(f) for f in range(20)])
    share = witnesses.agreeing(tracks, found, LENS, SETTINGS)
    assert np.isnan(share).all()
    assert without_contradicted(found, share, SETTINGS.min_witness_share) == found


def test_masked_features_are_not_heard() -> None:
    witnesses = Witnesses()
    scene = Scene(room(1), head_motion, 0, 20)
    everything = lambda _frame, size: np.ones(size, bool)  # noqa: E731
    tracks = collect_tracks(witnesses.watch(scene.read(), everything), lambda *_: None, 50)
    share = witnesses.agreeing(tracks, registered([np.eye(4)] * 20), LENS, SETTINGS)
    assert np.isnan(share).all()


@pytest.mark.parametrize("way", [(0.3, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.4)])
def test_points_lie_where_the_poses_allow_them(way: tuple[float, float, float]) -> None:
    points = np.random.default_rng(0).uniform((-1, -1, 2), (1, 1, 5), (50, 3))
    turn = cv2.Rodrigues(np.array([0.0, 0.1, 0.02]))[0]
    second_from_first = invert_pose(pose_matrix(turn, np.array(way)))
    there = points @ second_from_first[:3, :3].T + second_from_first[:3, 3]
    a, b = (p[:, :2] / p[:, 2:] for p in (points, there))
    assert epipolar_errors(second_from_first, a, b).max() < 1e-9
    turned = second_from_first.copy()
    turned[:3, :3] = cv2.Rodrigues(np.array([0.05, 0.0, 0.0]))[0] @ turned[:3, :3]
    assert np.median(epipolar_errors(turned, a, b)) > 0.01


@pytest.mark.parametrize(("size_m", "is_valid"), [(0.2, False), (1.2, True)])
def test_points_in_one_part_of_the_picture_make_no_pose(size_m: float, is_valid: bool) -> None:
    """They may be a thing that moves, and hardly tell a turn from a way."""
    points = np.random.default_rng(0).uniform((0.4, 0.2, 2.0), (0.7, 0.4, 2.4), (60, 3))
    points = (points - (0.55, 0.3, 2.2)) * (size_m / 0.3, size_m / 0.3, 1) + (0.55, 0.3, 2.2)
    xy = LENS.fx * points[:, :2] / points[:, 2:] + (LENS.cx, LENS.cy)
    nothing = np.zeros(60)
    scene = SparseMap({}, points, np.arange(60), nothing, nothing, LENS)
    tracks = TrackTable(
        frame_index=np.arange(1),
        pts_s=np.zeros(1),
        starts=np.array([0, 60]),
        track=np.arange(60),
        xy=xy.astype(np.float32),
        colours=np.zeros((60, 3), np.uint8),
        size=(384, 216),
    )
    (found,) = register_frames(tracks, scene, SETTINGS)
    assert found.inliers == 60
    assert (found.pose is not None) == is_valid
    assert found.reason == (None if is_valid else "mapped points in one part of the picture")


def seen_by(zoom: float, steps_m: float) -> tuple[TrackTable, list[np.ndarray]]:
    """Points before a camera that turns a little, goes forward and zooms, over 12 pictures."""
    points = np.random.default_rng(0).uniform((-1.5, -1, 2.0), (1.5, 1, 6.0), (200, 3))
    flat = []
    for step in range(12):
        turn = cv2.Rodrigues(np.array([0.0, 0.01 * step, 0.0]))[0]
        pose = pose_matrix(turn, np.array([0, 0, steps_m * step]))
        camera = (points - pose[:3, 3]) @ pose[:3, :3]
        flat.append((1 + zoom * step) * camera[:, :2] / camera[:, 2:])
    tracks = TrackTable(
        frame_index=np.arange(12),
        pts_s=np.arange(12) / 10,
        starts=np.arange(13) * len(points),
        track=np.tile(np.arange(len(points)), 12),
        xy=(LENS.fx * np.concatenate(flat) + (LENS.cx, LENS.cy)).astype(np.float32),
        colours=np.zeros((len(points), 3), np.uint8),
        size=(384, 216),
    )
    return tracks, flat


def test_a_zoom_is_no_parallax_unless_the_lens_is_known() -> None:
    tracks, flat = seen_by(zoom=0.03, steps_m=0.0)
    frames = list(range(12))
    guessed = parallax_px(tracks, frames, flat, LENS.fx, focal_is_known=False)
    assert guessed < SETTINGS.min_parallax_px / 3
    known = parallax_px(tracks, frames, flat, LENS.fx, focal_is_known=True)
    assert known > SETTINGS.min_parallax_px


def test_a_way_forward_is_parallax_though_it_looks_like_a_zoom() -> None:
    tracks, flat = seen_by(zoom=0.0, steps_m=0.05)
    frames = list(range(12))
    assert parallax_px(tracks, frames, flat, LENS.fx, focal_is_known=False) > 2.0
