"""From the raw file to the rows: every row's frame is the picture's own number."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from ego_assets.engine.runner import run_stage
from ego_assets.media.frame_index import index_frames
from resources.ledger import State
from tests.engine.raw_bench import RawBench
from tests.engine.stage_bench import spec_for
from tests.support.numbered_video import numbered, with_hole, without_packets, write_numbered

NUMBERING = "tests.engine.numbering_backends:NumberingEstimator"
FASTSTART = {"movflags": "faststart"}


@pytest.fixture
def bench(tmp_path: Path) -> RawBench:
    return RawBench(tmp_path, videos=0)


def pictures(bench: RawBench, **settings: Any) -> dict[int, int]:
    """{frame: the number of its picture} of all rows, once the stages have run."""
    bench.run(stages=("probe",), **settings)
    bench.run(stages=("split",))
    report = bench.run(stages=("clip",), backend=NUMBERING)["clip"]
    assert report.failed == 0
    return {r["start_frame"]: int(r["displacement_px"]) for r in bench.rows()["object_movements"]}


def test_no_row_is_made_of_a_concealed_picture(bench: RawBench) -> None:
    path = bench.raw / "a.mp4"
    with_hole(write_numbered(path, options={"g": "15"}, mux=FASTSTART), after=b"mdat")
    assert pictures(bench) == {n: n for n in range(90) if n not in range(35, 45)}
    assert bench.video("a.mp4")["damaged_frames"] == [[35, 45]]
    (clip,) = bench.rows()["clips"]
    assert clip["damaged_frames"] == [[35, 45]]
    assert bench.counts(State.DONE) == [1, 1, 1]


def test_rows_that_fill_a_gap_of_damage_are_dropped(bench: RawBench) -> None:
    path = bench.raw / "a.mp4"
    with_hole(write_numbered(path, options={"g": "15"}, mux=FASTSTART), after=b"mdat")
    bench.run(stages=("probe",))
    bench.run(stages=("split",))
    spec = spec_for(
        "scene_reconstruction",
        bench.lake,
        bench.ledger,
        bench.shards[0],
        backend="tests.engine.numbering_backends:FillingDetector",
        operator_version="1",
    )
    assert run_stage(spec, workers=1, isolate=False).failed == 0
    rows = bench.rows()["scene_reconstruction"]
    assert [r["frame_index"] for r in rows] == [n for n in range(90) if n not in range(35, 45)]


def test_rows_behind_lost_packets_have_their_own_pictures(bench: RawBench) -> None:
    whole = write_numbered(bench.root / "a.ts", 60)
    without_packets(whole, bench.raw / "a.ts", {20, 21, 22})
    shown = pictures(bench)
    times = index_frames(bench.raw / "a.ts").pts_s
    assert 45 <= len(shown) < len(times) == 57
    assert shown == {frame: round(times[frame] * 30) for frame in shown}


def test_a_long_hole_costs_no_clip(bench: RawBench) -> None:
    path = write_numbered(bench.raw / "a.mp4", 240, options={"g": "15"}, mux=FASTSTART)
    with_hole(path, 0.4, 0.7, after=b"mdat")
    shown = pictures(bench)
    assert all(frame == number for frame, number in shown.items())
    assert bench.counts(State.QUARANTINED) == [0, 0, 0]
    assert [c["split_reason"] for c in bench.rows()["clips"]] == ["start", "damage"]


def two_videos(path: Path) -> None:
    """A proxy of 160 x 120 whose pictures count on from 100, and the video of 320 x 240."""
    with av.open(str(path), "w") as container:
        streams: list[Any] = [container.add_stream("libx264", rate=30) for _ in range(2)]
        for stream, size in zip(streams, [(160, 120), (320, 240)], strict=True):
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for place in range(30):
            for stream, first in zip(streams, (100, 0), strict=True):
                picture = av.VideoFrame.from_ndarray(numbered(first + place), format="rgb24")
                picture.pts, picture.time_base = place, Fraction(1, 30)
                small = picture.reformat(stream.width, stream.height, "yuv420p")
                container.mux(stream.encode(small))
        for stream in streams:
            container.mux(stream.encode())


@pytest.mark.parametrize(("chosen", "first", "width"), [(None, 0, 320), (0, 100, 160)])
def test_every_stage_reads_the_stream_that_was_chosen(
    bench: RawBench, chosen: int | None, first: int, width: int
) -> None:
    two_videos(bench.raw / "a.mp4")
    shown = pictures(bench, settings={"video_stream": chosen})
    assert shown == {n: first + n for n in range(30)}
    video = bench.video("a.mp4")
    assert (video["video_stream_index"], video["width_px"]) == (chosen if chosen == 0 else 1, width)
    rows = bench.rows()["object_movements"]
    assert {int(r["path_length"]) for r in rows} == {width}


def test_another_stream_is_another_result(bench: RawBench) -> None:
    two_videos(bench.raw / "a.mp4")
    pictures(bench)
    assert pictures(bench, settings={"video_stream": 0})[0] == 100


def test_a_file_without_the_chosen_stream_is_rejected(bench: RawBench) -> None:
    write_numbered(bench.raw / "a.mp4", 5)
    bench.run(stages=("probe",), settings={"video_stream": 3})
    video = bench.video("a.mp4")
    assert (video["accepted"], video["reject_reason"]) == (False, "no_such_stream")
    assert "there is 0: set one of these" in video["reject_detail"]
