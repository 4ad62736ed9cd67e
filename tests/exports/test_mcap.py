"""`ego export mcap`, read back with the libraries of MCAP: pictures, times, joints, transforms."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from click.testing import CliRunner
from mcap.reader import make_reader
from mcap_protobuf.decoder import DecoderFactory
from PIL import Image

from dagster_project.cli.program import main
from ego_assets.exports.grid import ExportError
from ego_assets.exports.mcap.writer import write_mcap
from ego_assets.operator import Intrinsics
from ego_assets.vision.cameras import project_points
from ego_assets.vision.geometry import matrix_from_quaternion
from tests.exports.bars import number_in
from tests.exports.lerobot_reader import tree
from tests.exports.numbered import EGO, SIDE, episode
from tests.exports.numbered_lake import LENS, ROBOT, MadeVideo, make
from tests.exports.placed_objects import poses_of_cup
from tests.exports.test_lake_export import of


@dataclass
class Log:
    """What is in a file. messages: (time, message) by topic, decoded."""

    messages: dict[str, list[tuple[int, Any]]] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    schemas: dict[str, str] = field(default_factory=dict)

    def at(self, topic: str) -> dict[int, Any]:
        return dict(self.messages.get(topic, ()))

    def transforms(self, child: str) -> dict[int, Any]:
        return {t: m for t, m in self.messages["/tf"] if m.child_frame_id == child}


def read(path: Path) -> Log:
    log = Log()
    with path.open("rb") as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        summary = reader.get_summary()
        assert summary is not None and summary.statistics is not None
        for schema, channel, message in reader.iter_messages():
            assert schema is not None and message.log_time == message.publish_time
            log.schemas[channel.topic] = schema.name
            if channel.message_encoding == "json":
                found = json.loads(message.data)
            else:
                decode = DecoderFactory().decoder_for("protobuf", schema)
                assert decode is not None
                found = decode(message.data)
            log.messages.setdefault(channel.topic, []).append((message.log_time, found))
        counts = summary.statistics.channel_message_counts
        assert sum(counts.values()) == sum(map(len, log.messages.values()))
        (said,) = reader.iter_metadata()
        log.said = said.metadata
    return log


def pictures(packets: list[bytes], codec: str) -> Iterator[np.ndarray]:
    """Pictures of packets, by a decoder that knows nothing but them: one a packet."""
    name = {"h264": "h264", "av1": "libdav1d"}[codec]
    decoder = av.CodecContext.create(name, "r")
    frames = [f for data in packets for f in decoder.decode(av.Packet(data))]
    for frame in (*frames, *decoder.decode(None)):
        yield frame.to_ndarray(format="rgb24")


def only(folder: Path) -> Path:
    (found,) = folder.rglob("*.mcap")
    return found


def uneven(count: int) -> np.ndarray:
    """(N + 1,) times of a camera that does not keep its rate."""
    steps = np.where(np.arange(count) % 3 == 0, 1 / 24, 1 / 30)
    return np.concatenate([[0.0], np.cumsum(steps)])


def world_moves(count: int, **said: Any) -> MadeVideo:
    made = MadeVideo(count=count, **said)
    made.camera_m[:, 0] = np.linspace(0, 1, count)
    half = np.sqrt(0.5)
    made.camera_xyzw[:] = [0.0, half, 0.0, half]
    return made


@pytest.mark.parametrize("codec", ["h264", "av1"])
def test_pictures_are_at_the_times_of_their_frames(tmp_path: Path, codec: str) -> None:
    video = MadeVideo(count=60, pts_s=uneven(60))
    report = make(tmp_path, video).export("--codec", codec, to="mcap")
    assert (report["episodes"], report["frames"], report["skipped"]) == (1, 60, {})
    log = read(only(tmp_path / "out"))
    assert log.schemas["/camera/image"] == "foxglove.CompressedVideo"
    images = log.messages["/camera/image"]
    assert [t for t, _ in images] == [round(s * 1e9) for s in video.pts_s[:60]]
    stamps = [m.timestamp.seconds * 10**9 + m.timestamp.nanos for _, m in images]
    assert stamps == [t for t, _ in images]
    assert {m.format for _, m in images} == {codec}
    frames = [m["source_frame"] for _, m in log.messages["/shown"]]
    packets = [m.data for _, m in images]
    assert [number_in(p) for p in pictures(packets, codec)] == frames == list(range(60))
    # A viewer that seeks begins at a key frame, and has nothing of what was before it.
    assert [number_in(p) for p in pictures(packets[20:25], codec)] == list(range(20, 25))


def test_jpegs_carry_their_numbers(tmp_path: Path) -> None:
    make(tmp_path, MadeVideo(count=60)).export("--pictures", "jpeg", to="mcap")
    log = read(only(tmp_path / "out"))
    assert log.schemas["/camera/image"] == "foxglove.CompressedImage"
    found = [
        number_in(np.asarray(Image.open(io.BytesIO(m.data))))
        for m in log.at("/camera/image").values()
    ]
    assert found == [m["source_frame"] for _, m in log.messages["/shown"]] == list(range(60))


def test_joints_and_transforms_are_those_of_the_tables(tmp_path: Path) -> None:
    lake = make(tmp_path, world_moves(60))
    lake.export("--max-side-px", "96", "--robot-joints", "true", to="mcap")
    log = read(only(tmp_path / "out"))
    calibration = log.messages["/camera/calibration"][0][1]
    assert (calibration.width, calibration.height) == (96, 54)
    matrix = np.array(calibration.K).reshape(3, 3)
    lens = Intrinsics("PINHOLE", 150.0, 151.0, 95.5, 53.5)
    frames = {t: m["source_frame"] for t, m in log.messages["/shown"]}
    cameras = log.transforms("camera")
    for side in ("left", "right"):
        rows = of(lake.tables["episode_hands"], side)
        joints, wrists = log.at(f"/hands/{side}/joints"), log.transforms(f"{side}_hand")
        robots = log.at(f"/robot/{side}/joint_states")
        assert len(joints) == len(wrists) == 60
        for time, frame in frames.items():
            row = rows[frame]
            found = np.array([[getattr(p.position, a) for a in "xyz"] for p in joints[time].poses])
            assert found == pytest.approx(np.array(row["joints_camera_m"]), abs=1e-6)
            tip = matrix @ found[8]
            (full,) = project_points(lens, np.array([row["joints_camera_m"][8]]))
            assert tip[:2] / tip[2] == pytest.approx((full + 0.5) / 2 - 0.5, abs=1e-3)
            placed = moved(cameras[time], moved(wrists[time], np.zeros(3)))
            assert placed == pytest.approx(row["world_from_hand_m"], abs=1e-5)
            assert (time in robots) == (frame % 50 != 7)
            if time in robots:
                said = {j.name: j.position for j in robots[time].joints}
                assert said == pytest.approx(dict(zip(ROBOT, (frame / 1000, 0.5), strict=True)))


def moved(transform: Any, point: np.ndarray) -> np.ndarray:
    """A point of the child in its parent."""
    turn, shift = transform.rotation, transform.translation
    rotation = matrix_from_quaternion(np.array([turn.x, turn.y, turn.z, turn.w]))
    return rotation @ point + [shift.x, shift.y, shift.z]


def test_what_is_not_known_has_no_message_and_is_said(tmp_path: Path) -> None:
    video = world_moves(120)
    video.camera_valid[40:] = False
    video.is_valid[60:75] = False
    make(tmp_path, video).export(to="mcap")
    log = read(only(tmp_path / "out"))
    shown = {m["source_frame"]: (t, m["known"]) for t, m in log.messages["/shown"]}
    assert {frame for frame in shown if shown[frame][1]["camera"]} == set(range(40))
    assert set(log.transforms("camera")) == {shown[n][0] for n in range(40)}
    gone = {frame for frame in shown if not shown[frame][1]["left_hand"]}
    assert gone and gone <= set(range(60, 75))
    for frame, (time, _) in shown.items():
        assert (time in log.at("/hands/left/joints")) == (frame not in gone)
        (entity,) = log.at("/hands/left/skeleton")[time].entities
        assert len(entity.lines) == (frame not in gone)


def test_objects_have_their_valid_poses(tmp_path: Path) -> None:
    video = MadeVideo(count=60)
    lake = make(tmp_path, video, more=poses_of_cup(video, invalid=range(20, 30)))
    lake.export(to="mcap")
    log = read(only(tmp_path / "out"))
    frames = {t: m["source_frame"] for t, m in log.messages["/shown"]}
    found = log.at("/objects/00_cup_o001")
    assert {frames[t] for t in found} == set(range(60)) - set(range(20, 30))
    assert set(log.transforms("objects/00_cup_o001")) == set(found)
    for time, message in found.items():
        assert message.pose.position.x == pytest.approx(frames[time] / 100)
    (said,) = json.loads(log.said["provenance"])["object_poses"]
    assert (said["name"], said["frames_with_pose"]) == ("cup o001", 50)
    lake.export("--objects", "false", to="mcap")
    assert "/objects/00_cup_o001" not in read(only(tmp_path / "out")).messages


def test_it_says_where_it_comes_from_and_again_changes_no_byte(tmp_path: Path) -> None:
    lake = make(tmp_path, MadeVideo(count=60))
    lake.export("--threads", "1", to="mcap")
    log = read(only(tmp_path / "out"))
    (row,) = lake.tables["episodes"]
    assert log.said["task"] == row["instruction"] == log.messages["/instruction"][0][1].message
    assert json.loads(log.said["provenance"])["sha256"] == "00000000000000a1" * 4
    before = tree(tmp_path / "out")
    assert lake.export("--threads", "1", to="mcap")["encoded"] == 0
    assert tree(tmp_path / "out") == before
    checked = CliRunner().invoke(main, ["export", "check", str(tmp_path / "out")])
    assert checked.exit_code == 0
    only(tmp_path / "out").write_bytes(before[only(tmp_path / "out").name][:-9] + b"\0" * 9)
    checked = CliRunner().invoke(main, ["export", "check", str(tmp_path / "out")])
    assert checked.exit_code == 1 and "has other bytes than were written" in checked.stdout


def test_a_lens_is_said_as_foxglove_does(tmp_path: Path) -> None:
    for model, name, given, said in (
        ("OPENCV", "plumb_bob", [0.5, 0.1, 0.0, 0.2], [0.5, 0.1, 0.0, 0.2, 0.0]),
        ("OPENCV_FISHEYE", "kannala_brandt", [0.5, 0.1, 0.3, 0.2], [0.5, 0.1, 0.3, 0.2]),
    ):
        camera = LENS | {"camera_model": model, "distortion": given}
        camera |= {"width_px": 192, "height_px": 108}
        out = tmp_path / model
        write_mcap(out, [episode("e", 10, 0, columns={}, provenance={"camera": camera})])
        found = read(only(out)).messages["/camera/calibration"][0][1]
        assert (found.distortion_model, list(found.D)) == (name, said)


def test_what_cannot_be_read_is_left_out_and_the_rest_is_written(tmp_path: Path) -> None:
    videos = [MadeVideo(count=60, video_id=f"00000000000000{n}") for n in ("a1", "b2")]
    lake = make(tmp_path, *videos)
    (tmp_path / "00000000000000b2.mp4").unlink()
    report = lake.export(to="mcap")
    assert report["episodes"] == 1 and len(list((tmp_path / "out").glob("*.mcap"))) == 1
    ((name, why),) = report["skipped"].items()
    assert name.startswith("00000000000000b2") and "00000000000000b2.mp4" in why
    (tmp_path / "00000000000000a1.mp4").unlink()
    assert "none of 2 episodes" in make_again(tmp_path)


def make_again(folder: Path) -> str:
    asked = ["export", "mcap", "--lake", str(folder / "lake"), "--out", str(folder / "other")]
    done = CliRunner().invoke(main, asked)
    assert done.exit_code == 1 and not list((folder / "other").glob("*.mcap"))
    return done.output


def test_what_the_format_cannot_hold_is_refused(tmp_path: Path) -> None:
    camera = {"camera": LENS | {"distortion": None, "width_px": 192, "height_px": 108}}
    for changes, why in (
        ({"provenance": {}}, "the intrinsics"),
        ({"cameras": (EGO, SIDE), "provenance": camera}, "2 cameras"),
        ({"episode_id": "../e", "provenance": camera}, "its name is no name of a file"),
    ):
        with pytest.raises(ExportError, match=why):
            write_mcap(tmp_path, [episode("e", 10, 0, columns={}, **changes)])


def test_a_library_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mcap", None)
    with pytest.raises(ExportError, match=r"pip install 'ego-assets\[mcap\]'"):
        write_mcap(tmp_path, [])
