"""Files that `ego undistort` writes: pictures with their numbers and times, sound, the camera."""

from __future__ import annotations

import gc
import itertools
import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from ego_assets.media.decode import ClipFrames
from ego_assets.media.frame_index import index_frames
from ego_assets.media.video_writer import Sound, write_mp4
from ego_assets.operator import BadInputError, Frame, Intrinsics
from ego_assets.videos.calibration.undistorting import calibrated_camera, camera_of_row, undistort
from ego_assets.vision.lenses.undistorted import UndistortedView
from tests.support.fisheye import EQUIDISTANT, SIZE, bend_px, chessboard

GAPS = (1, 1, 3, 1, 2, 1, 1, 5, 1, 1)
"""Of the times of pictures, in thirtieths of a second: again and again."""
START_S = 2


def stamped(number: int) -> np.ndarray:
    """A chessboard with a number as ten squares below it, which a lens leaves where they are."""
    picture = chessboard().copy()
    for bit in range(10):
        left = 120 + 40 * bit
        picture[428:448, left : left + 20] = 250 if number >> bit & 1 else 5
    return picture


def number_of(picture: np.ndarray, view: UndistortedView) -> int:
    middles = [(120 + 40 * bit + 9.5, 437.5) for bit in range(10)]
    places = view.points(np.array(middles)).round().astype(int)
    return sum(int(picture[y, x].mean() > 128) << bit for bit, (x, y) in enumerate(places))


def write_video(path: Path, count: int = 24, *, sound: str | None = "aac") -> list[float]:
    """A video of variable rate that does not begin at 0, with a beep. Returns times of pictures."""
    ticks = np.concatenate([[0], np.cumsum(np.resize(GAPS, count - 1))]) + 30 * START_S
    with av.open(str(path), "w") as out:
        video: Any = out.add_stream("libx264", rate=30, options={"crf": "10", "g": "8"})
        (video.width, video.height), video.pix_fmt = SIZE, "yuv420p"
        video.codec_context.time_base = Fraction(1, 30)
        track: Any = out.add_stream(sound, rate=16000) if sound else None
        for number, tick in enumerate(ticks.tolist()):
            picture = av.VideoFrame.from_ndarray(stamped(number), format="rgb24")
            picture.pts, picture.time_base = tick, Fraction(1, 30)
            out.mux(video.encode(picture.reformat(format="yuv420p")))
        out.mux(video.encode())
        if track is not None:
            seconds = np.arange(16000 * int(ticks[-1] / 30 + 1)) / 16000
            beep = np.where(np.abs(seconds - START_S - 1.0) < 0.05, np.sin(seconds * 6000), 0)
            form = track.codec_context.format.name
            values = beep.astype(np.float32) if "flt" in form else (beep * 3e4).astype(np.int16)
            whole = av.AudioFrame.from_ndarray(values[None], format=form, layout="mono")
            whole.sample_rate, whole.pts = 16000, 0
            fifo = av.AudioFifo()
            fifo.write(whole)
            for part in fifo.read_many(1024):
                out.mux(track.encode(part))
            out.mux(track.encode())
    return ((ticks - ticks[0]) / 30).tolist()


def beep_s(path: Path) -> float:
    """When the beep is, since the first picture."""
    with av.open(str(path)) as source:
        track = source.streams.audio[0]
        levels = [
            (float(frame.pts * frame.time_base) + np.argmax(np.abs(values)) / frame.sample_rate)
            for frame in source.decode(track)
            if np.abs(values := frame.to_ndarray()[0].astype(float)).max()
            > (0.5 if "flt" in frame.format.name else 1.5e4)
        ]
    index = index_frames(path)
    return float(np.mean(levels)) - float(index.pts[0] * index.time_base)


def test_pictures_keep_numbers_and_times_and_lines_become_straight(tmp_path: Path) -> None:
    video = tmp_path / "walk.mov"
    times = write_video(video)
    done = undistort(video, tmp_path / "out", EQUIDISTANT)
    written = Path(done.video)
    assert (written.name, done.frames, done.left_out) == ("walk.mp4", 24, 0)
    view = UndistortedView.of(EQUIDISTANT, *SIZE)
    frames = list(ClipFrames(written, 0, 24).read())
    assert [number_of(f.image, view) for f in frames] == list(range(24))
    np.testing.assert_allclose([f.pts_s for f in frames], times, atol=1.1e-5)
    (first,) = ClipFrames(video, 0, 1).read()
    assert bend_px(first.image) > 3.0 and bend_px(frames[0].image) < 0.1
    with av.open(str(written)) as container:
        context = container.streams.video[0].codec_context
        told = context.colorspace, context.color_primaries, context.color_trc, context.color_range
        assert (context.name, [int(each) for each in told]) == ("h264", [1, 1, 1, 1])


def test_the_calibration_beside_it_is_that_of_the_new_camera(tmp_path: Path) -> None:
    video = tmp_path / "walk.mp4"
    write_video(video, 4, sound=None)
    done = undistort(video, tmp_path / "out", EQUIDISTANT, max_fov_deg=80)
    found = calibrated_camera(Path(done.video))
    camera = UndistortedView.of(EQUIDISTANT, *SIZE, 80).camera
    assert (found.model, found.distortion, found.source) == ("PINHOLE", (), "calibration_file")
    np.testing.assert_allclose(
        [found.fx, found.fy, found.cx, found.cy], [camera.fx, camera.fy, camera.cx, camera.cy]
    )
    assert done.fx == camera.fx and done.field_of_view_deg[0] == pytest.approx(80, abs=0.2)
    assert done.sound == "no sound"


def test_an_odd_side_gets_a_black_row_and_keeps_its_camera(tmp_path: Path) -> None:
    video, lens = tmp_path / "odd.mkv", Intrinsics("OPENCV", 90.0, 90.0, 50, 30, (-0.1, 0, 0, 0))
    with av.open(str(video), "w") as out:
        stream: Any = out.add_stream("ffv1", rate=30)
        stream.width, stream.height, stream.pix_fmt = 101, 61, "bgr0"
        shown = av.VideoFrame.from_ndarray(np.full((61, 101, 3), 200, np.uint8), format="rgb24")
        out.mux(stream.encode(shown.reformat(format="bgr0")))
        out.mux(stream.encode())
    done = undistort(video, tmp_path / "out", lens)
    said = json.loads(Path(done.calibration).read_text())
    camera = UndistortedView.of(lens, 101, 61).camera
    assert (said["width"], said["height"], said["fx"]) == (102, 62, camera.fx)
    assert calibrated_camera(Path(done.video)).fx == pytest.approx(camera.fx)


@pytest.mark.parametrize(("encoder", "codec"), [("aac", "aac"), ("libopus", "opus")])
def test_sound_is_copied_in_step(tmp_path: Path, encoder: str, codec: str) -> None:
    video = tmp_path / "walk.mkv"
    write_video(video, sound=encoder)
    done = undistort(video, tmp_path / "out", EQUIDISTANT)
    assert done.sound == f"sound copied ({codec})"
    assert beep_s(Path(done.video)) == pytest.approx(beep_s(video), abs=0.005)
    assert beep_s(video) == pytest.approx(1.0, abs=0.1)


def test_sound_is_not_asked_through_one_more_iterator_a_picture(tmp_path: Path) -> None:
    video = tmp_path / "walk.mkv"
    write_video(video)
    found: list[int] = []

    def frames() -> Iterator[tuple[float, np.ndarray]]:
        for frame in ClipFrames(video, 0, 24).read():
            yield frame.pts_s, frame.image
            found.append(sum(type(each) is itertools.chain for each in gc.get_objects()))

    write_mp4(tmp_path / "out.mp4", frames(), sound=Sound.of(video, START_S)[0])
    assert len(found) == 24 and found[-1] <= found[0] + 2


def test_sound_that_mp4_does_not_hold_is_left_out_and_told(tmp_path: Path) -> None:
    video = tmp_path / "walk.mkv"
    write_video(video, 4, sound="pcm_s16le")
    assert Sound.of(video, 0.0)[0] is None
    done = undistort(video, tmp_path / "out", EQUIDISTANT)
    assert done.sound == "sound left out: MP4 does not hold pcm_s16le"
    with av.open(done.video) as container:
        assert not container.streams.audio


def test_what_cannot_be_done_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    video, out = tmp_path / "walk.mp4", tmp_path / "out"
    write_video(video, 4, sound=None)
    with pytest.raises(BadInputError, match=r"no calibration.*put walk\.camera\.json beside it"):
        calibrated_camera(video)
    video.with_suffix(".camera.json").write_text('{"fx": 1}')
    with pytest.raises(BadInputError, match=r"walk\.camera\.json is no calibration"):
        calibrated_camera(video)
    with pytest.raises(BadInputError, match="pinhole already"):
        undistort(video, out, Intrinsics("PINHOLE", 300.0, 300.0, 320.0, 240.0))
    row = {"uri": "/raw/walk.mp4", "accepted": True, "intrinsics_source": "assumed_fov"}
    with pytest.raises(BadInputError, match=r"put one beside it.*ego run"):
        camera_of_row(row)
    refused = {"accepted": False, "reject_reason": "bad_calibration", "reject_detail": "fx is"}
    with pytest.raises(BadInputError, match="rejected: bad_calibration: fx is"):
        camera_of_row(row | refused)
    assert not out.exists()
    undistort(video, out, EQUIDISTANT)
    before = (out / "walk.mp4").read_bytes()
    with pytest.raises(FileExistsError, match="is there already"):
        undistort(video, out, EQUIDISTANT)
    assert (out / "walk.mp4").read_bytes() == before
    assert sorted(p.name for p in out.iterdir()) == ["walk.camera.json", "walk.mp4"]


@pytest.mark.parametrize(
    "name", ["WALK.MOV", "walk.camera.json", "walk.camera.yaml", "walk.footage.json", "Walk.mp4"]
)
def test_nothing_of_that_name_is_written_over(tmp_path: Path, name: str) -> None:
    video, out = tmp_path / "walk.mp4", tmp_path / "out"
    write_video(video, 4, sound=None)
    out.mkdir()
    (out / name).write_text("mine")
    with pytest.raises(FileExistsError, match=rf"{name} is there already"):
        undistort(video, out, EQUIDISTANT, footage={"person": "P7"})
    assert [(p.name, p.read_text()) for p in out.iterdir()] == [(name, "mine")]


def test_a_video_that_fails_leaves_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video, out = tmp_path / "walk.mp4", tmp_path / "out"
    write_video(video, 4, sound=None)
    (out / "other").mkdir(parents=True)

    def fail(source: ClipFrames) -> Iterator[Frame]:
        yield from itertools.islice(read(source), 2)
        raise BadInputError("it does not decode")

    read = ClipFrames.read
    monkeypatch.setattr(ClipFrames, "read", fail)
    with pytest.raises(BadInputError, match="does not decode"):
        undistort(video, out, EQUIDISTANT, footage={"person": "P7"})
    assert [path.name for path in out.iterdir()] == ["other"]
