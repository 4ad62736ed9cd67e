"""GoPro's telemetry: known truth comes out within quantisation, damage is told and never raised."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from ego_assets.operator import ClipOutput
from ego_assets.telemetry.formats.gpmf import (
    MAX_PAYLOAD_BYTES,
    read_payload,
    stored_from_channels,
)
from ego_assets.telemetry.reader import TelemetryReader
from ego_assets.telemetry.settings import TelemetrySettings
from tests.telemetry.made_telemetry import (
    Motion,
    device,
    klv,
    manifest_row,
    nest,
    numbers,
    stream,
    text,
    write_video,
)

SCALE, TURN_SCALE = 417, 939
ORIN = text("ORIN", "XzY")
"""As GoPro MAX has it: channels are X, -Z, Y."""


def channels(camera: np.ndarray) -> np.ndarray:
    """Vectors of the camera (x right, y down, z forward) in the channels that XzY names. GoPro's X
    points left, Y back, Z up."""
    x, y, z = camera.T
    left, back, up = -x, -z, -y
    return np.stack([left, -up, back], axis=1)


def payloads(motion: Motion, seconds: int, rate: int = 200) -> list[tuple[float, float, bytes]]:
    """One payload a second, with everything that cameras write."""
    made = []
    for second in range(seconds):
        times = second + np.arange(rate) / rate
        accel, gyro = (motion.sampled(f, times) for f in (motion.accel, motion.gyro))
        gps = np.array([[47.1 + second / 100, 8.5, 412.5, 1.25, 1.3]] * 10)
        stored = np.rint(gps * [10**7, 10**7, 1000, 1000, 100])
        fix = [numbers("GPSF", "L", [3]), numbers("GPSP", "S", [154])]
        scales = numbers("SCAL", "l", [[10**7, 10**7, 1000, 1000, 100]])
        data = device(
            stream("ACCL", channels(accel), SCALE, "s", ORIN, numbers("TMPC", "f", [31.5])),
            stream("GYRO", channels(gyro), TURN_SCALE, "s", ORIN),
            stream("SHUT", np.full(30, 1 / 240), 1, "f"),
            stream("ISOE", np.full(30, 200), 1, "S"),
            nest("STRM", *fix, scales, numbers("GPS5", "l", stored)),
        )
        made.append((float(second), 1.0, data))
    return made


def read(path: Path, beside: dict[str, Any] | None = None, **settings: Any) -> ClipOutput:
    row = manifest_row(path)
    return TelemetryReader(TelemetrySettings(**settings)).process(row, path, 2**26, beside or {})


def columns(output: ClipOutput) -> dict[str, np.ndarray]:
    from ego_assets.arrays import array_of

    rows = output.tables["telemetry"]
    assert not isinstance(rows, list)
    numeric = [n for n in rows.column_names if n not in ("video_id", "shard", "source")]
    return {n: array_of(rows[n]) for n in numeric if rows[n].null_count < rows.num_rows}


def test_a_gopro_track_comes_out_as_it_went_in(tmp_path: Path) -> None:
    motion = Motion()
    output = read(write_video(tmp_path / "v.mp4", payloads(motion, 3), seconds=3))
    found, (source,) = columns(output), output.tables["telemetry_sources"]
    assert (source["source"], source["place"], source["axes"]) == ("gpmd", "stream 1", "camera")
    assert source["device"] == "GoPro Max" and source["fault_count"] == 0
    assert source["accel_rate_hz"] == pytest.approx(200, rel=0.01)
    is_imu = np.isfinite(found["accel_mps2"][:, 0])
    assert is_imu.sum() == 600 and np.isfinite(found["gyro_radps"][is_imu]).all()
    times = found["pts_s"][is_imu]
    np.testing.assert_allclose(times, np.arange(600) / 200, atol=1e-3)
    at = np.arange(600) / 200
    half = 0.51 / SCALE
    np.testing.assert_allclose(
        found["accel_mps2"][is_imu], motion.sampled(motion.accel, at), atol=half + 1e-6
    )
    np.testing.assert_allclose(
        found["gyro_radps"][is_imu], motion.sampled(motion.gyro, at), atol=0.51 / TURN_SCALE
    )
    assert np.nanmax(np.abs(found["exposure_s"] - 1 / 240)) < 1e-6
    assert set(found["iso"][np.isfinite(found["iso"])]) == {200.0}
    latitude = found["gps_latitude_deg"][np.isfinite(found["gps_latitude_deg"])]
    assert len(latitude) == 30 and sorted(set(latitude.round(7))) == [47.1, 47.11, 47.12]
    assert np.nanmax(found["gps_dop"]) == pytest.approx(1.54)
    assert np.nanmean(found["temperature_c"]) == pytest.approx(31.5)


def test_an_upright_camera_feels_gravity_against_y(tmp_path: Path) -> None:
    still = Motion(turn_rad=0.0, move_m=0.0)
    found = columns(read(write_video(tmp_path / "v.mp4", payloads(still, 2))))
    accel = found["accel_mps2"][np.isfinite(found["accel_mps2"][:, 0])]
    np.testing.assert_allclose(accel.mean(axis=0), [0, -9.81, 0], atol=0.01)


@pytest.mark.parametrize("letters", ["XzY", "ZXY", "YxZ"])
def test_letters_of_orin_name_axes_and_their_signs(letters: str) -> None:
    """The figure of the specification: X left, Y back, Z up, lower case for the opposite."""
    turn = stored_from_channels(letters)
    assert turn is not None and np.linalg.det(turn) == pytest.approx(1)
    up = np.zeros(3)
    up[letters.upper().index("Z")] = 1 if "Z" in letters else -1
    np.testing.assert_allclose(turn @ up, [0, -1, 0])
    left = np.zeros(3)
    left[letters.upper().index("X")] = 1 if "X" in letters else -1
    np.testing.assert_allclose(turn @ left, [-1, 0, 0])


@pytest.mark.parametrize("letters", ["XYX", "XY", "ABC", "xYZ", "", None])
def test_letters_that_are_no_rotation_are_not_believed(letters: str | None) -> None:
    assert stored_from_channels(letters) is None


def test_axes_that_nothing_names_stay_the_sensors_own(tmp_path: Path) -> None:
    accel = np.tile([1.0, 2.0, 9.5], (100, 1))
    made = device(stream("ACCL", accel, SCALE), name="Hero6 Black")
    path = write_video(tmp_path / "v.mp4", [(0, 1, made)])
    found, (source,) = columns(read(path)), read(path).tables["telemetry_sources"]
    assert source["axes"] == "sensor" and "accel_mps2" not in found
    np.testing.assert_allclose(found["sensor_accel_mps2"].mean(axis=0), [1, 2, 9.5], atol=0.01)
    given = columns(read(path, camera_from_sensor="x,-z,y"))
    np.testing.assert_allclose(given["accel_mps2"].mean(axis=0), [1, -9.5, 2], atol=0.01)


def test_hero5_says_its_axes_in_the_names_of_its_streams(tmp_path: Path) -> None:
    name = text("STNM", "Accelerometer (up/down, right/left, forward/back)")
    accel = np.tile([9.81, 0.0, 0.0], (50, 1))
    made = device(stream("ACCL", accel, SCALE, "s", name), name="Camera")
    found = columns(read(write_video(tmp_path / "v.mp4", [(0, 1, made)])))
    np.testing.assert_allclose(found["accel_mps2"].mean(axis=0), [0, -9.81, 0], atol=0.01)


def test_a_picture_that_is_turned_turns_the_vectors_too(tmp_path: Path) -> None:
    still = Motion(turn_rad=0.0, move_m=0.0)
    path = write_video(tmp_path / "v.mp4", payloads(still, 1))
    row = manifest_row(path, rotation_deg=90)
    output = TelemetryReader(TelemetrySettings()).process(row, path, 2**26, {})
    accel = columns(output)["accel_mps2"]
    # What was up in the stored picture is right in the upright one.
    np.testing.assert_allclose(np.nanmean(accel, axis=0), [9.81, 0, 0], atol=0.01)


def test_time_is_that_of_the_pictures(tmp_path: Path) -> None:
    """A first picture that comes late in the container is time 0."""
    path = write_video(tmp_path / "v.mp4", payloads(Motion(), 2), late_s=0.5)
    found = columns(read(path))
    assert found["pts_s"][0] == pytest.approx(-0.5, abs=1e-3)
    kept = columns(read(path, margin_s=0.0))["pts_s"]
    assert kept[0] == pytest.approx(0.0, abs=6e-3) and kept[-1] <= 2.0


def test_an_edit_list_of_the_pictures_is_respected(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", payloads(Motion(), 2), codec="libx264")
    assert b"elst" in path.read_bytes()
    with av.open(str(path), options={"ignore_editlist": "1"}) as container:
        first = next(p for p in container.demux(container.streams.video[0]) if p.size)
        assert first.pts * first.time_base > 0.05  # so much would be wrong
    found = columns(read(path))
    assert found["pts_s"][0] == pytest.approx(0.0, abs=1e-3)


def test_a_last_payload_that_is_not_full_is_not_stretched(tmp_path: Path) -> None:
    """GoPro gives it the length of the others."""
    made = payloads(Motion(), 3)
    few = np.tile([0.0, 9.81, 0.0], (20, 1))
    made[2] = (2.0, 1.0, device(stream("ACCL", few, SCALE, "s", ORIN)))
    found = columns(read(write_video(tmp_path / "v.mp4", made)))
    times = found["pts_s"][np.isfinite(found["accel_mps2"][:, 0])]
    assert len(times) == 420 and times[-1] == pytest.approx(2.1, abs=0.02)


def test_positions_without_a_fix_are_no_positions(tmp_path: Path) -> None:
    gps = numbers("GPS5", "l", np.tile([471, 85, 4, 1, 1], (5, 1)))
    lost = nest("STRM", numbers("GPSF", "L", [0]), numbers("SCAL", "l", [10]), gps)
    kinds = text("TYPE", "lllllllSS")
    scales = numbers("SCAL", "l", [[10**7, 10**7, 1000, 1000, 100, 1, 1000, 100, 1]])
    row = np.array(
        [(471000000, 85000000, 400000, 1000, 100, 1, 1, 120, 2)],
        ">i4,>i4,>i4,>i4,>i4,>i4,>i4,>u2,>u2",
    )
    flat = nest("STRM", kinds, scales, klv("GPS9", "?", 32, 1, row.tobytes()))
    path = write_video(tmp_path / "v.mp4", [(0, 1, device(lost)), (1, 1, device(flat))])
    found = columns(read(path))
    assert found["gps_latitude_deg"].tolist() == [47.1]
    assert found["gps_dop"].tolist() == [pytest.approx(1.2)]
    assert "gps_altitude_m" not in found  # a fix in two dimensions has no height


def test_positions_are_left_out_where_that_is_asked_for(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", payloads(Motion(), 2))
    output = read(path, gps="drop")
    assert not [n for n in columns(output) if n.startswith("gps_")]
    (source,) = output.tables["telemetry_sources"]
    assert source["gps"] == "left out" and source["fault_count"] == 0


def test_a_video_without_telemetry_has_no_rows(tmp_path: Path) -> None:
    output = read(write_video(tmp_path / "v.mp4"))
    assert len(output.tables["telemetry"]) == 0 and output.tables["telemetry_sources"] == []


def test_what_is_damaged_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    good = payloads(Motion(), 4)
    start, length, data = good[1]
    broken = [good[0], (start, length, data[:1000]), good[2], good[3]]
    output = read(write_video(tmp_path / "v.mp4", broken, seconds=4))
    (source,) = output.tables["telemetry_sources"]
    assert source["fault_count"] == 1 and source["faults"][0].startswith("1.00 s: ")
    times = columns(output)["pts_s"]
    assert ((times > 2) & (times < 4)).sum() >= 400 and not ((times > 1.01) & (times < 2)).any()


def test_impossible_values_are_left_out(tmp_path: Path) -> None:
    made = device(stream("SHUT", np.array([0.01, np.nan, np.inf, -1.0, 1e30]), 1, "f"))
    output = read(write_video(tmp_path / "v.mp4", [(0, 1, made)]))
    assert columns(output)["exposure_s"].tolist() == [pytest.approx(0.01)]
    assert output.tables["telemetry_sources"][0]["fault_count"] == 1


def test_every_cut_and_thousands_of_flipped_bytes_do_no_harm() -> None:
    whole = payloads(Motion(), 1, rate=12)[0][2]
    assert read_payload(whole).fault is None
    assert len(read_payload(whole[: len(whole) * 2 // 3]).streams) >= 1
    for length in range(len(whole)):
        found = read_payload(whole[:length])
        assert found.fault is not None or length < 8
        assert sum(s.values.size for s in found.streams) * 2 <= len(whole) * 8
    chance = random.Random(7)
    for _ in range(6000):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 12)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        found = read_payload(bytes(data))
        assert sum(s.values.size for s in found.streams) <= len(whole)


@pytest.mark.parametrize(
    "payload",
    [
        b"DEVC" * 5000,
        klv("DEVC", "", 1, 60000, b"")[:8],
        nest("DEVC", *[nest("STRM")] * 3),
        nest("DEVC", nest("STRM", numbers("SCAL", "s", [0]), numbers("SHUT", "f", [1.0]))),
        nest("DEVC", nest("STRM", text("TYPE", "f[9999]" * 9), klv("GPS9", "?", 4, 1, bytes(4)))),
        nest("DEVC", nest("STRM", klv("ACCL", "s", 0, 9, b""))),
        nest("DEVC", nest("STRM", klv("SCAL", "s", 2, 0, b""), numbers("SHUT", "f", [1.0]))),
        nest("DEVC", nest("STRM", klv("ACCL", "s", 5, 1, bytes(5)))),
        bytes(MAX_PAYLOAD_BYTES + 1),
    ],
)
def test_nonsense_has_no_samples(payload: bytes) -> None:
    assert read_payload(payload).streams == []


def test_reading_ends_at_a_bound(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", payloads(Motion(), 5), seconds=5)
    output = read(path, max_samples=600)
    (source,) = output.tables["telemetry_sources"]
    assert len(output.tables["telemetry"]) < 800 and "max_samples" in source["faults"][0]
