"""Gravity: true within its uncertainty where a head moves, null where nothing tells."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ego_assets.catalog import TABLES
from ego_assets.operator import TablesInput
from ego_assets.quality.finding import Evidence
from ego_assets.telemetry.gravity import Directions, GravityRules, gravity_at, mean_direction
from ego_assets.telemetry.gravity_rows import GravityFinder
from ego_assets.telemetry.settings import GravitySettings, TelemetryProbeSettings
from ego_assets.vision.geometry import quaternion_from_matrix
from tests.telemetry.made_telemetry import GRAVITY, Motion

SHARD = "20260101-0000"
RATE, SECONDS = 200, 20
FRAMES_S = np.arange(SECONDS * 10) / 10


def measured(
    motion: Motion, seed: int = 0, bias: float = 0.1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(times, accelerations, turns) with the noise and the zero of a phone's sensors."""
    random = np.random.default_rng(seed)
    times = np.arange(SECONDS * RATE) / RATE
    accel = motion.sampled(motion.accel, times) + random.normal(0, 0.05, (len(times), 3))
    gyro = motion.sampled(motion.gyro, times) + random.normal(0, 0.005, (len(times), 3))
    return times, accel + random.normal(0, bias / 1.7, 3), gyro + random.normal(0, 0.002, 3)


def off_deg(found: Directions, motion: Motion) -> np.ndarray:
    truth = motion.sampled(motion.down, FRAMES_S)
    return np.degrees(np.arccos(np.clip((found.down * truth).sum(axis=1), -1, 1)))


def test_gravity_of_a_moving_head_is_right_within_its_uncertainty() -> None:
    errors, claimed = [], []
    for seed in range(8):
        motion = Motion(seed)
        times, accel, gyro = measured(motion, seed)
        found = gravity_at(FRAMES_S, times, accel, times, gyro, GravityRules())
        off = off_deg(found, motion)
        known = np.isfinite(off)
        assert known.mean() > 0.9
        np.testing.assert_allclose(np.linalg.norm(found.down[known], axis=1), 1, atol=1e-6)
        errors.append(off[known])
        claimed.append(found.uncertainty_deg[known])
    off, sigma = np.concatenate(errors), np.concatenate(claimed)
    assert np.sqrt((off**2).mean()) < 1.5
    assert (off < 2 * sigma).mean() > 0.95 and (off < 3 * sigma).all()
    assert np.median(sigma) < 3


def test_the_gyroscope_is_used_and_its_sign_matters() -> None:
    motion = Motion(1, turn_rad=1.2)
    times, accel, gyro = measured(motion)
    rules = GravityRules(max_uncertainty_deg=90)
    right = gravity_at(FRAMES_S, times, accel, times, gyro, rules)
    wrong = gravity_at(FRAMES_S, times, accel, times, -gyro, rules)
    assert np.nanmean(off_deg(right, motion)) < 2
    assert np.nanmean(off_deg(wrong, motion)) > 3 * np.nanmean(off_deg(right, motion))


def test_without_a_gyroscope_only_a_still_camera_knows() -> None:
    nothing = np.empty(0), np.empty((0, 3))
    still, moving = Motion(2, turn_rad=0, move_m=0), Motion(2, turn_rad=0.5, move_m=0.4)
    times, accel, _ = measured(still)
    found = gravity_at(FRAMES_S, times, accel, *nothing, GravityRules())
    assert np.isfinite(found.down[:, 0]).all() and off_deg(found, still).max() < 2
    times, accel, _ = measured(moving)
    found = gravity_at(FRAMES_S, times, accel, *nothing, GravityRules())
    assert np.isfinite(found.down[:, 0]).mean() < 0.5


def test_accelerations_of_another_length_say_nothing() -> None:
    times = np.arange(0, 20, 0.01)
    gyro = np.zeros((len(times), 3))
    for length in (0.0, 1.0, 5.0, 14.0):
        accel = np.tile([0.0, -length, 0.0], (len(times), 1))
        found = gravity_at(FRAMES_S, times, accel, times, gyro, GravityRules())
        assert np.isnan(found.down).all()


def test_gaps_are_not_bridged() -> None:
    motion = Motion(0)
    times, accel, gyro = measured(motion)
    there = (times < 5) | (times > 12)
    found = gravity_at(FRAMES_S, times[there], accel[there], times, gyro, GravityRules())
    assert np.isnan(found.down[(FRAMES_S > 5.1) & (FRAMES_S < 11.9)]).all()
    assert np.isfinite(found.down[(FRAMES_S < 4.9)]).all()


@pytest.mark.parametrize("lost_s", [(9.0, 10.0), (15.0, 19.99)])
def test_a_gap_of_the_gyroscope_costs_the_frames_in_it_alone(lost_s: tuple[float, float]) -> None:
    """Also if but one sample comes after it."""
    motion = Motion(1, turn_rad=1.2)
    times, accel, gyro = measured(motion)
    whole = gravity_at(FRAMES_S, times, accel, times, gyro, GravityRules())
    kept = (times < lost_s[0]) | (times > lost_s[1])
    found = gravity_at(FRAMES_S, times, accel, times[kept], gyro[kept], GravityRules())
    away = np.abs(FRAMES_S - np.mean(lost_s)) > np.ptp(lost_s) / 2
    assert np.isfinite(whole.down[:, 0]).mean() > 0.95
    assert np.isfinite(found.down[away, 0]).mean() > 0.95
    off = off_deg(found, motion)
    off = off[np.isfinite(off)]
    assert np.sqrt((off**2).mean()) < 2
    far = np.abs(FRAMES_S - np.mean(lost_s)) > np.ptp(lost_s) / 2 + 4.2
    np.testing.assert_allclose(found.down[far], whole.down[far], atol=1e-3)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_hardly_any_samples_are_no_gravity(count: int) -> None:
    times = np.arange(count) * 0.01
    accel = np.tile([0.0, -GRAVITY, 0.0], (count, 1))
    found = gravity_at(FRAMES_S, times, accel, times, np.zeros((count, 3)), GravityRules())
    assert np.isnan(found.down[1:]).all()


def test_a_mean_direction_has_its_spread() -> None:
    angles = np.radians([-3.0, 3.0])
    mean, spread = mean_direction(np.stack([np.sin(angles), np.cos(angles), 0 * angles], axis=1))
    np.testing.assert_allclose(mean, [0, 1, 0], atol=1e-9)
    assert spread == pytest.approx(3.0)


# -- rows ----------------------------------------------------------------------------------------


def tables(
    motion: Motion,
    *,
    axes: str = "accel_mps2",
    world: Any = ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    valid: bool = True,
    video: str = "v",
) -> dict[str, pa.Table]:
    """Telemetry of a video, and its cameras in a world that lies as `world` to the true one."""
    times, accel, gyro = measured(motion)
    of = {"video_id": video, "shard": SHARD, "source": "gpmd"}
    blank = dict.fromkeys(TABLES["telemetry"].model_fields)
    gyro_name = axes.replace("accel_mps2", "gyro_radps")
    telemetry = [
        blank | of | {"sample_index": i, "pts_s": t, axes: a, gyro_name: g}
        for i, (t, a, g) in enumerate(
            zip(times.tolist(), accel.tolist(), gyro.tolist(), strict=True)
        )
    ]
    cameras = []
    for frame, t in enumerate(FRAMES_S.tolist()):
        pose = quaternion_from_matrix(np.asarray(world) @ motion.world_from_camera(t)).tolist()
        cameras.append(
            {"video_id": video, "clip_id": f"{video}-0000", "frame_index": frame, "pts_s": t}
            | {"is_context": False, "is_valid": valid, "world_id": f"{video}-0000"}
            | {"world_from_camera_xyzw": pose if valid else None}
        )
    schema = TABLES["scene_reconstruction"].arrow_schema()
    names = list(cameras[0])
    return {
        "telemetry": TABLES["telemetry"].from_rows(telemetry),
        "scene_reconstruction": pa.Table.from_pylist(
            cameras, schema=pa.schema([schema.field(n) for n in names])
        ),
    }


def rows_of(*videos: dict[str, pa.Table], **settings: Any) -> list[dict[str, Any]]:
    joined = {n: pa.concat_tables([v[n] for v in videos]) for n in videos[0]}
    output = GravityFinder(GravitySettings(**settings)).process(TablesInput(SHARD, {SHARD: joined}))
    made = output.tables["gravity"]
    assert isinstance(made, list)
    TABLES["gravity"].from_rows(made)
    return made


def turned(degrees: float) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    found: np.ndarray = Rotation.from_euler("xz", [degrees, 20], degrees=True).as_matrix()
    return found


def test_rows_have_gravity_in_the_camera_and_in_the_world() -> None:
    motion, world = Motion(3), turned(30)
    rows = rows_of(tables(motion, world=world))
    assert len(rows) > 0.9 * len(FRAMES_S)
    for row in rows:
        truth = motion.down(row["pts_s"])
        assert np.degrees(np.arccos(np.clip(truth @ row["gravity_camera"], -1, 1))) < 6
    expected = world @ np.array([0, 1, 0])
    assert rows[0]["world_id"] == "v-0000" and rows[0]["world_frames"] == len(rows)
    assert np.degrees(np.arccos(expected @ rows[0]["gravity_world"])) < 1.5
    assert 0 < rows[0]["world_spread_deg"] < 3


def test_a_frame_without_a_camera_has_gravity_in_its_camera_alone() -> None:
    rows = rows_of(tables(Motion(3), valid=False))
    assert rows and all(r["world_id"] is None and r["gravity_world"] is None for r in rows)


def test_a_sensor_of_unknown_axes_gives_no_gravity() -> None:
    assert rows_of(tables(Motion(3), axes="sensor_accel_mps2")) == []


def test_a_video_without_telemetry_takes_none_of_another() -> None:
    with_it, without = tables(Motion(3)), tables(Motion(4), video="w")
    without["telemetry"] = without["telemetry"].slice(0, 0)
    assert {r["video_id"] for r in rows_of(with_it, without)} == {"v"}


def test_frames_that_do_not_agree_give_a_world_no_gravity_and_a_check_says_so() -> None:
    """The cameras are those of another motion: as with a sensor that is mounted otherwise."""
    made = tables(Motion(3))
    made["scene_reconstruction"] = tables(Motion(9, turn_rad=2.0))["scene_reconstruction"]
    rows = rows_of(made)
    assert all(r["gravity_world"] is None and r["world_spread_deg"] > 10 for r in rows)
    from ego_assets.telemetry.probes import gravity_agrees_with_cameras

    (probe,) = gravity_agrees_with_cameras
    for good, found in ((False, rows), (True, rows_of(tables(Motion(3))))):
        evidence = Evidence("gravity", {"gravity": TABLES["gravity"].from_rows(found)})
        assert probe(evidence, TelemetryProbeSettings()).passed is good


def test_a_world_whose_gravity_has_several_directions_is_named_by_all_of_its_clips() -> None:
    from ego_assets.telemetry.probes import gravity_agrees_with_cameras

    (probe,) = gravity_agrees_with_cameras
    worlds = {"v-0001": ("v-0000", 30.0), "v-0000": ("v-0000", 30.0), "w-0000": ("w-0000", 1.0)}
    rows = pa.table(
        {
            "clip_id": [*worlds] * 2,
            "world_id": [world for world, _ in worlds.values()] * 2,
            "world_spread_deg": [spread for _, spread in worlds.values()] * 2,
        }
    )
    found = probe(Evidence("gravity", {"gravity": rows}), TelemetryProbeSettings())
    assert (found.looked_at, found.beyond, found.passed) == (3, 2, False)
    assert [o.where for o in found.worst] == ["v-0000", "v-0001"]


def test_objects_rise_against_measured_gravity() -> None:
    """A camera that lies on its side says the wrong up; gravity says the right one."""
    from ego_assets.objects.probes import untouched_objects_do_not_rise
    from ego_assets.objects.settings import ObjectProbeSettings

    (probe,) = untouched_objects_do_not_rise
    clip = {"clip_id": "v-0000", "track_id": "v-0000-1"}
    side = quaternion_from_matrix(np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])).tolist()
    frames = [{"frame_index": f, "pts_s": f / 10, "is_valid": True} for f in range(20)]
    place = pa.list_(pa.float32(), 3)
    poses = pa.Table.from_pylist(
        [
            clip
            | f
            | {"object_frame": "o", "world_id": "v-0000", "camera_from_object_m": [0.0, 0, 1]}
            | {"world_from_object_m": [0.0, -0.05 * f["frame_index"], 1.0]}
            for f in frames
        ]
    )
    poses = poses.set_column(
        poses.schema.get_field_index("world_from_object_m"),
        "world_from_object_m",
        poses["world_from_object_m"].cast(place),
    ).set_column(
        poses.schema.get_field_index("camera_from_object_m"),
        "camera_from_object_m",
        poses["camera_from_object_m"].cast(place),
    )
    cameras = pa.Table.from_pylist(
        [{"clip_id": "v-0000"} | f | {"world_from_camera_xyzw": side} for f in frames]
    )
    cameras = cameras.set_column(
        cameras.schema.get_field_index("world_from_camera_xyzw"),
        "world_from_camera_xyzw",
        cameras["world_from_camera_xyzw"].cast(pa.list_(pa.float32(), 4)),
    )
    moves = pa.Table.from_pylist(
        [clip | {"start_frame": 0, "end_frame": 20, "state": "moving", "touch_share": 0.0}]
    )
    gravity = pa.table(
        {
            "clip_id": ["v-0000"],
            "world_id": ["v-0000"],
            "gravity_world": pa.array([[0.0, 1.0, 0.0]], place),
        }
    )
    seen = {"object_movements": moves, "object_poses": poses, "scene_reconstruction": cameras}
    settings = ObjectProbeSettings()
    without = probe(Evidence("object_movements", seen), settings)
    with_it = probe(Evidence("object_movements", seen | {"gravity": gravity}), settings)
    assert without.passed and not with_it.passed
