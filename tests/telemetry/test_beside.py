"""CSV and MCAP beside a video: known truth comes out, bad rows are told by their place."""

from __future__ import annotations

import errno
import json
import os
import random
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ego_assets.operator import ClipOutput
from ego_assets.telemetry.formats.csv_sidecar import COLUMNS, read_csv
from tests.telemetry.made_telemetry import device, stream, write_video
from tests.telemetry.test_gpmf import columns, read

HEADER = "time_s,accel_x_mps2,accel_y_mps2,accel_z_mps2,gyro_x_radps,gyro_y_radps,gyro_z_radps"
START_NS = 1_764_480_000_250_000_000


def beside(tmp_path: Path, name: str, data: bytes | str, **settings: Any) -> ClipOutput:
    path = tmp_path / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return read(write_video(tmp_path / "v.mp4"), {name: path}, **settings)


def of_csv(tmp_path: Path, text: str, **settings: Any) -> ClipOutput:
    return beside(tmp_path, "v.telemetry.csv", text, **settings)


def test_a_csv_comes_out_as_it_went_in(tmp_path: Path) -> None:
    lines = [f"{n / 100},0.5,-9.7,{n},0.1,0.2,{-n / 10}" for n in range(200)]
    output = of_csv(tmp_path, "\n".join([HEADER, *lines]))
    (source,) = output.tables["telemetry_sources"]
    assert (source["source"], source["axes"], source["fault_count"]) == ("csv", "camera", 0)
    assert source["place"] == "v.telemetry.csv"
    found = columns(output)
    np.testing.assert_allclose(found["pts_s"], np.arange(200) / 100, atol=1e-6)
    np.testing.assert_allclose(found["accel_mps2"][:, 2], np.arange(200))
    np.testing.assert_allclose(found["gyro_radps"][:, 2], -np.arange(200) / 10, rtol=1e-6)


def test_all_documented_names_are_read(tmp_path: Path) -> None:
    names = [n for n in COLUMNS if n != "unix_time_s"]
    values = ["0.5", *("1" for _ in names[1:])]
    output = of_csv(tmp_path, f"{';'.join(names)}\n{';'.join(values)}\n")
    found, (source,) = columns(output), output.tables["telemetry_sources"]
    assert source["fault_count"] == 0
    nothing = {"sensor_accel_mps2", "sensor_gyro_radps"}
    assert set(found) | nothing == set(output.tables["telemetry"].column_names) - {  # type: ignore[union-attr]
        "video_id",
        "shard",
        "source",
    }


def test_absolute_times_need_the_time_of_the_first_picture(tmp_path: Path) -> None:
    text = "unix_time_s,iso\n1764480001.25,100\n1764480000.75,200\n"
    (source,) = of_csv(tmp_path, text).tables["telemetry_sources"]
    assert source["sample_count"] == 0 and "video_start_unix_s" in source["faults"][0]
    found = columns(of_csv(tmp_path, f"# video_start_unix_s: 1764480000.25\n{text}"))
    np.testing.assert_allclose(found["pts_s"], [0.5, 1.0], atol=1e-5)
    assert found["iso"].tolist() == [200, 100]


def test_times_of_sidecars_can_be_shifted(tmp_path: Path) -> None:
    found = columns(of_csv(tmp_path, "time_s,iso\n0,100\n", sidecar_offset_s=0.25))
    assert found["pts_s"].tolist() == [0.25]


def test_bad_rows_are_told_by_their_line_and_the_others_count(tmp_path: Path) -> None:
    lines = [
        "time_s,iso",
        "0.1,100",
        "0.2,many",
        "0.3",
        "",
        "# a remark",
        "0.4,inf",
        "0.5,",
        "0.6,7",
    ]
    output = of_csv(tmp_path, "\r\n".join(lines))
    (source,) = output.tables["telemetry_sources"]
    assert [f.split(":")[0] for f in source["faults"]] == ["line 3", "line 4", "line 7"]
    assert columns(output)["iso"].tolist() == [100, 7]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no line with the names"),
        ("a,b\n1,2\n", "no column of times"),
        ("time_s,time_s\n1,2\n", "columns 1, 2 share a name"),
        ("time_s,iso,secret\n0,1,2\n", "columns 3 are not known"),
        ("time_s,accel_x_mps2\n0,1\n", "needs all of"),
        ("time_s,iso\n0,1\n\0\0\0\n", "bytes of 0"),
        ("time_s,latitude_deg\n0,47.3x\n", "line 2: latitude_deg is no number"),
        (f"time_s,iso\n0,{'1' * 5000}\n", "longer than"),
    ],
)
def test_what_cannot_be_used_is_told(tmp_path: Path, text: str, words: str) -> None:
    (source,) = of_csv(tmp_path, text).tables["telemetry_sources"]
    said = " ".join(source["faults"])
    assert source["fault_count"] >= 1 and words in said and "secret" not in said


def test_columns_of_unknown_names_take_no_memory(tmp_path: Path) -> None:
    unknown, path = [f"c{n}" for n in range(500)], tmp_path / "v.telemetry.csv"
    line = "0.5" + ",1" * len(unknown) + "\n"
    path.write_text(",".join(["time_s", *unknown[:-1], "iso"]) + "\n" + line * 500)
    tracemalloc.start()
    try:
        source = read_csv(path, path.name)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(source.series[0].times_s) == 500 and peak < path.stat().st_size


def test_what_comes_before_damage_counts(tmp_path: Path) -> None:
    found = columns(of_csv(tmp_path, "time_s,iso\n0,100\n0.5,200\n\0\0\n1,300\n"))
    assert found["iso"].tolist() == [100, 200]


def test_samples_far_from_the_video_are_counted_and_left_out(tmp_path: Path) -> None:
    output = of_csv(tmp_path, "time_s,iso\n-1,1\n0,1\n3,1\n9,1\n-40,1\n")
    (source,) = output.tables["telemetry_sources"]
    assert (source["sample_count"], source["outside_count"]) == (3, 2)


def test_samples_of_one_moment_each_have_a_row(tmp_path: Path) -> None:
    output = of_csv(tmp_path, "time_s,iso\n1,100\n1,200\n1,300\n")
    assert columns(output)["iso"].tolist() == [100, 200, 300]


def test_a_file_that_must_not_be_read_is_told(tmp_path: Path) -> None:
    output = read(write_video(tmp_path / "v.mp4"), {"v.telemetry.csv": None})
    (source,) = output.tables["telemetry_sources"]
    assert source["fault_count"] == 1 and source["sample_count"] == 0


@pytest.mark.parametrize("suffix", ["csv", "mcap"])
@pytest.mark.parametrize("kind", ["forbidden", "folder", "link"])
def test_a_file_that_cannot_be_opened_costs_nothing_else(
    tmp_path: Path, kind: str, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mcap")
    path, open_it = tmp_path / f"v.telemetry.{suffix}", os.open
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(tmp_path / "secret")
    else:
        path.write_text("time_s,iso\n0,100\n")

    def refuse(name: Any, *args: Any, **more: Any) -> int:
        if Path(os.fspath(name)) == path:
            raise PermissionError(errno.EACCES, "Permission denied", str(name))
        return open_it(name, *args, **more)

    monkeypatch.setattr(os, "open", refuse)
    shutter = device(stream("SHUT", np.full(10, 0.01), 1, "f"))
    output = read(write_video(tmp_path / "v.mp4", [(0.0, 1.0, shutter)]), {path.name: path})
    of_track, of_file = output.tables["telemetry_sources"]
    assert (of_track["source"], of_track["sample_count"], of_track["fault_count"]) == (
        "gpmd",
        10,
        0,
    )
    assert (of_file["source"], of_file["fault_count"]) == (suffix, 1)


def test_noise_is_no_csv(tmp_path: Path) -> None:
    chance, path = random.Random(2), tmp_path / "v.telemetry.csv"
    for _ in range(400):
        path.write_bytes(HEADER.encode() + b"\n" + chance.randbytes(chance.randint(0, 400)))
        assert sum(len(s.times_s) for s in read_csv(path, path.name).series) <= 400


# -- MCAP ----------------------------------------------------------------------------------------


def imu(at: float, frame: str = "camera_optical_frame", start_ns: int = 0) -> dict[str, Any]:
    stamp = start_ns + round(at * 1e9)
    return {
        "header": {
            "stamp": {"sec": stamp // 10**9, "nanosec": stamp % 10**9},
            "frame_id": frame,
        },
        "linear_acceleration": {"x": 0.5, "y": -9.7, "z": at},
        "angular_velocity": {"x": 0.1, "y": 0.2, "z": -at},
    }


def cdr_imu(at: float) -> bytes:
    frame = b"imu_optical_frame\0"
    head = struct.pack("<iII", int(at), round(at % 1 * 1e9), len(frame)) + frame
    head += bytes(-len(head) % 8)
    numbers = (0, 0, 0, 1, *[0] * 9, 0.1, 0.2, -at, *[0] * 9, 0.5, -9.7, at, *[0] * 9)
    return b"\0\1\0\0" + head + struct.pack("<37d", *numbers)


def cdr_fix(at: float) -> bytes:
    frame = b"gps\0"
    head = struct.pack("<iII", int(at), round(at % 1 * 1e9), len(frame)) + frame + b"\0"
    head += bytes(-len(head) % 2) + struct.pack("<H", 1)
    head += bytes(-len(head) % 8)
    return b"\0\1\0\0" + head + struct.pack("<12dB", 47.5, 8.25, 400.0, 4.0, *[0] * 8, 2)


def write_mcap(
    path: Path,
    messages: list[tuple[str, str, int, bytes]],
    start_ns: int | None = None,
    compression: str = "ZSTD",
    *,
    in_chunks: bool = True,
) -> bytes:
    """messages: (schema, encoding, log time in ns, bytes)."""
    writer_of = pytest.importorskip("mcap.writer")
    with path.open("wb") as file:
        kind = writer_of.CompressionType[compression]
        writer = writer_of.Writer(file, compression=kind, use_chunking=in_chunks)
        writer.start()
        channels: dict[tuple[str, str], int] = {}
        for schema, encoding, log_ns, data in messages:
            if (schema, encoding) not in channels:
                schema_id = writer.register_schema(name=schema, encoding="", data=b"")
                channels[schema, encoding] = writer.register_channel(
                    topic=f"/{len(channels)}", message_encoding=encoding, schema_id=schema_id
                )
            channel = channels[schema, encoding]
            writer.add_message(channel, log_time=log_ns, data=data, publish_time=log_ns)
        if start_ns is not None:
            writer.add_metadata("telemetry", {"video_start_ns": str(start_ns)})
        writer.finish()
    return path.read_bytes()


def as_json(said: dict[str, Any]) -> bytes:
    return json.dumps(said).encode()


TIMES = [n / 50 for n in range(100)]
FIX = {"latitude": 47.5, "longitude": 8.25, "altitude": 400.0, "timestamp": {"sec": 1, "nsec": 500}}


def messages(encoding: str) -> list[tuple[str, str, int, bytes]]:
    made = as_json if encoding == "json" else None
    return [
        *(
            ("sensor_msgs/msg/Imu", encoding, 1 + n, made(imu(t)) if made else cdr_imu(t))
            for n, t in enumerate(TIMES)
        ),
        (
            "sensor_msgs/msg/NavSatFix",
            encoding,
            7,
            made(FIX | {"position_covariance": [4.0], "position_covariance_type": 2})
            if made
            else cdr_fix(1.0000005),
        ),
    ]


@pytest.mark.parametrize("encoding", ["json", "cdr"])
@pytest.mark.parametrize("compression", ["ZSTD", "LZ4", "NONE"])
def test_an_mcap_comes_out_as_it_went_in(tmp_path: Path, encoding: str, compression: str) -> None:
    data = write_mcap(tmp_path / "m", messages(encoding), compression=compression)
    output = beside(tmp_path, "v.telemetry.mcap", data)
    (source,) = output.tables["telemetry_sources"]
    assert (source["source"], source["axes"], source["fault_count"]) == ("mcap", "camera", 0)
    found = columns(output)
    known = np.isfinite(found["accel_mps2"][:, 0])
    np.testing.assert_allclose(found["pts_s"][known], TIMES, atol=1e-6)
    np.testing.assert_allclose(found["accel_mps2"][known][:, 2], TIMES, atol=1e-6)
    np.testing.assert_allclose(found["gyro_radps"][known][:, 2], -np.array(TIMES), atol=1e-6)
    assert np.nanmax(found["gps_latitude_deg"]) == 47.5
    assert np.nanmax(found["gps_accuracy_m"]) == pytest.approx(2.0)


def test_absolute_times_of_an_mcap_need_the_time_of_the_first_picture(tmp_path: Path) -> None:
    made = [("sensor_msgs/Imu", "json", 1, as_json(imu(0.5, start_ns=START_NS)))]
    (source,) = beside(tmp_path, "v.telemetry.mcap", write_mcap(tmp_path / "m", made)).tables[
        "telemetry_sources"
    ]
    assert source["sample_count"] == 0 and "video_start_ns" in source["faults"][0]
    data = write_mcap(tmp_path / "m", made, START_NS)
    found = columns(beside(tmp_path, "v.telemetry.mcap", data))
    assert found["pts_s"].tolist() == [pytest.approx(0.5, abs=1e-6)]


@pytest.mark.parametrize("stamped", ["from 0", "never", "but for one"])
def test_times_are_all_of_headers_or_all_of_the_log(tmp_path: Path, stamped: str) -> None:
    """The log's are those of a wall clock, which has another zero."""
    made = []
    for number in range(20):
        said = imu(number / 10)
        if stamped == "never":
            said["header"]["stamp"] = {"sec": 0, "nanosec": 0}
        elif stamped == "but for one" and number == 7:
            del said["header"]["stamp"]
        made.append(("sensor_msgs/Imu", "json", START_NS + number * 10**8, as_json(said)))
    data = write_mcap(tmp_path / "m", made, START_NS)
    output = beside(tmp_path, "v.telemetry.mcap", data)
    times = [n / 10 for n in range(20) if stamped != "but for one" or n != 7]
    np.testing.assert_allclose(columns(output)["pts_s"], times, atol=1e-6)
    (source,) = output.tables["telemetry_sources"]
    assert source["fault_count"] == (stamped == "but for one")


@pytest.mark.parametrize("how", ["damaged", "over"])
def test_the_time_of_the_first_picture_is_found_behind_what_is_not_read(
    tmp_path: Path, how: str
) -> None:
    made = [("sensor_msgs/Imu", "json", 1, as_json(imu(n, start_ns=START_NS))) for n in range(3)]
    data = bytearray(write_mcap(tmp_path / "m", made, START_NS, in_chunks=False))
    at = data.find(b"telemetry") - 4  # of the metadata: a record before it loses its end
    if how == "damaged":
        data[at - 9 : at - 9] = b"\x05" + struct.pack("<Q", 2**60)
        footer = data[-28:]
        moved = struct.unpack_from("<Q", footer)[0] + 9
        data[-28:-20] = struct.pack("<Q", moved)
        index = data.rfind(b"telemetry") - 4 - 16
        offset = struct.unpack_from("<Q", data, index)[0] + 9
        data[index : index + 8] = struct.pack("<Q", offset)
    more = {"max_samples": 2} if how == "over" else {}
    found = columns(beside(tmp_path, "v.telemetry.mcap", bytes(data), **more))
    assert found["pts_s"].tolist() == ([0, 1, 2] if how == "damaged" else [0, 1])


def test_a_frame_of_the_robots_body_is_not_the_cameras(tmp_path: Path) -> None:
    made = [("sensor_msgs/Imu", "json", 1, as_json(imu(0.5, frame="imu_link")))]
    found = columns(beside(tmp_path, "v.telemetry.mcap", write_mcap(tmp_path / "m", made)))
    assert "accel_mps2" not in found and "sensor_accel_mps2" in found


def test_a_location_of_foxglove_is_read_from_protobuf(tmp_path: Path) -> None:
    module = pytest.importorskip("foxglove_schemas_protobuf.LocationFix_pb2")
    fix = module.LocationFix(latitude=47.5, longitude=8.25)
    fix.timestamp.FromNanoseconds(500_000_000)
    made = [("foxglove.LocationFix", "protobuf", 1, fix.SerializeToString())]
    found = columns(beside(tmp_path, "v.telemetry.mcap", write_mcap(tmp_path / "m", made)))
    assert found["gps_latitude_deg"].tolist() == [47.5] and found["pts_s"].tolist() == [0.5]


def test_damaged_messages_are_told_and_the_others_count(tmp_path: Path) -> None:
    made = messages("json")
    made[3] = (*made[3][:3], b"{")
    made[5] = (*made[5][:3], b"[1]")
    made.append(("sensor_msgs/msg/Imu", "cdr", 9, b"\0\1\0\0" + bytes(8) + b"\xff" * 8))
    output = beside(tmp_path, "v.telemetry.mcap", write_mcap(tmp_path / "m", made))
    (source,) = output.tables["telemetry_sources"]
    assert source["fault_count"] == 3 and source["sample_count"] == 99


def test_an_mcap_that_is_cut_or_damaged_raises_nothing(tmp_path: Path) -> None:
    from ego_assets.telemetry.formats.mcap_sidecar import read_mcap

    data, chance = write_mcap(tmp_path / "m", messages("json")), random.Random(4)
    path = tmp_path / "v.telemetry.mcap"
    for number in range(500):
        made = bytearray(data[: chance.randrange(len(data))] if number % 2 else data)
        for _ in range(chance.randint(0, 8) if made else 0):
            made[chance.randrange(len(made))] = chance.randrange(256)
        path.write_bytes(bytes(made))
        found = read_mcap(path, path.name)
        assert sum(len(s.times_s) for s in found.series) <= 200
