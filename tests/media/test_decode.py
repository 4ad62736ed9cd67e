"""Frames are the right ones, wherever decoding begins, and hostile files reach nothing."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest

from ego_assets.media import containers
from ego_assets.media.containers import open_media
from ego_assets.media.decode import ClipFrames
from ego_assets.media.frame_index import index_frames, keyframe_pictures
from ego_assets.operator import BadInputError
from tests.engine.raw_bench import write_video

GOOD = [
    "videos/ego_table_objects.mp4",
    "videos/pancake_flip_audio.mkv",
    "videos/telescope_multistream.mp4",
    "odd/vfr.mp4",
    "odd/late_start_pts.ts",
    "odd/interlaced_mpeg2.ts",
    "odd/fps_120.mp4",
    "odd/hevc_10bit.mp4",
    "odd/mjpeg.avi",
    "odd/av1.mp4",
    "odd/webm_named.mp4",
    "odd/odd_size_641x359_yuv444.mp4",
    "odd/one_frame.mp4",
]


def frames_of(path: Path, start: int = 0, end: int | None = None, **options):  # type: ignore[no-untyped-def]
    end = len(index_frames(path)) if end is None else end
    return list(ClipFrames(path, start, end).read(**{"max_side_px": 160} | options))


@pytest.mark.parametrize("name", GOOD)
def test_the_index_agrees_with_decoding_everything(real_data: Path, name: str) -> None:
    path = real_data / name
    index = index_frames(path)
    with open_media(path) as container:
        stream = container.streams[index.stream_index]
        decoded = [f.pts for f in container.decode(stream)]  # type: ignore[union-attr]
    assert index.pts.tolist() == decoded
    assert [f.index for f in frames_of(path)] == list(range(len(index)))
    assert index.pts_s[0] == 0


@pytest.mark.parametrize("name", GOOD)
def test_a_stretch_shows_what_the_whole_shows(real_data: Path, name: str) -> None:
    path = real_data / name
    whole = {f.index: f for f in frames_of(path)}
    count = len(whole)
    for start in sorted({0, count // 3, count // 2, count - 1}):
        part = frames_of(path, start, min(start + 5, count))
        assert [f.index for f in part] == list(range(start, min(start + 5, count)))
        for frame in part:
            assert np.array_equal(frame.image, whole[frame.index].image)
            assert frame.pts_s == whole[frame.index].pts_s


def test_indices_pick_frames(real_data: Path) -> None:
    path = real_data / "videos" / "hands_blocks_topdown.mp4"
    assert [f.index for f in frames_of(path, 10, 200, indices=[150, 12, 40])] == [12, 40, 150]
    assert frames_of(path, 10, 200, indices=[]) == []


def test_frames_are_shrunk_never_enlarged(real_data: Path) -> None:
    path = real_data / "odd" / "odd_size_641x359_yuv444.mp4"
    small = frames_of(path, 0, 1, max_side_px=320)[0]
    assert small.image.shape == (179, 320, 3)
    assert small.scale == pytest.approx(320 / 641)
    assert frames_of(path, 0, 1, max_side_px=5000)[0].image.shape == (359, 641, 3)
    assert small.image.flags["C_CONTIGUOUS"]


@pytest.mark.parametrize(("turn", "quarter_turns"), [(90, 1), (180, 2)])
def test_rotation_in_the_metadata_is_applied(
    real_data: Path, turn: int, quarter_turns: int
) -> None:
    path = real_data / "odd" / f"rotated_{turn}_metadata.mp4"
    with av.open(str(path)) as container:
        stored = next(container.decode(video=0))
        # What ffmpeg's own display matrix says, counter-clockwise.
        assert stored.rotation % 360 == turn
        expected = np.rot90(stored.to_ndarray(format="rgb24"), quarter_turns)
    frames = ClipFrames(path, 0, 1)
    upright = next(frames.read())
    assert (frames.height, frames.width) == expected.shape[:2]
    assert np.array_equal(upright.image, expected)


def test_the_multistream_file_gives_its_main_video(real_data: Path) -> None:
    index = index_frames(real_data / "videos" / "telescope_multistream.mp4")
    assert (index.width, index.height) == (480, 270)


def test_damaged_frames_are_left_out_and_the_others_keep_their_indices(real_data: Path) -> None:
    path = real_data / "odd" / "bitflips_payload.mp4"
    index = index_frames(path)
    good = frames_of(path)
    assert 0 < len(good) < len(index)
    assert [f.pts_s for f in good] == [index.pts_s[f.index] for f in good]
    source = ClipFrames(path, 0, len(index))
    assert [source.time_of(f) for f in range(len(index))] == index.pts_s.tolist()
    first = next(f for f in range(len(index)) if f not in {g.index for g in good})
    with pytest.raises(BadInputError, match="none of the frames"):
        frames_of(path, first, first + 1)


def test_all_whole_frames_of_a_file_that_was_cut_off_are_there(real_data: Path) -> None:
    path = real_data / "odd" / "truncated_faststart_60pct.mp4"
    index = index_frames(path)
    assert [f.index for f in frames_of(path)] == list(range(len(index)))


def test_decoding_runs_ahead_by_a_bounded_number_of_bytes(real_data: Path) -> None:
    path = real_data / "videos" / "hands_blocks_topdown.mp4"
    frames = ClipFrames(path, 0, 200, max_bytes_in_flight=12 * 2**20)
    made: list[int] = []
    original = frames._frame
    frames._frame = lambda *a: (made.append(a[1]), original(*a))[1]  # type: ignore[method-assign]
    reader = frames.read()
    next(reader)
    ahead = -1
    while len(made) != ahead or len(made) < 2:  # until it rests
        ahead = len(made)
        time.sleep(0.5)
    # 12 MiB are four pictures of 1280 x 720, with those in the hands of both threads.
    assert 2 <= len(made) <= 6
    reader.close()


def test_a_reader_who_stops_early_leaves_no_thread(real_data: Path) -> None:
    before = threading.active_count()
    for _ in range(5):
        reader = ClipFrames(real_data / "videos" / "hands_blocks_topdown.mp4", 0, 200).read()
        next(reader)
        reader.close()
    assert threading.active_count() == before


def test_a_stretch_outside_the_video_is_refused(real_data: Path) -> None:
    path = real_data / "odd" / "one_frame.mp4"
    with pytest.raises(BadInputError, match="run video_manifest again"):
        ClipFrames(path, 0, 2)


@pytest.fixture
def listener():  # type: ignore[no-untyped-def]
    """A server that counts who connects."""
    calls: list[bytes] = []
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(0.1)
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            try:
                connection, _ = server.accept()
            except TimeoutError:
                continue
            calls.append(connection.recv(1000))
            connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    yield server.getsockname()[1], calls
    over.set()
    thread.join()
    server.close()


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{target}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile '{target}'\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
    "m=video {port} RTP/AVP 96\n",
    "dash": "<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011'><Period>"
    "<AdaptationSet><Representation><BaseURL>{target}</BaseURL></Representation>"
    "</AdaptationSet></Period></MPD>",
    "subtitle": "#!AMR\n{target}\n",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("suffix", [".mp4", ".m3u8", ".mkv"])
def test_a_playlist_reads_no_other_file_and_no_server(
    tmp_path: Path, real_data: Path, listener, kind: str, remote: bool, suffix: str
) -> None:  # type: ignore[no-untyped-def]
    port, calls = listener
    secret = tmp_path / "secret.mp4"
    secret.write_bytes((real_data / "odd" / "one_frame.mp4").read_bytes())
    target = f"http://127.0.0.1:{port}/x.mp4" if remote else str(secret)
    trap = tmp_path / f"trap{suffix}"
    trap.write_text(PLAYLISTS[kind].format(target=target, port=port))
    with pytest.raises(BadInputError):
        index_frames(trap)
    time.sleep(0.15)
    assert calls == []


@pytest.mark.parametrize("name", ["concat:{secret}", "http://127.0.0.1:{port}/a.mp4", "pipe:0"])
def test_a_file_name_is_never_a_protocol(
    tmp_path: Path, real_data: Path, listener, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    port, calls = listener
    monkeypatch.chdir(tmp_path)
    Path("secret.mp4").write_bytes((real_data / "odd" / "one_frame.mp4").read_bytes())
    with pytest.raises((BadInputError, FileNotFoundError)):
        open_media(Path(name.format(secret="secret.mp4", port=port)))  # pragma: allowlist secret
    assert calls == []


def test_a_picture_over_the_limit_is_not_made(
    real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the header said: a stream may change its size half way through."""
    path = real_data / "odd" / "hevc_10bit.mp4"
    assert frames_of(path, 0, 1)
    monkeypatch.setattr(containers, "MAX_PICTURE_PIXELS", 1000)
    # Some decoders call it bad data, some want of memory.
    with pytest.raises((BadInputError, MemoryError)):
        frames_of(path, 0, 1)


def test_a_file_with_a_flood_of_streams_is_cut_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "flood.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("mpeg4", rate=10) for _ in range(100)]
        for stream in streams:
            stream.width = stream.height = 16
            stream.pix_fmt = "yuv420p"
        picture = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8))
        for stream in streams:
            container.mux(stream.encode(picture))
            container.mux(stream.encode())
    try:
        with open_media(path) as container:
            assert len(container.streams) <= 64
    except BadInputError as refused:
        assert "known format" in str(refused)


def test_damage_is_hidden_in_the_same_way_every_time(real_data: Path) -> None:
    """With several threads at work it depends on which is ahead."""
    path = real_data / "odd" / "bitflips_payload.mp4"

    def pictures(start: int) -> list[bytes]:
        frames = ClipFrames(path, start, len(index_frames(path))).read(max_side_px=320)
        return [f.image.tobytes() for f in frames]

    first = pictures(20)
    assert len(first) > 15
    for _ in range(4):
        assert pictures(20) == first
    assert pictures(30) == first[10:], "nor on where reading begins"


def test_a_file_that_cannot_be_read_is_not_a_damaged_one(tmp_path: Path, real_data: Path) -> None:
    """It vanishes between two looks: nobody takes that for a short video, or a bad one."""
    path = tmp_path / "a.mp4"
    shutil.copy(real_data / "videos" / "ego_dinner_table.mp4", path)
    frames, index = ClipFrames(path, 0, 5), index_frames(path)
    path.unlink()
    for read in (
        lambda: list(frames.read()),
        lambda: list(frames.read_pictures()),
        lambda: list(keyframe_pictures(path, index)),
        lambda: open_media(path),
    ):
        with pytest.raises(FileNotFoundError, match=r"a\.mp4") as raised:
            read()
        assert not isinstance(raised.value, av.FFmpegError)


@pytest.mark.parametrize("number", [errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EIO])
def test_what_libav_says_of_storage_is_no_damage(
    tmp_path: Path, real_data: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a network file system answers while its server is away; EIO only if it is so."""
    path = tmp_path / "a.mp4"
    shutil.copy(real_data / "videos" / "ego_dinner_table.mp4", path)
    error = av.error.FFmpegError(number, os.strerror(number), str(path))
    error = next(
        c(number, "x", str(path)) for c in (type(error), av.error.OSError) if issubclass(c, OSError)
    )
    if number != errno.EIO:
        with pytest.raises(OSError, match=os.strerror(number)):
            containers.unless_of_storage(error, path)
        return
    containers.must_be_damage(error, path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        containers.must_be_damage(error, path)


def test_the_index_of_a_file_that_was_replaced_with_size_and_time_kept_is_read_again(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, frames=20)
    before = path.stat()
    assert len(index_frames(path)) == 20
    write_video(path, frames=12)
    path.write_bytes(path.read_bytes().ljust(before.st_size, b"\0"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert len(index_frames(path)) == 12
