"""CAMM and subtitles in a file: known truth comes out, and what is damaged is told."""

from __future__ import annotations

import random
from pathlib import Path

import av
import numpy as np
import pytest

from ego_assets.telemetry.formats.camm import is_camm
from ego_assets.telemetry.formats.subtitles import MAX_TEXT, read_text, text_of
from ego_assets.telemetry.formats.tracks import read_tracks
from ego_assets.telemetry.reader import _merged
from ego_assets.telemetry.samples import SourceTelemetry, joined
from tests.telemetry.made_telemetry import camm, device, manifest_row, stream, write_video
from tests.telemetry.test_gpmf import columns, read

Payloads = list[tuple[float, float, bytes]]


def camm_packets() -> Payloads:
    made: Payloads = []
    for number in range(40):
        at = number / 20
        made.append((at, 0.01, camm(2, 0.1 * at, 0.2, 0.3)))
        made.append((at + 0.01, 0.01, camm(3, 0.5, -9.7, at)))
        made.append((at + 0.02, 0.01, camm(1, 4_000_000, 20_000_000)))
    made.append((1.99, 0.005, camm(5, 47.5, 8.25, 400.0)))
    fix = (1.4e9, 3, 47.6, 8.35, 401.0, 2.5, 4.0, 3.0, 4.0, 0.1, 0.2)
    made.append((1.995, 0.005, camm(6, *fix)))
    return made


def test_camm_comes_out_as_it_went_in(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", camm_packets(), tag="camm")
    with av.open(str(path)) as container:
        assert [s.type for s in container.streams] == ["video", "data"]
    output = read(path)
    (source,) = output.tables["telemetry_sources"]
    assert (source["source"], source["axes"], source["fault_count"]) == ("camm", "sensor", 0)
    found = columns(output)
    is_accel = np.isfinite(found["sensor_accel_mps2"][:, 0])
    np.testing.assert_allclose(found["pts_s"][is_accel], np.arange(40) / 20 + 0.01, atol=1e-3)
    np.testing.assert_allclose(
        found["sensor_accel_mps2"][is_accel][:, 2], np.arange(40) / 20, atol=1e-6
    )
    gyro = found["sensor_gyro_radps"][np.isfinite(found["sensor_gyro_radps"][:, 0])]
    np.testing.assert_allclose(gyro[:, 0], 0.1 * np.arange(40) / 20, atol=1e-6)
    assert np.nanmax(found["exposure_s"]) == pytest.approx(0.004)
    places = np.isfinite(found["gps_latitude_deg"])
    assert found["gps_latitude_deg"][places].tolist() == [47.5, 47.6]
    assert np.nanmax(found["gps_speed_mps"]) == pytest.approx(5.0)
    assert np.nanmax(found["gps_accuracy_m"]) == pytest.approx(2.5)


def test_camm_is_in_the_cameras_axes_only_if_a_person_says_so(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", camm_packets(), tag="camm")
    assert "accel_mps2" not in columns(read(path))
    assert "accel_mps2" in columns(read(path, camera_from_sensor="x,y,z"))


def test_damaged_camm_is_told_packet_by_packet(tmp_path: Path) -> None:
    packets = camm_packets()
    packets[4] = (*packets[4][:2], packets[4][2][:-3])
    packets[7] = (*packets[7][:2], b"\x01\x00" + packets[7][2][2:])
    output = read(write_video(tmp_path / "v.mp4", packets, tag="camm"))
    (source,) = output.tables["telemetry_sources"]
    assert source["fault_count"] == 2 and "bytes" in source["faults"][0]
    assert np.isfinite(columns(output)["sensor_accel_mps2"][:, 0]).sum() == 38


@pytest.mark.parametrize("kind", ["camm", "gpmd"])
def test_a_damaged_first_packet_costs_that_packet_alone(tmp_path: Path, kind: str) -> None:
    if kind == "camm":
        packets = camm_packets()
    else:
        values = np.tile([0.0, -9.8, 0.0], (50, 1))
        packets = [(n, 1, device(stream("ACCL", values, 417))) for n in range(2)]
    packets[0] = (*packets[0][:2], b"\xff" + packets[0][2][1:])
    output = read(write_video(tmp_path / "v.mp4", packets, tag=kind))
    (source,) = output.tables["telemetry_sources"]
    assert (source["source"], source["fault_count"]) == (kind, 1)
    assert source["faults"] == [f"its first 1 packets are no {kind}"]
    samples = columns(output)["sensor_accel_mps2"]
    assert np.isfinite(samples[:, 0]).sum() == (40 if kind == "camm" else 50)


def test_camm_is_known_by_its_exact_length() -> None:
    packet = camm(3, 1, 2, 3)
    assert is_camm(packet)
    for length in range(len(packet)):
        assert not is_camm(packet[:length])
    assert not is_camm(packet + b"\0") and not is_camm(b"\0\0\x08\0" + bytes(12))
    chance = random.Random(3)
    for _ in range(5000):
        is_camm(chance.randbytes(chance.randint(0, 80)))


def test_a_track_of_something_else_is_no_telemetry(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", [(0, 1, b"\0\0\0\x05"), (1, 1, b"GP" * 40)])
    assert read_tracks(path, 0.0) == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            "FrameCnt : 1\n[iso : 110] [shutter : 1/60.0] [latitude: 47.123] [longtitude: -8.5] "
            "[altitude: 512.1] </font>",
            (47.123, -8.5, 512.1, 1 / 60, 110),
        ),
        (
            "[iso: 100] [shutter: 1/640.0] [latitude: 22.1] [longitude: 113.0] [rel_alt: 1.3 "
            "abs_alt: 90.2] [ct: 5300]",
            (22.1, 113.0, 90.2, 1 / 640, 100),
        ),
        ("F/2.8, SS 320, ISO 200, EV 0, GPS (8.5, 47.25, 19), H.S 1.5m/s",
         (47.25, 8.5, None, 1 / 320, 200)),
    ],
)  # fmt: skip
def test_words_of_dji_are_read(words: str, expected: tuple[float | None, ...]) -> None:
    names = ("gps_latitude_deg", "gps_longitude_deg", "gps_altitude_m", "exposure_s", "iso")
    assert [read_text(words).get(n) for n in names] == [
        value if value is None else pytest.approx(value) for value in expected
    ]


@pytest.mark.parametrize(
    ("words", "exposure_s"),
    [
        ("GPS(-8.2,47.1,15) ISO:100 Shutter:60", 1 / 60),
        ("ISO:100 Shutter:1/60.0", 1 / 60),
        ("ISO:100 Shutter:0.5", 0.5),
        ("ISO:100 Shutter: 2s", 2.0),
        ("ISO:100 Shutter:1", 1.0),
        ("GPS(-8.2,47.1,15) Shutter:640.5", None),
        ("SS 320, ISO 100", 1 / 320),
    ],
)
def test_exposures_are_seconds(words: str, exposure_s: float | None) -> None:
    assert read_text(words).get("exposure_s") == (exposure_s and pytest.approx(exposure_s))


@pytest.mark.parametrize(
    "words",
    [
        "",
        "the SS 1939 sailed",
        "Where is the ISO 9001 certificate?",
        "latitude: 47.1",
        "[shutter: 0] x",
    ],
)
def test_other_subtitles_say_nothing(words: str) -> None:
    assert read_text(words) == {}


def test_no_fix_yet_is_no_place() -> None:
    found = read_text("[shutter: 1/60] [latitude: 0.000000] [longitude: 0.000000]")
    assert set(found) == {"exposure_s"}


def test_long_nonsense_takes_no_time() -> None:
    chance = random.Random(5)
    for _ in range(300):
        data = chance.randbytes(200) + b"latitude: " * 500 + b"9" * 2000
        assert len(text_of("mov_text", data)) <= len(data)
        read_text(text_of("srt", data)[: MAX_TEXT * 2])


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_subtitles_of_a_file_become_samples(tmp_path: Path, suffix: str) -> None:
    said = [
        (n / 2, 0.5, f"[iso: 100] [shutter: 1/640] [latitude: {47 + n / 10}] [longitude: 8.5]")
        for n in range(4)
    ]
    output = read(write_video(tmp_path / f"v{suffix}", subtitles=said))
    (source,) = output.tables["telemetry_sources"]
    assert (source["source"], source["gps"]) == ("subtitle", "kept")
    found = columns(output)
    np.testing.assert_allclose(found["pts_s"], [0, 0.5, 1, 1.5], atol=2e-3)
    np.testing.assert_allclose(found["gps_latitude_deg"], [47, 47.1, 47.2, 47.3])


def test_damage_of_the_container_costs_no_more_than_what_follows(tmp_path: Path) -> None:
    """A file is cut anywhere, and bytes are flipped: nothing but what a bad file raises."""
    from ego_assets.operator import BadInputError

    values = np.tile([0.0, -9.8, 0.0], (50, 1))
    packets: Payloads = [(n, 1, device(stream("ACCL", values, 417))) for n in range(2)]
    path = write_video(tmp_path / "v.mp4", packets)
    data, chance = path.read_bytes(), random.Random(11)
    for number in range(250):
        made = bytearray(data[: chance.randrange(1, len(data))] if number % 2 else data)
        for _ in range(chance.randint(1, 30)):
            made[chance.randrange(len(made))] = chance.randrange(256)
        path.write_bytes(bytes(made))
        try:
            found = read_tracks(path, 0.0)
        except BadInputError:
            continue
        assert sum(s.times_s.size for source in found for s in source.series) <= len(data)


def test_several_sources_of_one_video_stay_apart(tmp_path: Path) -> None:
    packets = [(0.0, 1.0, device(stream("SHUT", np.full(10, 0.01), 1, "f")))]
    said = [(0.0, 0.5, "[shutter: 1/640] [latitude: 47.5] [longitude: 8.5]")]
    path = write_video(tmp_path / "v.mp4", packets, subtitles=said)
    output = read(path)
    assert [s["source"] for s in output.tables["telemetry_sources"]] == ["gpmd", "subtitle"]
    rows = output.tables["telemetry"]
    assert not isinstance(rows, list)
    pairs = list(zip(rows["source"].to_pylist(), rows["sample_index"].to_pylist(), strict=True))
    assert len(set(pairs)) == rows.num_rows == 11
    assert manifest_row(path)["duration_s"] == pytest.approx(2.0)


def test_of_two_imus_of_one_kind_that_with_more_samples_is_taken(tmp_path: Path) -> None:
    """And the rest of the other one; their faults are counted together."""
    one, other = (SourceTelemetry("camm", f"stream {n}") for n in (1, 2))
    times = np.arange(10) / 10
    one.add(times[::2], accel_mps2=np.full((5, 3), 1.0))
    one.add(times, iso=np.full(10, 100.0))
    other.add(times, accel_mps2=np.full((10, 3), 2.0))
    for number in range(30):
        other.faults.add(f"{number}")
    source = _merged([one, other])
    table, _ = joined(source.series, 0, 1)
    assert (table.values["accel_mps2"] == 2).all() and (table.values["iso"] == 100).all()
    assert source.place == "stream 1, stream 2" and source.faults.count == 31
    alone = _merged([SourceTelemetry("camm", "stream 1"), other])
    assert alone.faults.count == 30
