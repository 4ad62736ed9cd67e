"""The manifest says what the file is, and refuses what breaks a limit."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from ego_assets.catalog import TABLES
from ego_assets.media.containers import open_media
from ego_assets.media.decode import ClipFrames
from ego_assets.operator import BadInputError
from ego_assets.videos import inspection as module
from ego_assets.videos.calibration.columns import is_calibrated_by
from ego_assets.videos.inspection import hash_file, probe_file, probe_video
from ego_assets.videos.settings import ManifestSettings
from resources.raw.plain_files import NotAFileError
from tests.support.rendered import render_sample


def probe(path: Path, **settings: Any) -> dict[str, Any]:
    return probe_video(path, ManifestSettings(**settings))


def test_a_row_fits_the_contract(real_data: Path) -> None:
    path = real_data / "videos" / "ego_dinner_table.mp4"
    sha256, size = hash_file(path)
    row = {"video_id": sha256[:16], "shard": "s", "uri": str(path), "byte_size": size}
    row |= {"sha256": sha256} | probe(path)
    TABLES["video_manifest"].from_rows([row])
    assert (row["width_px"], row["height_px"], row["frame_count"]) == (2560, 1920, 14)
    assert (row["audio_codec"], row["audio_rate_hz"], row["audio_channels"]) == ("aac", 44100, 2)
    assert row["video_codec"] == "h264"
    assert row["duration_s"] == pytest.approx(1.4, abs=0.01)
    assert row["average_rate_fps"] == pytest.approx(10, abs=0.1)


def test_hash_and_size(tmp_path: Path) -> None:
    data = os.urandom(9_000_001)
    (tmp_path / "a").write_bytes(data)
    assert hash_file(tmp_path / "a") == (hashlib.sha256(data).hexdigest(), len(data))


def test_a_file_is_hashed_beside_its_probing(tmp_path: Path) -> None:
    video = render_sample(tmp_path, seed=0, duration_s=0.5, width=160, height=90)
    noise = tmp_path / "noise.mp4"
    noise.write_bytes(os.urandom(5_000_000))
    for path in (video, noise):
        settings = ManifestSettings()
        expected = (*hash_file(path), probe_video(path, settings))
        assert probe_file(path, settings) == expected
    with pytest.raises(FileNotFoundError):
        probe_file(tmp_path / "none.mp4", ManifestSettings())


@pytest.mark.parametrize(
    ("name", "column", "value"),
    [
        ("vfr.mp4", "is_variable_rate", True),
        ("fps_120.mp4", "is_variable_rate", False),
        ("late_start_pts.ts", "start_pts_s", pytest.approx(7200, abs=5)),
        ("rotated_90_metadata.mp4", "rotation_deg", 270),
        ("rotated_90_metadata.mp4", "height_px", 640),
        ("non_square_pixels.mp4", "sample_aspect_ratio", pytest.approx(4 / 3, abs=0.01)),
        ("hevc_10bit.mp4", "pixel_format", "yuv420p10le"),
        ("webm_named.mp4", "container", "matroska,webm"),
        ("no_audio.mp4", "audio_codec", None),
    ],
)
def test_facts(real_data: Path, name: str, column: str, value: Any) -> None:
    assert probe(real_data / "odd" / name)[column] == value


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"max_duration_s": 1.0}, "too_long"),
        ({"min_duration_s": 5.0}, "too_short"),
        ({"max_pixels": 1000}, "too_large"),
        ({"max_decoded_gigabytes": 0.001}, "too_large"),
    ],
)
def test_limits(real_data: Path, settings: dict[str, Any], reason: str) -> None:
    row = probe(real_data / "odd" / "hevc_10bit.mp4", **settings)
    assert row["reject_reason"] == reason
    assert "limit" in row["reject_detail"]


@pytest.fixture
def video(real_data: Path, tmp_path: Path) -> Path:
    target = tmp_path / "v.mp4"
    target.write_bytes((real_data / "odd" / "one_frame.mp4").read_bytes())
    return target


CAMERA = {"fx": 900.0, "fy": 901.0, "cx": 640.0, "cy": 360.0}


def test_a_calibration_beside_the_video_is_used(video: Path) -> None:
    camera = CAMERA | {"model": "OPENCV_FISHEYE", "distortion": [0.1, 0.0, 0.0, 0.0]}
    video.with_suffix(".camera.json").write_text(json.dumps(camera | {"width": 1280}))
    row = probe(video)
    assert (row["fx_px"], row["camera_model"]) == (900.0, "OPENCV_FISHEYE")
    assert row["intrinsics_source"] == "calibration_file"


def test_without_one_a_field_of_view_is_assumed(video: Path) -> None:
    row = probe(video, assumed_horizontal_fov_deg=90)
    assert row["fx_px"] == pytest.approx(640)
    assert row["intrinsics_source"] == "assumed_fov"


@pytest.mark.parametrize(
    "text",
    [
        "{not json",
        "[]",
        json.dumps(CAMERA | {"fx": -1}),
        json.dumps(CAMERA | {"fx": "NaN"}),
        json.dumps(CAMERA | {"width": 640, "height": 480}),
        json.dumps(CAMERA | {"model": "OPENCV"}),
        json.dumps(CAMERA | {"model": "EQUIRECTANGULAR"}),
    ],
)
def test_a_bad_calibration_is_a_reason(video: Path, text: str) -> None:
    video.with_suffix(".camera.json").write_text(text)
    row = probe(video)
    assert row["reject_reason"] == "bad_calibration"
    assert "v.camera.json" in row["reject_detail"]


@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
def test_what_is_no_plain_file_is_refused_and_keeps_nobody_waiting(
    video: Path, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "odd.mp4"
    {"pipe": os.mkfifo, "link": lambda p: p.symlink_to(video), "folder": Path.mkdir}[kind](path)
    row = probe(path)
    assert (row["accepted"], row["reject_reason"]) == (False, "refused")
    for read in (hash_file, lambda p: probe_file(p, ManifestSettings())):
        with pytest.raises(NotAFileError, match="not a file"):
            read(path)
    if kind != "link":  # decoding goes by what a path leads to: lakes check that themselves
        with pytest.raises(BadInputError, match="not a file"):
            open_media(path)


def test_what_libav_says_of_a_file_quotes_nothing_of_it(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"\x00\x00\x00\x20free" + b"TOKEN-1\xff" * 500)
    row = probe(tmp_path / "a.mp4")
    assert row["reject_reason"] == "unreadable"
    assert "TOKEN" not in row["reject_detail"]


def test_a_file_over_the_limit_is_not_opened(tmp_path: Path) -> None:
    with (tmp_path / "a.mp4").open("wb") as file:
        file.truncate(64_000_000_001)
    began = time.monotonic()
    sha256, size, row = probe_file(tmp_path / "a.mp4", ManifestSettings())
    assert (sha256, size, row["reject_reason"]) == ("", 64_000_000_001, "too_large")
    assert time.monotonic() - began < 10, "hashing it takes over half a minute"


def test_a_recording_whose_payload_is_noise_is_corrupt(real_data: Path, tmp_path: Path) -> None:
    data = bytearray((real_data / "odd" / "truncated_faststart_60pct.mp4").read_bytes())
    start = data.index(b"mdat") + 4
    data[start:] = os.urandom(len(data) - start)
    (tmp_path / "noise.mp4").write_bytes(bytes(data))
    row = probe(tmp_path / "noise.mp4")
    assert row["reject_reason"] in {"corrupt", "unreadable", "no_video"}


@pytest.mark.parametrize(
    ("name", "codec", "b_frames", "reason"),
    [
        ("a.avi", "libx264", 3, "no_times"),
        ("a.avi", "libx264", 0, None),
        ("a.avi", "mpeg4", 2, None),
        ("a.mp4", "libx264", 3, None),
    ],
)
def test_pictures_out_of_order_need_times(
    tmp_path: Path, name: str, codec: str, b_frames: int, reason: str | None
) -> None:
    """AVI has no times of its own for pictures that are stored in another order."""
    with av.open(tmp_path / name, "w") as container:
        stream: Any = container.add_stream(codec, rate=30, options={"bf": str(b_frames)})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.max_b_frames = b_frames
        for number in range(40):
            image = np.full((48, 64, 3), 6 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        container.mux(stream.encode())
    row = probe(tmp_path / name)
    assert row["reject_reason"] == reason
    if reason:
        assert "genpts" in row["reject_detail"]
    else:
        frames = ClipFrames(tmp_path / name, 0, row["frame_count"]).read()
        greys = [f.image.mean() for f in frames]
        assert len(greys) == 40
        assert greys == sorted(greys)


def test_a_file_that_vanishes_while_it_is_probed_is_not_rejected(
    tmp_path: Path, real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mp4"

    def vanishing(read: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            path.rename(tmp_path / "away.mp4")
            try:
                return read(*args, **kwargs)
            finally:
                (tmp_path / "away.mp4").rename(path)

        return call

    for name in ("_open", "index_frames", "_check_decoding", "camera_columns"):
        shutil.copy(real_data / "videos" / "ego_dinner_table.mp4", path)
        with monkeypatch.context() as patch:
            patch.setattr(module, name, vanishing(getattr(module, name)))
            with pytest.raises(FileNotFoundError):
                probe(path)
    assert probe(path)["accepted"]


def test_a_calibration_is_the_same_if_the_camera_is(tmp_path: Path, real_data: Path) -> None:
    path, sidecar = tmp_path / "a.mp4", tmp_path / "a.camera.json"
    shutil.copy(real_data / "videos" / "ego_dinner_table.mp4", path)
    camera = {"model": "OPENCV", "fx": 900.1, "fy": 901.2, "cx": 960.3, "cy": 540.4}
    camera |= {"distortion": [0.01, -0.02, 0.0, 0.0]}
    assumed = probe(path)
    assert is_calibrated_by(assumed, path)
    sidecar.write_text(json.dumps(camera))
    assert not is_calibrated_by(assumed, path)
    row = {"video_id": "v", "shard": "s", "uri": str(path), "byte_size": 1, "sha256": "x"}
    (stored,) = TABLES["video_manifest"].from_rows([row | probe(path)]).to_pylist()
    changes: list[dict[str, Any]] = [{}, {"note": "x"}, {"fx": 901.5}, {"distortion": [1, 2, 3, 4]}]
    for change in changes:
        sidecar.write_text(json.dumps(camera | change))
        assert is_calibrated_by(stored, path) == (not change or "note" in change), change
    sidecar.write_text("no calibration")
    assert not is_calibrated_by(stored, path)
    sidecar.unlink()
    assert not is_calibrated_by(stored, path)


def test_a_disk_that_fails_for_a_moment_is_no_damage_of_the_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_: Any) -> Any:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(module, "index_frames", refuse)
    with pytest.raises(OSError, match="Input/output error"):
        probe_file(render_sample(tmp_path, seed=1, duration_s=1.0), ManifestSettings())
