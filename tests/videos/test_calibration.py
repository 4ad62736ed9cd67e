"""A calibration comes from anybody: it is used, or rejects its video; nothing of it is shown."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ego_assets.catalog import TABLES
from ego_assets.operator import intrinsics_of
from ego_assets.videos.calibration.sidecars import read_calibration
from ego_assets.videos.inspection import probe_video
from ego_assets.videos.settings import ManifestSettings
from ego_assets.vision.cameras import normalised_points, project_points, scaled_intrinsics
from resources.raw import plain_files
from tests.engine.stage_bench import write_video

SIDE = 32
CAMERA: dict[str, Any] = {"fx": 30.0, "fy": 31.0, "cx": 15.5, "cy": 16.0}
LENS = {"model": "OPENCV", "distortion": [0.1, -0.2, 0.001, 0.0]}
TOKEN = "TOKEN-4f1c9a"


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 32 x 32."""
    path = tmp_path_factory.mktemp("raw") / "v.mp4"
    write_video(path, frames=2)
    return path


@pytest.fixture
def sidecar(video: Path, tmp_path: Path) -> Path:
    """Where its calibration lies: in a folder that is new for each test."""
    (tmp_path / "v.mp4").hardlink_to(video)
    return tmp_path / "v.camera.json"


def probe(sidecar: Path, content: str | bytes | dict[str, Any] | None = None) -> dict[str, Any]:
    """The row of the video beside it, which fits the contract whatever the file holds."""
    if isinstance(content, dict):
        content = json.dumps(content)
    if isinstance(content, str):
        content = content.encode()
    if content is not None:
        sidecar.write_bytes(content)
    row = probe_video(sidecar.with_name("v.mp4"), ManifestSettings())
    whole = {"video_id": "v", "shard": "s", "uri": "u", "byte_size": 1, "sha256": "0"} | row
    TABLES["video_manifest"].from_rows([whole])
    return row


@pytest.mark.parametrize(
    "content",
    [
        CAMERA,
        CAMERA | LENS | {"width": SIDE, "height": SIDE},
        CAMERA | {"model": "OPENCV_FISHEYE", "distortion": [0.1, 0, 0, 0], "made_by": "a tool"},
        CAMERA | {"fx": 30, "width": 32.0},
        CAMERA | {"timestamp_ns": 1_700_000_000_000_000_000, "serial": 10**29},
        b"\xef\xbb\xbf" + json.dumps(CAMERA).encode(),
    ],
)
def test_what_a_camera_may_be(sidecar: Path, content: Any) -> None:
    row = probe(sidecar, content)
    assert (row["reject_detail"], row["intrinsics_source"]) == (None, "calibration_file")


HOSTILE: dict[str, Any] = {
    "empty": "",
    "spaces": " \n ",
    "cut off": '{"fx": 30',
    "nested": "[" * 200_000,
    "nested objects": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "nested and closed": "[" * 100_000 + "]" * 100_000,
    "no object": "[1, 2]",
    "a string": f'"{TOKEN}"',
    "null": "null",
    "UTF-16": json.dumps(CAMERA).encode("utf-16"),
    "UTF-32": json.dumps(CAMERA).encode("utf-32"),
    "latin-1": b'{"fx": "\xe9"}',
    "NUL": b"\x00" * 100,
    "too large": b" " * (2**20 + 1),
    "200 MB": None,
    "duplicates": '{"fx": 30, "fx": 31, "fy": 30, "cx": 15, "cy": 15}',
    "a huge whole number": '{"fx": ' + "9" * 5000 + "}",
    "a huge size": CAMERA | {"width": 10**30},
    "NaN": '{"fx": NaN, "fy": 30, "cx": 15, "cy": 15}',
    "Infinity": '{"fx": 30, "fy": -Infinity, "cx": 15, "cy": 15}',
    "1e999": '{"fx": 1e999, "fy": 30, "cx": 15, "cy": 15}',
    "1e300": CAMERA | {"fx": 1e300, "fy": 1e300},
    "1e39": CAMERA | {"fx": 1e39, "fy": 1e39},
    "1e-60": CAMERA | {"fx": 1e-60, "fy": 1e-60},
    "negative": CAMERA | {"fx": -30.0},
    "zero": CAMERA | {"fy": 0},
    "flat": CAMERA | {"fx": 1.0 * SIDE, "fy": 90.0 * SIDE},
    "far centre": CAMERA | {"cx": 1e6},
    "far below": CAMERA | {"cy": -1e5},
    "1e39 in the centre": CAMERA | {"cx": 1e39},
    "true": CAMERA | {"fx": True},
    "a number in words": CAMERA | {"fx": "30"},
    "null in it": CAMERA | {"fx": None},
    "missing": {"fx": 30.0},
    "a list": CAMERA | {"fx": [30.0]},
    "model": CAMERA | {"model": TOKEN},
    "model of another type": CAMERA | {"model": {"a": TOKEN}},
    "three coefficients": CAMERA | {"distortion": [0.1, 0.2, 0.3]},
    "coefficients of a pinhole": CAMERA | {"distortion": [0.1, 0.2, 0.3, 0.4]},
    "no coefficients": CAMERA | {"model": "OPENCV"},
    "five coefficients": CAMERA | LENS | {"distortion": [0.1] * 5},
    "a million": CAMERA | LENS | {"distortion": [0.1] * 100_000},
    "text in coefficients": CAMERA | LENS | {"distortion": [0.1, TOKEN, 0, 0]},
    "1e39 in coefficients": CAMERA | LENS | {"distortion": [1e39, 0, 0, 0]},
    "1e300 in coefficients": CAMERA | LENS | {"distortion": [0, 0, 0, -1e300]},
    "another size": CAMERA | {"width": 640, "height": 480},
    "no size": CAMERA | {"width": 0},
    "a negative size": CAMERA | {"width": -SIDE, "height": -SIDE},
    "half a pixel": CAMERA | {"width": 32.5},
    "another kind of file": f"AWS_SECRET_ACCESS_KEY={TOKEN}\n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_calibration_is_a_reason(sidecar: Path, name: str) -> None:
    content = HOSTILE[name]
    if content is None:
        with sidecar.open("wb") as file:
            file.truncate(200_000_000)
    row = probe(sidecar, content)
    assert (row["accepted"], row["reject_reason"]) == (False, "bad_calibration")
    assert row["reject_detail"].startswith("v.camera.json is no calibration of this video: ")
    assert len(row["reject_detail"]) < 300
    assert row["fx_px"] is None


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO])
def test_storage_that_fails_says_nothing_of_a_calibration(
    sidecar: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> Any:
        raise OSError(number, os.strerror(number))

    sidecar.write_text(json.dumps(CAMERA))
    monkeypatch.setattr(plain_files, "open_regular", refuse)
    with pytest.raises(OSError, match=os.strerror(number)) as error:
        read_calibration(sidecar.with_name("v.mp4"), SIDE, SIDE)
    assert error.value.filename == str(sidecar)


def test_a_large_file_is_not_read(sidecar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_bytes(*_: Any) -> bytes:
        raise AssertionError("it was read")

    with sidecar.open("wb") as file:
        file.truncate(10**12)
    monkeypatch.setattr(json, "loads", read_bytes)
    assert "larger than 1 MiB" in probe(sidecar)["reject_detail"]


@pytest.mark.parametrize("name", ["text", "json", "number", "key"])
def test_nothing_of_a_file_is_quoted(sidecar: Path, name: str) -> None:
    """It may be a secret that somebody put there, by a link that was followed once."""
    contents = {
        "text": f"{TOKEN}\n" * 3,
        "json": dict.fromkeys((*CAMERA, "model", "distortion", "width", "height"), TOKEN),
        "number": CAMERA | {"width": 481516, "height": 2342},
        "key": {TOKEN: TOKEN},
    }
    detail = probe(sidecar, contents[name])["reject_detail"]
    assert TOKEN not in detail
    assert not {"481516", "2342"} & set(detail.replace(",", " ").split())


def link_out(sidecar: Path) -> None:
    outside = sidecar.parent.with_name(f"{sidecar.parent.name}-secret")
    outside.write_text(json.dumps(CAMERA | {"token": TOKEN}))
    sidecar.symlink_to(outside)


def chain_out(sidecar: Path) -> None:
    link_out(sidecar.with_name("hop"))
    sidecar.symlink_to("hop")


def folder_out(sidecar: Path) -> None:
    outside = sidecar.parent.with_name(f"{sidecar.parent.name}-folder")
    outside.mkdir()
    (outside / "c").write_text(json.dumps(CAMERA))
    sidecar.with_name("elsewhere").symlink_to(outside)
    sidecar.symlink_to("elsewhere/c")


def bind(sidecar: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        before = Path.cwd()
        os.chdir(sidecar.parent)  # the path of a socket is short
        server.bind(sidecar.name)
        os.chdir(before)


NO_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "link out": (link_out, "leads out of its folder"),
    "chain out": (chain_out, "leads out of its folder"),
    "through a folder": (folder_out, "leads out of its folder"),
    "device": (lambda p: p.symlink_to("/dev/zero"), "leads out of its folder"),
    "nothing": (lambda p: p.symlink_to("nowhere"), "leads to nothing"),
    "circle": (lambda p: p.symlink_to(p.name), "leads in a circle"),
    "pipe": (os.mkfifo, "a named pipe, not a file"),
    "socket": (bind, "a socket, not a file"),
    "folder": (Path.mkdir, "a folder, not a file"),
}


@pytest.mark.parametrize("name", NO_FILES)
def test_what_is_no_file_of_its_folder_is_not_opened(sidecar: Path, name: str) -> None:
    make, words = NO_FILES[name]
    make(sidecar)
    row = probe(sidecar)
    assert row["reject_reason"] == "bad_calibration"
    assert words in row["reject_detail"]
    assert TOKEN not in row["reject_detail"]


def test_one_calibration_may_be_linked_by_many_videos_of_its_folder(sidecar: Path) -> None:
    (sidecar.parent / "rig").mkdir()
    (sidecar.parent / "rig" / "left.json").write_text(json.dumps(CAMERA))
    sidecar.symlink_to("rig/left.json")
    assert probe(sidecar)["intrinsics_source"] == "calibration_file"


def test_a_name_that_leaves_no_room_for_a_calibration_needs_none(video: Path) -> None:
    for length in (247, 251):  # a name has 255 bytes
        path = video.with_name(f"{'ü' * (length // 2)}{'x' * (length % 2)}.mp4")
        path.hardlink_to(video)
        row = probe_video(path, ManifestSettings())
        assert (row["reject_detail"], row["intrinsics_source"]) == (None, "assumed_fov")


def test_a_name_that_is_no_text_is_escaped(video: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(video.parent) + b"/\xff\x1b[31m.mp4"))
    path.hardlink_to(video)
    path.with_suffix(".camera.json").write_text("{")
    detail = probe_video(path, ManifestSettings())["reject_detail"]
    assert detail.isprintable()
    assert detail.startswith("\\udcff\\x1b[31m.camera.json is no calibration")


NUMBERS = st.one_of(
    st.floats(),
    st.integers(),
    st.sampled_from([0, 1e-60, 1e39, 1e300, 30.0, 900.0, 3.2, 99.9, -100.0, True, "30", None]),
)
SIDECARS = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=200),
    st.recursive(NUMBERS, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(), x)),
    st.fixed_dictionaries(
        dict.fromkeys(("fx", "fy", "cx", "cy"), NUMBERS),
        optional={
            "model": st.sampled_from(["PINHOLE", "OPENCV", "OPENCV_FISHEYE", "X", 1]),
            "distortion": st.one_of(NUMBERS, st.lists(NUMBERS, max_size=6)),
            "width": NUMBERS,
            "height": NUMBERS,
        },
    ),
    st.fixed_dictionaries(
        {
            "model": st.sampled_from(["OPENCV", "OPENCV_FISHEYE"]),
            "distortion": st.lists(st.floats(-100, 100), min_size=4, max_size=4),
            **dict.fromkeys(("fx", "fy"), st.floats(3.2, 960)),
            **dict.fromkeys(("cx", "cy"), st.floats(-80, 112)),
        }
    ),
)


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@example(CAMERA | LENS | {"fx": 3.2, "fy": 6.4, "distortion": [100.0, 100.0, 100.0, 100.0]})
@example(CAMERA | {"model": "OPENCV_FISHEYE", "fx": 3.2, "fy": 3.2, "distortion": [-100.0] * 4})
@given(content=SIDECARS)
def test_whatever_a_sidecar_holds_the_row_stands(sidecar: Path, content: Any) -> None:
    """Rejected with the one reason, or a camera whose rays are numbers."""
    if not isinstance(content, bytes):
        content = json.dumps(content)
    row = probe(sidecar, content)
    if not row["accepted"]:
        assert row["reject_reason"] == "bad_calibration"
        return
    camera = scaled_intrinsics(intrinsics_of(row | {"uri": "u"}), 0.1, 0.1)
    corners = np.array([[0.0, 0.0], [31.0, 0.0], [15.0, 15.0], [31.0, 31.0]])
    rays = normalised_points(camera, corners * 0.1)
    assert np.isfinite(rays).all()
    back = project_points(camera, np.column_stack([np.clip(rays, -1e6, 1e6), np.ones(4)]))
    assert back.shape == (4, 2)
