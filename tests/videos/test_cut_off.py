"""A file that was cut off says how much of it is missing; a whole one says nothing."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import pytest

from ego_assets.catalog import TABLES
from ego_assets.media.frame_index import index_frames
from ego_assets.quality.finding import Evidence
from ego_assets.quality.settings import ProbeSettings
from ego_assets.videos.inspection import probe_video
from ego_assets.videos.probes import recordings_are_not_cut_off
from ego_assets.videos.settings import ManifestSettings
from tests.support.numbered_video import X264, lies, write_numbered

PLAIN = {"g": "15", "bf": "0"}


def cut(path: Path, share: float = 0.7) -> Path:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


def probe(path: Path) -> dict[str, object]:
    return probe_video(path, ManifestSettings())


@pytest.mark.parametrize("options", [X264, PLAIN])
@pytest.mark.parametrize("share", [0.5, 0.7, 0.71, 0.73, 0.75, 0.9])
def test_a_cut_off_mp4_counts_what_is_missing(
    tmp_path: Path, options: dict[str, str], share: float
) -> None:
    mux = {"movflags": "faststart"}
    path = cut(write_numbered(tmp_path / "a.mp4", 90, options=options, mux=mux), share)
    row, index = probe(path), index_frames(path)
    assert row["accepted"]
    assert row["frame_count"] == len(index) < 90
    assert row["promised_frame_count"] == 90
    assert row["missing_s"] == pytest.approx(3.0 - len(index) / 30, abs=0.05)
    assert not row["is_variable_rate"]
    assert lies(path) == []


@pytest.mark.parametrize(
    ("name", "mux", "counts"),
    [
        ("a.mkv", {}, False),
        ("a.mov", {"movflags": "faststart"}, True),
        ("a.avi", {}, True),
        ("a.webm", {}, False),
    ],
)
def test_other_containers_say_what_is_missing(
    tmp_path: Path, name: str, mux: dict[str, str], counts: bool
) -> None:
    codec = "libvpx-vp9" if name.endswith("webm") else "libx264"
    options = {"deadline": "realtime", "cpu-used": "8"} if codec == "libvpx-vp9" else PLAIN
    path = tmp_path / name
    whole = probe(write_numbered(path, 90, codec=codec, options=options, mux=mux))
    assert (whole["promised_frame_count"], whole["missing_s"]) == (None, None)
    row = probe(cut(path))
    there = row["frame_count"]
    assert isinstance(there, int)
    assert there < 90
    assert row["promised_frame_count"] == (90 if counts else None)
    assert row["missing_s"] == pytest.approx(3.0 - there / 30, abs=0.1)
    assert not row["is_variable_rate"]


def test_what_promises_nothing_is_taken_as_it_is(tmp_path: Path) -> None:
    stream = cut(write_numbered(tmp_path / "a.ts", 90, options=X264))
    live = write_numbered(tmp_path / "live.mkv", 90, options=PLAIN, mux={"live": "1"})
    for path in (stream, cut(live)):
        row = probe(path)
        assert (row["accepted"], row["missing_s"], row["promised_frame_count"]) == (
            True,
            None,
            None,
        )
        assert not row["is_variable_rate"]


def test_wrong_counts_of_whole_files_are_no_alarm(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "a.avi", 60, codec="mpeg4", options={"g": "15"})
    data = bytearray(path.read_bytes())
    for box, at in ((b"strh", 40), (b"avih", 24)):
        struct.pack_into("<I", data, data.find(box) + at, 61)
    path.write_bytes(data)
    assert probe(path)["missing_s"] is None


def test_frames_that_an_edit_list_hides_are_not_missing(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_numbered(tmp_path / "b.mp4", 60, options={"g": "60", "bf": "0"})
    mux = {"avoid_negative_ts": "disabled", "movflags": "faststart"}
    with av.open(str(tmp_path / "b.mp4")) as given, av.open(str(path), "w", options=mux) as made:
        stream = made.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.size:
                early = round(10 / 30 / packet.time_base)
                packet.pts, packet.dts = packet.pts - early, packet.dts - early
                packet.stream = stream
                made.mux(packet)
    row = probe(path)
    assert (row["frame_count"], row["missing_s"]) == (50, None)
    row = probe(cut(path))
    assert isinstance(row["frame_count"], int)
    assert row["promised_frame_count"] == 50


def test_a_check_tells_the_file_and_the_figures(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "a.mp4", 90, mux={"movflags": "faststart"})
    base = {"video_id": "v", "shard": "s", "byte_size": 1, "sha256": "0"}
    rows = [base | {"uri": "/raw/whole.mp4"} | probe(path)]
    rows.append(base | {"uri": "/raw/truncated tail.mp4"} | probe(cut(path)))

    def ask(count: int) -> tuple[bool, str]:
        table = TABLES["video_manifest"].from_rows(rows[:count])
        evidence = Evidence("video_manifest", {"video_manifest": table})
        finding = recordings_are_not_cut_off[0](evidence, ProbeSettings())
        return finding.passed, finding.sentence

    assert ask(1)[0]
    passed, sentence = ask(2)
    there = rows[1]["frame_count"]
    assert not passed
    assert sentence.startswith("truncated tail.mp4 ends after ")
    assert f"({there} of 90 frames)" in sentence
