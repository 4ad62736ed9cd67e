"""Decoding on a GPU gives what software gives, and its absence or failure costs nothing.

Without a GPU, the device is played by software whose pictures are laid out as a device's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.codec.hwaccel import HWAccel

from ego_assets.media import containers, nvdec
from ego_assets.media.decode import ClipFrames
from ego_assets.media.frame_index import index_frames

LAYOUT = {"yuv420p": "nv12", "yuvj420p": "nv12", "yuv420p10le": "p010le"}


def frames_of(path: Path, hardware: bool, start: int = 0, **options: Any) -> tuple[list[Any], str]:
    end = min(start + 40, len(index_frames(path)))
    source = ClipFrames(path, start, end, hardware=hardware)
    return list(source.read(**{"max_side_px": 320} | options)), source.decoded_by


def assert_same(left: list[Any], right: list[Any]) -> None:
    assert [f.index for f in left] == [f.index for f in right]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(left, right, strict=True))


class Device:
    """Decodes like a GPU, and may break after some pictures, or leave all to libav."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, pictures: int = 10**9, *, declines: bool = False
    ) -> None:
        self.left = pictures
        self.opened: list[dict[str, Any]] = []
        self.layouts: set[str] = set()
        open_, as_software = av.open, nvdec.as_software_has_it

        def opening(name: str, **options: Any) -> Any:
            self.opened.append(options)
            return open_(name, **options | {"hwaccel": None})

        def laying_out(picture: Any) -> Any:
            if self.left == 0:
                raise av.error.InvalidDataError(1094995529, "broken")
            self.left -= 1
            there = picture if declines else picture.reformat(format=LAYOUT[picture.format.name])
            self.layouts.add(there.format.name)
            return as_software(there)

        monkeypatch.setattr(containers.av, "open", opening)
        monkeypatch.setattr(nvdec, "as_software_has_it", laying_out)
        monkeypatch.setattr(nvdec, "_device", lambda visible: (self, ""))


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("videos/hands_kneading_dough.mp4", "nv12"),
        ("odd/hevc_10bit.mp4", "p010le"),
        ("odd/rotated_90_metadata.mp4", "nv12"),
    ],
)
@pytest.mark.parametrize("max_side_px", [320, None])
def test_the_layout_of_a_device_changes_no_bit(
    real_data: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    layout: str,
    max_side_px: int | None,
) -> None:
    expected, _ = frames_of(real_data / name, hardware=False, max_side_px=max_side_px)
    device = Device(monkeypatch)
    found, decoder = frames_of(real_data / name, hardware=True, max_side_px=max_side_px)
    assert (decoder, device.layouts) == ("NVDEC", {layout})
    assert_same(found, expected)


@pytest.mark.parametrize("pictures", [0, 7])
def test_what_breaks_on_the_device_goes_on_in_software(
    real_data: Path, monkeypatch: pytest.MonkeyPatch, pictures: int
) -> None:
    path = real_data / "videos" / "hands_kneading_dough.mp4"
    expected, _ = frames_of(path, hardware=False)
    Device(monkeypatch, pictures)
    found, decoder = frames_of(path, hardware=True)
    assert decoder.startswith("software: InvalidDataError")
    assert_same(found, expected)


def test_what_the_device_does_not_decode_is_not_said_to_be_its(
    real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libav goes on by itself then, in the one thread that a device wants."""
    path = real_data / "videos" / "hands_kneading_dough.mp4"
    expected, _ = frames_of(path, hardware=False)
    device = Device(monkeypatch, declines=True)
    found, decoder = frames_of(path, hardware=True)
    assert decoder == "software: the device makes no pictures of yuv420p"
    assert_same(found, expected)
    assert device.opened[-1].get("hwaccel") is None


def test_a_damaged_stream_is_left_to_software(
    real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = real_data / "odd" / "bitflips_payload.mp4"  # its first damaged picture is the 42nd
    expected, _ = frames_of(path, hardware=False, start=20)
    Device(monkeypatch)
    found, decoder = frames_of(path, hardware=True, start=20)
    assert decoder == "software: a picture is damaged"
    assert_same(found, expected)


def test_a_device_that_is_not_there_is_no_error(
    real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libav says "operation not permitted" then, which of a file would be for good."""
    path = real_data / "videos" / "hands_kneading_dough.mp4"
    expected, _ = frames_of(path, hardware=False)
    absent = HWAccel("cuda", device="4096")
    monkeypatch.setattr(nvdec, "_device", lambda visible: (absent, ""))
    found, decoder = frames_of(path, hardware=True)
    assert decoder.startswith("software: ")
    assert_same(found, expected)


def test_this_machine_decodes_the_same_with_whatever_it_has(real_data: Path) -> None:
    """Where there is a GPU, this compares NVDEC with software."""
    path = real_data / "videos" / "hands_kneading_dough.mp4"
    found, decoder = frames_of(path, hardware=True)
    assert decoder == "NVDEC" or decoder.startswith("software: ")
    assert_same(found, frames_of(path, hardware=False)[0])


def test_it_is_the_leased_gpu_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert nvdec.find("h264") == (None, "this step has no GPU")


def test_codecs_that_may_round_differently_are_left_to_software(real_data: Path) -> None:
    for name in ("odd/interlaced_mpeg2.ts", "odd/mjpeg.avi"):
        _, decoder = frames_of(real_data / name, hardware=True)
        assert "not decoded by every device to the same bits" in decoder


def test_the_device_opens_files_under_the_same_restrictions(
    real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(monkeypatch)
    frames_of(real_data / "videos" / "hands_kneading_dough.mp4", hardware=True)
    assert {id(o["hwaccel"]) for o in device.opened} >= {id(device)}
    assert all(o["options"] == containers._OPTIONS for o in device.opened)
    assert containers._OPTIONS["protocol_whitelist"] == "file"
