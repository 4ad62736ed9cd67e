"""Every odd file ends accepted, or rejected for the right reason; none is forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest

from ego_assets.videos.inspection import probe_video
from ego_assets.videos.settings import ManifestSettings

ACCEPTED = None
EXPECTED = {
    "all_black.mp4": ACCEPTED,
    "audio_only.mp4": "no_video",
    "av1.mp4": ACCEPTED,
    "bitflips_payload.mp4": ACCEPTED,
    "decord_corrupted.mp4": ACCEPTED,
    "fps_120.mp4": ACCEPTED,
    "hevc_10bit.mp4": ACCEPTED,
    "interlaced_mpeg2.ts": ACCEPTED,
    "late_start_pts.ts": ACCEPTED,
    "mjpeg.avi": ACCEPTED,
    "name with spaces ünï ‘quote’.mp4": ACCEPTED,
    "no_audio.mp4": ACCEPTED,
    "non_square_pixels.mp4": ACCEPTED,
    "odd_size_641x359_yuv444.mp4": ACCEPTED,
    "one_frame.mp4": ACCEPTED,
    "png_image_named.mp4": "still_image",
    "random_bytes.mp4": "unreadable",
    "rotated_180_metadata.mp4": ACCEPTED,
    "rotated_90_metadata.mp4": ACCEPTED,
    "text_named.mp4": "not_media",
    "tiny_32x18.mp4": ACCEPTED,
    "torchcodec_av1_video.mkv": ACCEPTED,
    "torchcodec_h265_10bits.mp4": ACCEPTED,
    "truncated_faststart_60pct.mp4": ACCEPTED,
    "truncated_no_moov.mp4": "truncated",
    "vfr.mp4": ACCEPTED,
    "webm_named.mp4": ACCEPTED,
    "zero_bytes.mp4": "empty",
}


def test_the_list_is_complete(real_data: Path) -> None:
    assert {p.name for p in (real_data / "odd").iterdir()} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_an_odd_file_ends_as_it_should(real_data: Path, name: str) -> None:
    row = probe_video(real_data / "odd" / name, ManifestSettings())
    assert row["reject_reason"] == EXPECTED[name]
    assert row["accepted"] is (EXPECTED[name] is ACCEPTED)
    assert row["accepted"] or row["reject_detail"]
