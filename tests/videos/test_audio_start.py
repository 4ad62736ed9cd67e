"""When a player begins the audio, beside the pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

from ego_assets.videos.inspection import probe_video
from ego_assets.videos.settings import ManifestSettings
from tests.support.timed_video import write_cases


@pytest.mark.parametrize("name", ["late_video.mp4", "late_audio.mp4", "wrap.ts", "b_frames.mp4"])
def test_the_audio_begins_where_a_player_begins_it(tmp_path: Path, name: str) -> None:
    expected = write_cases(tmp_path)[name].audio_s
    row = probe_video(tmp_path / name, ManifestSettings())
    assert row["accepted"]
    assert row["audio_start_s"] == pytest.approx(expected, abs=1e-3)


def test_the_delay_of_an_encoder_is_not_heard(real_data: Path) -> None:
    row = probe_video(real_data / "videos" / "hands_blocks_topdown.mp4", ManifestSettings())
    assert row["audio_codec"] == "aac"
    assert row["audio_start_s"] == pytest.approx(0.0, abs=0.025)
