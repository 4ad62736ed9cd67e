"""The reconstruction: accuracy on exact scenes, evidence, refusals, one world a take."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks.scoring import CameraScore, score_cameras
from ego_assets.media.decode import ClipFrames
from ego_assets.media.frame_index import index_frames
from ego_assets.operator import Carried, ClipInput, ClipOutput, Intrinsics, Rows
from ego_assets.scene.colmap.reconstructor import PycolmapReconstructor
from ego_assets.scene.settings import ReconstructSettings
from ego_assets.scene.tables import REASONS, SceneReconstruction
from ego_assets.vision.geometry import (
    matrix_from_quaternion,
    pose_matrix,
    rotation_angle_deg,
    transform_points,
)
from tests.support.plane_scene import (
    LENS,
    SIZE,
    Patch,
    Scene,
    clip_of,
    head_motion,
    room,
    texture,
)

FRAMES = 60
MAX_POSITION_SHARE = 0.02
# Of the best common rotation: the path of two seconds is nearly straight, and what is aligned on a
# straight path may turn about it.
MAX_ROTATION_DEG = 0.5


def carried_box(frame: int) -> np.ndarray:
    """world_from_box (4, 4) of a thing that is waved before the camera."""
    t = frame / 30
    turn = cv2.Rodrigues(np.array([0.3 * np.sin(t), 0.5 * np.sin(2 * t), t]))[0]
    return pose_matrix(turn, [0.3 * np.sin(2 * t), 0.2 + 0.1 * np.cos(3 * t), 1.2])


MOVER = Patch(
    np.array([-0.2, -0.2, 0]),
    np.array([0.4, 0, 0]),
    np.array([0, 0.4, 0]),
    texture(99),
    carried_box,
)


@lru_cache(maxsize=6)
def pictures(*look: Any) -> dict[Any, Any]:
    """Rendered pictures of scenes that look the same."""
    return {}


def scene(
    start: int = 0,
    end: int = FRAMES,
    with_mover: bool = False,
    camera: Callable[[int], np.ndarray] = head_motion,
    lens: Intrinsics = LENS,
) -> Scene:
    patches = room(1) + ([MOVER] if with_mover else [])
    shared = pictures(with_mover, camera, lens)
    return Scene(patches, camera, start, end, lens, cache=shared)


def reconstruct(
    clip: ClipInput, carried: Carried | None = None, **settings: Any
) -> tuple[Rows, ClipOutput]:
    output = PycolmapReconstructor(ReconstructSettings(**settings)).process(clip, carried)
    rows = output.tables["scene_reconstruction"]
    check_contract(rows, clip)
    return rows, output


@cache
def of_the_room(with_mover: bool = False) -> tuple[Rows, ClipOutput]:
    """What is made of the room as it is, for all tests that only look at it."""
    return reconstruct(clip_of(scene(with_mover=with_mover)))


def check_contract(rows: Rows, clip: ClipInput) -> None:
    """A row for every frame that fits the schema; no pose without evidence, and never identity."""
    frames = range(clip.clip["start_frame"], clip.clip["end_frame"])
    assert [r["frame_index"] for r in rows] == list(frames)
    for row in rows:
        SceneReconstruction.model_validate(row)
        assert (row["confidence"] is not None) == row["is_valid"]
        if row["is_valid"]:
            assert row["inliers"] >= 12
            assert 0 < row["inlier_share"] <= 1
            assert 0 <= row["reprojection_error_px"] < 10
            assert row["registration"] in ("keyframe", "pnp", "static")
            assert row["motion_kind"] == ("static" if row["registration"] == "static" else "moving")
            assert row["invalid_reason"] is None
        else:
            assert row["world_from_camera_m"] is None
            assert row["world_from_camera_xyzw"] is None
            assert row["registration"] is None
            assert row["motion_kind"] == "unknown"
            assert row["invalid_reason"] in REASONS
    pts = [r["pts_s"] for r in rows]
    assert all(b > a for a, b in itertools.pairwise(pts))


def poses_of(rows: Rows) -> tuple[list[int], np.ndarray]:
    valid = [r for r in rows if r["is_valid"]]
    turns = matrix_from_quaternion(np.array([r["world_from_camera_xyzw"] for r in valid]))
    centres = np.array([r["world_from_camera_m"] for r in valid])
    return [r["frame_index"] for r in valid], pose_matrix(turns, centres)


def score(rows: Rows, camera: Callable[[int], np.ndarray] = head_motion) -> CameraScore:
    frames, found = poses_of(rows)
    assert len(frames) >= 0.9 * len(rows)
    return score_cameras(found, np.array([camera(f) for f in frames]))


def assert_accurate(rows: Rows) -> None:
    found = score(rows)
    assert found.position_share <= MAX_POSITION_SHARE
    assert found.own_rotation_deg <= MAX_ROTATION_DEG


def assert_refused(rows: Rows, output: ClipOutput, reason: str) -> None:
    assert not any(r["is_valid"] for r in rows)
    assert {r["invalid_reason"] for r in rows} == {reason}
    assert "scene_reconstruction" not in output.arrays
    assert not output.carried


def test_the_camera_path_is_found_where_things_that_move_are_masked() -> None:
    moving = scene(with_mover=True)
    rows, output = reconstruct(clip_of(moving, movers=[len(moving.patches) - 1]))
    assert_accurate(rows)
    assert {r["intrinsics_source"] for r in rows} == {"calibration_file"}
    assert {r["fx_px"] for r in rows} == {LENS.fx}
    assert {r["registration"] for r in rows} == {"keyframe", "pnp"}
    arrays = output.arrays["scene_reconstruction"]
    count = len(arrays["points"])
    assert count > 200
    assert arrays["points"].shape == (count, 3) and arrays["points"].dtype == np.float32
    assert arrays["colors"].shape == (count, 3) and arrays["colors"].dtype == np.uint8
    assert arrays["errors"].shape == (count,) and arrays["errors"].dtype == np.float32


def test_the_camera_path_is_found_though_a_thing_that_moves_is_not_masked() -> None:
    rows, _ = of_the_room(with_mover=True)
    assert_accurate(rows)


def test_a_map_that_other_features_contradict_is_refused() -> None:
    """Here they must all agree, and those on the thing that is waved do not."""
    rows, output = reconstruct(clip_of(scene(with_mover=True)), min_witness_share=1.0)
    assert_refused(rows, output, "other features disagree")
    assert "lie where the poses have them" in output.notes["no_map_of_its_own"]


def test_points_lie_on_the_surfaces_of_the_room() -> None:
    rows, output = of_the_room()
    frames, found = poses_of(rows)
    fit = score(rows)
    true = np.array([head_motion(f) for f in frames])
    rotation = true[0, :3, :3] @ found[0, :3, :3].T
    shift = (true[:, :3, 3] - fit.scale * found[:, :3, 3] @ rotation.T).mean(axis=0)
    points = fit.scale * output.arrays["scene_reconstruction"]["points"] @ rotation.T + shift
    off = np.full(len(points), np.inf)
    for patch in room(1):
        normal = np.cross(patch.u, patch.v)
        off = np.minimum(off, np.abs((points - patch.corner) @ normal) / np.linalg.norm(normal))
    assert np.median(off) < 0.03


@pytest.mark.parametrize("bend", [0.0, -0.12])
def test_a_guessed_lens_is_calibrated(bend: float) -> None:
    true = dataclasses.replace(LENS, model="OPENCV", distortion=(bend, 0.0, 0.0, 0.0))
    guess = dataclasses.replace(LENS, fx=345.0, fy=345.0, source="assumed_fov")
    rows, _ = reconstruct(clip_of(scene(lens=true), intrinsics=guess))
    assert_accurate(rows)
    assert {r["intrinsics_source"] for r in rows} == {"self_calibrated"}
    assert rows[0]["camera_model"] == "OPENCV"
    assert rows[0]["fx_px"] == pytest.approx(LENS.fx, rel=0.05)
    assert rows[0]["distortion"][0] == pytest.approx(bend, abs=0.05)


def test_a_guessed_lens_is_kept_where_the_clip_is_too_short_to_calibrate_it() -> None:
    guess = dataclasses.replace(LENS, fx=320.0, fy=320.0, source="assumed_fov")
    rows, _ = reconstruct(clip_of(scene(), intrinsics=guess), min_calibration_keyframes=1000)
    assert {(r["fx_px"], r["intrinsics_source"]) for r in rows} == {(320.0, "assumed_fov")}
    assert {r["camera_model"] for r in rows} == {"PINHOLE"}
    assert all(r["is_valid"] for r in rows)


@pytest.mark.parametrize(
    "lens",
    [
        dataclasses.replace(LENS, model="OPENCV", cy=104.0, distortion=(-0.15, 0.03, 0.001, 0.001)),
        Intrinsics(
            "OPENCV_FISHEYE", 220.0, 220.0, 190.0, 108.0, (0.02, -0.01, 0.0, 0.0), LENS.source
        ),
    ],
    ids=["opencv", "fisheye"],
)
def test_lens_distortion_is_taken_into_account(lens: Intrinsics) -> None:
    rows, _ = reconstruct(clip_of(scene(lens=lens)))
    assert_accurate(rows)
    assert rows[0]["camera_model"] == lens.model
    assert rows[0]["distortion"] == list(lens.distortion)
    errors = [r["reprojection_error_px"] for r in rows]
    assert np.median(errors) < 0.6


def test_the_global_mapper_agrees() -> None:
    rows, _ = reconstruct(clip_of(scene()), mapper="global")
    assert_accurate(rows)


def test_the_same_clip_gives_the_same_rows() -> None:
    first, one = of_the_room(with_mover=True)
    second, other = reconstruct(clip_of(scene(with_mover=True)))
    assert first == second
    for name, array in one.arrays["scene_reconstruction"].items():
        np.testing.assert_array_equal(array, other.arrays["scene_reconstruction"][name])


def test_errors_are_in_pixels_of_the_full_picture() -> None:
    small, _ = reconstruct(clip_of(scene()), work_side_px=192)
    large, _ = of_the_room()
    ratio = np.median([r["reprojection_error_px"] for r in small]) / np.median(
        [r["reprojection_error_px"] for r in large]
    )
    assert 1.0 < ratio < 4.0
    assert score(small).position_share <= MAX_POSITION_SHARE


class Uneven(Scene):
    """A video of a variable rate."""

    def time_of(self, frame_index: int) -> float:
        return (frame_index + 0.4 * (frame_index % 3)) / 30


def test_a_frame_that_does_not_decode_is_invalid_and_has_the_time_that_the_video_says() -> None:
    missing = frozenset({0, 17, FRAMES - 1})
    shared = pictures(False, head_motion, LENS)
    torn = Uneven(room(1), head_motion, 0, FRAMES, LENS, missing=missing, cache=shared)
    rows, _ = reconstruct(clip_of(torn))
    assert [r["frame_index"] for r in rows if not r["is_valid"]] == [0, 17, FRAMES - 1]
    assert rows[17]["invalid_reason"] == "the frame does not decode"
    assert [r["pts_s"] for r in rows] == [torn.time_of(f) for f in range(FRAMES)]


def test_a_black_stretch_is_invalid_and_the_rest_is_not() -> None:
    def blinded(frame: int) -> np.ndarray:
        # Far outside the room nothing is seen.
        return pose_matrix(np.eye(3), [0, 0, 90.0]) if frame >= 50 else head_motion(frame)

    rows, _ = reconstruct(clip_of(scene(camera=blinded)))
    assert all(r["is_valid"] for r in rows[:48])
    assert not any(r["is_valid"] for r in rows[50:])


# ---- what must be refused ----


def still(frame: int) -> np.ndarray:
    return head_motion(0)


def turning(frame: int) -> np.ndarray:
    return pose_matrix(head_motion(frame)[:3, :3], np.zeros(3))


def assert_static(rows: Rows, output: ClipOutput) -> None:
    """One pose, in metres since nothing has a length, and no points."""
    assert {r["registration"] for r in rows} == {"static"}
    assert {tuple(r["world_from_camera_m"]) for r in rows} == {(0.0, 0.0, 0.0)}
    assert {tuple(r["world_from_camera_xyzw"]) for r in rows} == {(0.0, 0.0, 0.0, 1.0)}
    assert {(r["scale_kind"], r["points_uri"]) for r in rows} == {("metric", None)}
    assert "scene_reconstruction" not in output.arrays


def test_a_still_camera_has_one_pose() -> None:
    rows, output = reconstruct(clip_of(scene(end=30, camera=still)))
    assert_static(rows, output)
    assert min(r["inlier_share"] for r in rows) > 0.95


def test_a_still_camera_has_one_pose_though_a_thing_moves_in_front_of_it() -> None:
    rows, output = reconstruct(clip_of(scene(end=30, camera=still, with_mover=True)))
    assert_static(rows, output)
    assert max(r["reprojection_error_px"] for r in rows) < 1.0


def test_a_slow_pan_is_no_still_camera() -> None:
    def panning(frame: int) -> np.ndarray:
        turn = cv2.Rodrigues(np.array([0, 0.0004 * frame, 0]))[0]  # 0.12 px a frame
        return pose_matrix(turn, np.zeros(3)) @ head_motion(0)

    rows, output = reconstruct(clip_of(scene(end=40, camera=panning)))
    assert_refused(rows, output, "no parallax")


def test_marks_of_the_picture_are_no_still_camera() -> None:
    """A logo stays in place under a camera that moves."""
    marked = Scene(room(1), head_motion, 0, FRAMES, LENS, cache={}, stamp=texture(7)[:60, :90])
    rows, _ = reconstruct(clip_of(marked))
    assert {r["motion_kind"] for r in rows} <= {"moving", "unknown"}


def test_a_camera_that_is_bumped_at_the_end_is_still_until_then() -> None:
    def bumped(frame: int) -> np.ndarray:
        turn = cv2.Rodrigues(np.array([0, 0.3 * max(0, frame - 29), 0]))[0]
        return pose_matrix(turn, np.zeros(3)) @ still(frame)

    rows, _ = reconstruct(clip_of(scene(end=36, camera=bumped)))
    assert {r["registration"] for r in rows[:30]} == {"static"}
    assert {r["invalid_reason"] for r in rows[30:]} == {"camera moved from its place"}


def test_clips_of_a_still_take_share_a_world() -> None:
    first, second = take(middle=30, end=45, overlap=15, camera=still)
    rows, output = reconstruct(first)
    more, told = reconstruct(second, output.carried)
    assert_static(more, told)
    assert {r["world_id"] for r in [*rows, *more]} == {first.clip_id}


@pytest.mark.parametrize("focal", [1.0, 1.25])
def test_a_camera_that_only_turns_is_refused(focal: float) -> None:
    guess = dataclasses.replace(
        LENS,
        fx=LENS.fx * focal,
        fy=LENS.fy * focal,
        source="calibration_file" if focal == 1.0 else "assumed_fov",
    )
    rows, output = reconstruct(clip_of(scene(camera=turning), intrinsics=guess))
    assert_refused(rows, output, "no parallax")


def test_a_black_clip_is_refused() -> None:
    rows, output = reconstruct(clip_of(Scene([], head_motion, 0, 20, noise=0.0)))
    assert_refused(rows, output, "too little texture")


def test_noise_without_a_scene_is_refused() -> None:
    rows, _ = reconstruct(clip_of(Scene([], head_motion, 0, 20, noise=60.0)))
    assert not any(r["is_valid"] for r in rows)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_clip_of_few_frames_is_refused(count: int) -> None:
    rows, output = reconstruct(clip_of(scene(end=count)))
    assert_refused(rows, output, "too few frames")


def test_a_tiny_picture_is_refused() -> None:
    lens = Intrinsics("PINHOLE", 25.0, 25.0, 15.5, 8.5, source="calibration_file")
    tiny = Scene(room(1), head_motion, 0, 20, lens, width=32, height=18)
    rows, output = reconstruct(clip_of(tiny))
    assert_refused(rows, output, "too little texture")


# ---- one world a take ----


def take(middle: int = 50, end: int = 90, overlap: int = 30, **changed: Any) -> list[ClipInput]:
    guess = changed.pop("intrinsics", None)
    return [
        clip_of(scene(0, middle, **changed), intrinsics=guess),
        clip_of(
            scene(middle - overlap, end, **changed),
            number=1,
            context_frames=overlap,
            intrinsics=guess,
        ),
    ]


@cache
def first_of_take(focal: float, source: str) -> tuple[Rows, ClipOutput]:
    first, _ = take(intrinsics=dataclasses.replace(LENS, fx=focal, fy=focal, source=source))
    return reconstruct(first)


@pytest.mark.parametrize("source", ["calibration_file", "assumed_fov"])
def test_two_clips_of_a_take_share_a_world(source: str) -> None:
    focal = LENS.fx * (1.0 if source == "calibration_file" else 1.15)
    guess = dataclasses.replace(LENS, fx=focal, fy=focal, source=source)
    first, second = take(intrinsics=guess)
    rows, output = first_of_take(focal, source)
    more, _ = reconstruct(second, output.carried)
    assert {r["world_id"] for r in rows + more} == {first.clip_id}
    assert {r["is_context"] for r in more[:30]} == {True}
    assert not any(r["is_context"] for r in more[30:])
    for column in ("camera_model", "fx_px", "distortion", "intrinsics_source"):
        assert rows[0][column] == more[0][column]
    # Once aligned, the whole take is one path.
    whole = rows + [r for r in more if not r["is_context"]]
    assert_accurate(whole)
    # And both clips tell the same of the frames that they share.
    one, other = (poses_of(part)[1] for part in (rows[20:], more[:30]))
    assert rotation_angle_deg(one[:, :3, :3], other[:, :3, :3]).max() < 0.5
    path = np.linalg.norm(np.diff(poses_of(whole)[1][:, :3, 3], axis=0), axis=1).sum()
    assert np.linalg.norm(one[:, :3, 3] - other[:, :3, 3], axis=1).max() < 0.02 * path


def test_a_clip_whose_overlap_disagrees_begins_a_new_world() -> None:
    _, second = take()
    _, output = first_of_take(LENS.fx, LENS.source)
    wrong = dict(output.carried)
    wrong["poses"] = wrong["poses"].copy()
    wrong["poses"][:, :3] += np.random.default_rng(0).normal(0, 1.0, wrong["poses"][:, :3].shape)
    rows, told = reconstruct(second, wrong)
    assert {r["world_id"] for r in rows} == {second.clip_id}
    assert all(r["is_valid"] for r in rows)
    assert "disagrees" in told.notes["take_alignment"]


HALT = 45


def halting(frame: int) -> np.ndarray:
    return head_motion(min(frame, HALT))


def screen(left_m: float, since: int) -> Patch:
    """Half of all that the halted camera sees, hidden from one frame on."""

    def placed(frame: int) -> np.ndarray:
        ahead = [0, 0, 0.5 if frame >= since else -50.0]
        return head_motion(HALT) @ pose_matrix(np.eye(3), ahead)

    width, height = np.array([0.35, 0, 0]), np.array([0, 0.4, 0])
    return Patch(np.array([left_m, -0.2, 0]), width, height, texture(since), placed)


@pytest.mark.parametrize("is_hidden", [False, True])
def test_a_wearer_who_stands_still_has_one_pose_in_the_world_before(is_hidden: bool) -> None:
    """Also when something comes between, bit by bit, until no point of before is seen."""
    first, second = take(middle=80, end=110, camera=halting)
    if is_hidden:
        patches = [*room(1), screen(-0.35, 85), screen(0.0, 98)]
        hidden = Scene(patches, halting, second.frames.start_frame, 110)
        second = clip_of(hidden, number=1, context_frames=30)
    rows, output = reconstruct(first)
    more, told = reconstruct(second, output.carried)
    assert "no parallax" in told.notes["no_map_of_its_own"]
    assert {r["world_id"] for r in more} == {first.clip_id}
    assert {(r["registration"], r["motion_kind"]) for r in more} == {("static", "static")}
    assert len({tuple(r["world_from_camera_m"] + r["world_from_camera_xyzw"]) for r in more}) == 1
    there, here = poses_of(rows)[1][-1], poses_of(more)[1][-1]
    assert rotation_angle_deg(there[:3, :3], here[:3, :3]) < 0.3
    ahead = np.array([[0, 0, 1.0]])
    off = transform_points(here, ahead) - transform_points(there, ahead)
    assert np.abs(off).max() < 0.05
    # A wearer who walks on then is found by the points that were seen all the while.
    assert is_hidden or len(told.carried["points"]) > 50


def test_a_wearer_who_comes_to_rest_moves_until_then() -> None:
    """The frames before keep the poses that the points of the clip before give them."""
    first, second = take(middle=50, end=100, overlap=10, camera=halting)
    _, output = reconstruct(first)
    rows, told = reconstruct(second, output.carried)
    assert "the camera stands still" in told.notes["no_map_of_its_own"]
    kinds = {r["frame_index"]: r["motion_kind"] for r in rows}
    assert {kinds[f] for f in range(40, HALT - 1)} == {"moving"}
    assert {kinds[f] for f in range(HALT + 1, 100)} == {"static"}
    true = np.array([halting(r["frame_index"]) for r in rows])
    found = poses_of(rows)[1]
    turn = found[-1, :3, :3].T @ found[0, :3, :3], true[-1, :3, :3].T @ true[0, :3, :3]
    assert rotation_angle_deg(*turn) < 0.3


def test_a_clip_after_one_without_a_map_begins_a_new_world() -> None:
    rows, _ = reconstruct(take()[1], {})
    assert {r["world_id"] for r in rows} == {rows[0]["clip_id"]}


# ---- real video ----


def real_clip(path: Path, start: int, end: int, lens: Intrinsics | None = None) -> ClipInput:
    frames, index = ClipFrames(path, start, end), index_frames(path)
    focal = 0.5 * max(frames.width, frames.height) / np.tan(np.radians(35.0))
    guess = lens or Intrinsics(
        "PINHOLE", focal, focal, (frames.width - 1) / 2, (frames.height - 1) / 2
    )
    fake = Scene([], head_motion, start, end, width=SIZE[0], height=SIZE[1])
    base = clip_of(fake)
    times = {
        "start_pts_s": float(index.pts_s[start]),
        "end_pts_s": float(index.pts_s[end - 1]) + 0.01,
    }
    return ClipInput(dict(base.clip) | times, {}, frames, guess)


@pytest.mark.parametrize("calibrated", [True, False])
def test_a_real_orbit_turns_as_its_reference_says(calibrated: bool, real_data: Path) -> None:
    yaml = pytest.importorskip("yaml")
    text = (real_data / "groundtruth" / "basketball_rgbd" / "keyframes.yml").read_text()
    reference = yaml.safe_load(text)
    first, last = (
        np.array(reference[f"keyframe_left{k:06d}"]["cam_in_ob"]).reshape(4, 4)[:3, :3]
        for k in (0, 15)
    )
    # The video is rectified: this is the projection matrix of its calibration.
    lens = Intrinsics("PINHOLE", 426.205, 426.205, 473.223, 278.402, source="calibration_file")
    video = real_data / "videos" / "object_orbit_basketball.mp4"
    rows, _ = reconstruct(real_clip(video, 0, 63, lens if calibrated else None))
    assert np.mean([r["is_valid"] for r in rows]) > 0.9
    frames, found = poses_of(rows)
    a, b = (found[frames.index(k), :3, :3] for k in (0, 61))
    # The two frames lie 98 degrees apart. A guessed principal point stays 22 px off.
    assert rotation_angle_deg(a.T @ b, first.T @ last) < (2.0 if calibrated else 5.0)


@pytest.mark.parametrize("name", ["hands_blocks_topdown", "hand_gestures_webcam"])
def test_real_hands_before_a_still_camera_are_no_camera_motion(name: str, real_data: Path) -> None:
    rows, output = reconstruct(real_clip(real_data / "videos" / f"{name}.mp4", 0, 150))
    assert_static(rows, output)


def test_a_real_head_is_followed(real_data: Path) -> None:
    rows, _ = reconstruct(real_clip(real_data / "videos" / "ego_table_objects.mp4", 0, 120))
    assert np.mean([r["is_valid"] for r in rows]) > 0.9


# ---- samples ----


@pytest.mark.heavy
@pytest.mark.parametrize("seed", [0, 1])
def test_the_floors_are_met_on_samples(seed: int, tmp_path: Path) -> None:
    from samples import load_truth, render_sample

    video = render_sample(tmp_path, seed)
    truth = load_truth(video)
    end = truth.cuts[0] if truth.cuts else truth.frame_count
    lens = Intrinsics("PINHOLE", truth.fx, truth.fy, truth.cx, truth.cy, source="calibration_file")
    # Without any masks: hands and what they carry move through the picture.
    for given in (lens, None):
        rows, _ = reconstruct(real_clip(video, 0, end, given))
        found = score(rows, lambda frame: truth.world_from_camera[frame])
        assert found.position_share <= MAX_POSITION_SHARE
        assert found.rotation_deg <= 1.5
