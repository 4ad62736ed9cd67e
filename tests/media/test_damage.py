"""Pictures that a decoder makes up where a stream is damaged are left out, and told of."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from ego_assets.catalog import TABLES
from ego_assets.media.damage.av1_order import Av1Order
from ego_assets.media.damage.spoilt import REORDERED, known_after, misplaced, spoilt_by, stretches
from ego_assets.media.decode import ClipFrames
from ego_assets.media.frame_index import index_frames
from ego_assets.operator import BadInputError
from ego_assets.quality.finding import Evidence
from ego_assets.quality.settings import ProbeSettings
from ego_assets.videos.clips import ClipSplitter, boundaries, split_scenes
from ego_assets.videos.inspection import probe_video
from ego_assets.videos.probes import clips_are_not_damaged, videos_are_not_damaged
from ego_assets.videos.settings import ClipSettings, ManifestSettings
from ego_assets.videos.transitions.gradual import Transition
from tests.support.numbered_video import (
    lies,
    number_of,
    numbered,
    rewritten,
    with_hole,
    without_packets,
    write_numbered,
)

FASTSTART = {"movflags": "faststart"}
OPEN = {"g": "15", "bf": "2", "x264-params": "open-gop=1"}
X265 = "log-level=none:keyint=15:min-keyint=15:frame-threads=1"
HOLE = set(range(35, 45))
"""Frames of `hole_in_the_middle.mp4` that no whole packet leads to."""


@pytest.fixture(scope="module")
def hole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Zeros over packets in the middle: libav shows picture 32 for frames 39, 41, 43 and 44."""
    path = tmp_path_factory.mktemp("raw") / "hole_in_the_middle.mp4"
    return with_hole(write_numbered(path, options={"g": "15"}, mux=FASTSTART), after=b"mdat")


def test_the_pictures_of_a_hole_are_left_out_and_no_other(hole: Path) -> None:
    frames = ClipFrames(hole, 0, 90)
    shown = {f.index: number_of(f.image) for f in frames.read()}
    assert shown == {n: n for n in range(90) if n not in HOLE}
    assert set(frames.damaged) == HOLE
    assert frames.time_of(40) == pytest.approx(40 / 30), "the timeline keeps them"


@pytest.mark.parametrize(("start", "end"), [(33, 50), (36, 46), (44, 60), (45, 46), (0, 35)])
def test_what_is_damaged_does_not_depend_on_where_reading_begins(
    hole: Path, start: int, end: int
) -> None:
    frames = ClipFrames(hole, start, end)
    assert [f.index for f in frames.read()] == [n for n in range(start, end) if n not in HOLE]
    assert frames.damaged == sorted(HOLE.intersection(range(start, end)))


def test_single_frames_of_a_damaged_file_are_true(hole: Path) -> None:
    frames = ClipFrames(hole, 0, 90)
    for wanted in ([44, 45, 50], [10, 34, 41], [33]):
        shown = [(f.index, number_of(f.image)) for f in frames.read(indices=wanted)]
        assert shown == [(n, n) for n in wanted if n not in HOLE]


@pytest.mark.parametrize("ending", ["mp4", "ts", "mkv"])
@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", {"g": "15", "bf": "0"}),
        ("libx264", {"g": "15", "bf": "2"}),
        ("libx264", OPEN),
        ("libx265", {"x265-params": f"{X265}:open-gop=0"}),
        ("libx265", {"x265-params": f"{X265}:open-gop=1"}),
    ],
)
def test_lost_packets_take_along_what_refers_to_them(
    tmp_path: Path, codec: str, options: dict[str, str], ending: str
) -> None:
    whole = write_numbered(tmp_path / f"a.{ending}", 60, codec=codec, options=options)
    assert lies(whole) == []
    assert index_frames(whole).broken == frozenset()
    lossy = without_packets(whole, tmp_path / f"b.{ending}", {20, 21, 22, 23})
    assert lies(lossy) == []
    read = [f.index for f in ClipFrames(lossy, 0, len(index_frames(lossy))).read(max_side_px=32)]
    assert len(read) >= 45, "no more than the group of the lost packets"


@pytest.mark.parametrize("ending", ["mp4", "mkv", "webm"])
@pytest.mark.parametrize("structure", ["1", "2"], ids=["in order", "pyramid"])
@pytest.mark.parametrize("lost", [{20, 21, 22, 23}, {20}, {33, 34}])
def test_lost_packets_of_av1_are_known_by_the_order_of_pictures(
    tmp_path: Path, ending: str, structure: str, lost: set[int]
) -> None:
    options = {"preset": "12", "g": "15", "svtav1-params": f"pred-struct={structure}"}
    whole = write_numbered(tmp_path / f"a.{ending}", 60, codec="libsvtav1", options=options)
    assert index_frames(whole).broken == frozenset()
    lossy = without_packets(whole, tmp_path / f"b.{ending}", lost)
    index = index_frames(lossy)
    (broken,) = index.broken
    behind = int(min(index.keys[index.keys > broken]))
    assert (broken, index.spoilt) == (min(lost), frozenset(range(broken, behind)))
    read = [f.index for f in ClipFrames(lossy, 0, len(index)).read(max_side_px=32)]
    assert read == [n for n in range(len(index)) if n not in index.spoilt]


def test_packets_of_av1_are_made_of_whole_units(tmp_path: Path) -> None:
    options = {"preset": "12", "g": "15"}
    path = write_numbered(tmp_path / "a.mp4", 20, codec="libsvtav1", options=options)
    with av.open(str(path)) as container:
        packets = [bytes(p) for p in container.demux(video=0) if p.size]
    for packet in packets:
        assert Av1Order.is_whole(packet)
        assert not Av1Order.is_whole(packet[:-1])
        assert not Av1Order.is_whole(bytes([packet[0] | 0x80]) + packet[1:])
    assert Av1Order.is_whole(b"")


def in_layers(header: bytes) -> bytes:
    """A sequence header of AV1 as a unit, with one operating point more."""
    bits = "".join(f"{byte:08b}" for byte in header[2:])
    assert bits[4:12] == "0" * 8, "it says no times, and has one operating point"
    bits = bits[:7] + "00001" + "000100000011" + "00000" + bits[12:]
    bits += "0" * (-len(bits) % 8)
    payload = int(bits, 2).to_bytes(len(bits) // 8, "big")
    return bytes([header[0], len(payload)]) + payload


@pytest.mark.parametrize("is_layered", [False, True])
def test_layers_of_av1_that_were_left_out_are_no_damage(tmp_path: Path, is_layered: bool) -> None:
    options = {"preset": "12", "g": "15", "svtav1-params": "pred-struct=1"}
    path = write_numbered(tmp_path / "a.mp4", 30, codec="libsvtav1", options=options)
    with av.open(str(path)) as container:
        packets = [(bytes(p), p.is_keyframe) for p in container.demux(video=0) if p.size]
    order, found = Av1Order(b""), []
    for data, is_key in packets[:4] + packets[5:]:
        if is_key and is_layered:
            end = 2 + data[1]
            data = in_layers(data[:end]) + data[end:]
            assert order.is_whole(data)
        found.append(order.follows(data, is_key, is_late=True))
    assert [n for n, follows in enumerate(found) if not follows] == ([] if is_layered else [4])


OTHERS = {
    "mpeg4.mp4": ("mpeg4", {"g": "15"}),
    "mpeg4_b.mp4": ("mpeg4", {"g": "15", "bf": "2"}),
    "av1.mp4": ("libsvtav1", {"preset": "12", "g": "15"}),
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_other_decoders_tell_of_packets_whose_bytes_are_others(
    tmp_path: Path, name: str, seed: int
) -> None:
    codec, options = OTHERS[name]
    path = write_numbered(tmp_path / name, 60, codec=codec, options=options)
    with av.open(str(path)) as container:
        packet = [p for p in container.demux(video=0) if p.size][20]
        place, size = packet.pos, packet.size
    data = bytearray(path.read_bytes())
    data[place + size // 2 : place + size] = random.Random(seed).randbytes(size - size // 2)
    path.write_bytes(data)
    frames = ClipFrames(path, 0, 60)
    read = [f.index for f in frames.read(max_side_px=32)]
    assert lies(path) == []
    assert read[:15] == [*range(15)] and read[-28:] == [*range(32, 60)]
    assert len(set(frames.damaged) & set(range(15, 32))) >= 8
    assert not set(read) & set(frames.damaged)


@pytest.mark.parametrize(
    ("codec", "bframes", "first"),
    [
        *(("mpeg4", "0", first) for first in (0.4, 0.5, 0.6)),
        *(("mpeg4", "2", first) for first in (0.4, 0.5, 0.7)),
        *(("libx264", "0", first) for first in (0.5, 0.6)),
    ],
)
def test_behind_a_hole_in_an_avi_times_are_not_known(
    tmp_path: Path, codec: str, bframes: str, first: float
) -> None:
    """AVI counts packets, and some are gone; what is shown after others gets its time from them."""
    options = {"g": "15", "bf": bframes}
    path = write_numbered(tmp_path / "a.avi", 60, codec=codec, options=options)
    assert index_frames(path).broken == frozenset()
    with_hole(path, first, first + 0.05)
    index = index_frames(path)
    assert 45 < len(index) < 60
    assert lies(path) == []
    read = [f.index for f in ClipFrames(path, 0, len(index)).read(max_side_px=32)]
    assert read == [*range(len(read))] and 3 < len(read) < 45


@pytest.mark.parametrize(("codec", "bframes"), [("libx264", "0"), ("libx264", "2"), ("mpeg4", "2")])
def test_a_whole_avi_is_whole_however_its_pictures_are_reordered(
    tmp_path: Path, codec: str, bframes: str
) -> None:
    options = {"g": "15", "bf": bframes}
    path = write_numbered(tmp_path / "a.avi", 60, codec=codec, options=options)
    assert index_frames(path).broken == frozenset()


@pytest.mark.parametrize("lacks", ["all but keyframes", "some"])
def test_an_index_of_an_avi_that_lacks_entries_is_no_damage(tmp_path: Path, lacks: str) -> None:
    path = write_numbered(tmp_path / "a.avi", 60, codec="mpeg4", options={"g": "15"})
    data = path.read_bytes()
    place = data.rindex(b"idx1") + 4
    entries = [data[at : at + 16] for at in range(place + 4, place + 4 + 16 * 60, 16)]
    is_key = [bool(entry[4] & 0x10) for entry in entries]
    assert sum(is_key) == 4
    if lacks == "some":
        left = entries[:10] + entries[20:]
    else:
        left = [entry for entry, key in zip(entries, is_key, strict=True) if key]
    size = (16 * len(left)).to_bytes(4, "little")
    path.write_bytes(data[:place] + size + b"".join(left))
    index = index_frames(path)
    assert (len(index), index.broken) == (60, frozenset())


def test_lost_packets_of_vp9_are_noticed_by_its_decoder(tmp_path: Path) -> None:
    """Its tables of probabilities go from picture to picture, unless an encoder says otherwise. The
    first picture behind the loss is often decoded all the same."""
    options = {"deadline": "realtime", "cpu-used": "8", "g": "15"}
    whole = write_numbered(tmp_path / "a.mp4", 60, codec="libvpx-vp9", options=options)
    lossy = without_packets(whole, tmp_path / "b.mp4", {20, 21, 22, 23})
    frames = ClipFrames(lossy, 0, 56)
    read = [f.index for f in frames.read(max_side_px=32)]
    assert [n for n in read if n != 20] == [*range(20), *range(26, 56)]
    assert {*range(21, 26)} <= set(frames.damaged) <= {*range(20, 26)}


@pytest.mark.parametrize("bframes", ["0", "2"])
@pytest.mark.parametrize("kind", ["lost", "zeros", "flips"])
@pytest.mark.parametrize("ending", ["ts", "mkv", "mp4"])
def test_damaged_bytes_never_pass_as_pictures(
    tmp_path: Path, ending: str, kind: str, bframes: str
) -> None:
    path = write_numbered(tmp_path / f"a.{ending}", 60, options={"g": "15", "bf": bframes})
    data = bytearray(path.read_bytes())
    middle, dice = len(data) // 2 // 188 * 188, random.Random(5)
    if kind == "lost" and ending == "ts":
        data[middle : middle + 8 * 188] = b""
    elif kind == "flips":
        for _ in range(6):
            place = dice.randrange(len(data) * 3 // 8, len(data) * 5 // 8)
            data[place] ^= 1 << dice.randrange(8)
    else:
        data[middle : middle + len(data) // 20] = bytes(len(data) // 20)
    path.write_bytes(data)
    assert lies(path) == []


def test_a_hole_is_in_the_manifest_and_in_the_clips(hole: Path) -> None:
    video = {"video_id": "v" * 16, "shard": "s"} | probe_video(hole, ManifestSettings())
    assert (video["accepted"], video["frame_count"]) == (True, 90)
    assert video["damaged_frames"] == [[35, 45]]
    assert not video["is_variable_rate"]
    (clip,) = ClipSplitter(ClipSettings()).split(video, hole)  # its edges are no cuts
    assert (clip["start_frame"], clip["end_frame"]) == (0, 90)
    assert clip["damaged_frames"] == [[35, 45]]
    for table, row, probe in (
        ("video_manifest", {"uri": f"/raw/{hole.name}", "byte_size": 1, "sha256": "0"} | video,
         videos_are_not_damaged),
        ("clips", clip, clips_are_not_damaged),
    ):  # fmt: skip
        rows = TABLES[table].from_rows([row])
        finding = probe[0](Evidence(table, {table: rows}), ProbeSettings())
        assert not finding.passed
        assert "from 1.17 to 1.50 s (frames 35 to 44" in finding.sentence


def test_damage_that_only_decoding_finds_is_in_the_clips(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "a.mp4", 60, mux=FASTSTART)
    data = bytearray(path.read_bytes())
    begin, dice = data.find(b"mdat"), random.Random(3)
    size = len(data) - begin
    for _ in range(12):
        data[begin + dice.randrange(size * 4 // 10, size * 6 // 10)] ^= 255
    path.write_bytes(data)
    read = {f.index for f in ClipFrames(path, 0, 60).read(max_side_px=64)}
    rows = ClipSplitter(ClipSettings()).split({"video_id": "v", "shard": "s"}, path)
    damaged = {n for r in rows for a, b in r["damaged_frames"] or () for n in range(a, b)}
    assert read and damaged
    assert not damaged & read


def test_a_hole_that_is_longer_than_the_overlap_parts_takes(tmp_path: Path) -> None:
    """Nothing can be followed across it; what lies inside belongs to no clip."""
    path = write_numbered(tmp_path / "a.mp4", 240, options={"g": "15"}, mux=FASTSTART)
    with_hole(path, 0.4, 0.7, after=b"mdat")
    rows = ClipSplitter(ClipSettings()).split({"video_id": "v", "shard": "s"}, path)
    assert [r["split_reason"] for r in rows] == ["start", "damage"]
    assert rows[0]["take_id"] != rows[1]["take_id"]
    assert rows[1]["start_frame"] - rows[0]["end_frame"] > 45
    for row in rows:
        assert lies(path, row["start_frame"], row["end_frame"]) == []


@pytest.fixture
def spoilt_file(tmp_path: Path) -> Path:
    """The bytes of its only keyframe are others: pictures come out of the decoder, and all refer to
    that one."""
    options = {"g": "300", "bf": "0", "x264-params": "scenecut=0"}
    whole = write_numbered(tmp_path / "whole.mp4", 90, options=options)
    dice = random.Random(1)

    def change(place: int, data: bytes) -> bytes:
        most = len(data) * 9 // 10
        return data[:most] + dice.randbytes(len(data) - most) if place == 0 else data

    return rewritten(whole, tmp_path / "a.mp4", change)


def test_a_video_of_damaged_pictures_alone_is_rejected(spoilt_file: Path) -> None:
    frames = ClipFrames(spoilt_file, 0, 90)
    with pytest.raises(BadInputError):
        list(frames.read(max_side_px=32))
    assert frames.withheld > 60
    row = probe_video(spoilt_file, ManifestSettings())
    assert (row["accepted"], row["reject_reason"]) == (False, "corrupt")
    assert row["reject_detail"].startswith("all of its 90 pictures are damaged")


@pytest.mark.parametrize("search", ["fast", "exact"])
def test_there_is_no_clip_of_damaged_pictures_alone(spoilt_file: Path, search: Any) -> None:
    splitter = ClipSplitter(ClipSettings(search=search))
    with pytest.raises(BadInputError):
        splitter.split({"video_id": "v", "shard": "s"}, spoilt_file)


def test_a_take_ends_where_a_clip_would_be_damaged() -> None:
    times, settings = np.arange(100) / 1.0, ClipSettings(max_clip_s=20.0, overlap_s=2.0)
    clips = split_scenes([], times, 100.0, settings, [], set(range(15, 45)))
    assert [(c["start_frame"], c["end_frame"]) for c in clips] == [
        (0, 20), (40, 60), (58, 80), (78, 100),
    ]  # fmt: skip
    clips = split_scenes([], times, 100.0, settings, [], set(range(15, 65)))
    names = ("take", "index_in_take", "start_frame", "split_reason")
    assert [tuple(c[name] for name in names) for c in clips] == [
        (0, 0, 0, "start"), (1, 0, 60, "damage"), (1, 1, 78, "length"),
    ]  # fmt: skip
    assert [c["context_frames"] for c in clips] == [0, 0, 2]
    assert split_scenes([], times, 100.0, settings, [], set(range(100))) == []


def test_a_cut_inside_a_hole_is_found_where_the_scenes_differ(tmp_path: Path) -> None:
    scenes = [numbered(n) for n in range(2)]
    scenes[1][40:] = (20, 160, 40)
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w", options=FASTSTART) as container:
        stream: Any = container.add_stream("libx264", rate=30, options={"g": "15"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for n in range(90):
            picture = av.VideoFrame.from_ndarray(scenes[n >= 40], format="rgb24")
            container.mux(stream.encode(picture.reformat(format="yuv420p")))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    for place, size in packets[36:42]:
        data[place : place + size] = bytes(size)
    path.write_bytes(data)
    behind = min(f.index for f in ClipFrames(path, 0, 90).read() if f.index >= 36)
    assert behind > 40
    rows = ClipSplitter(ClipSettings()).split({"video_id": "v", "shard": "s"}, path)
    assert [r["split_reason"] for r in rows] == ["start", "cut"]
    assert rows[1]["start_frame"] == behind


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts", "webm"])
def test_whole_files_are_not_called_damaged(tmp_path: Path, ending: str) -> None:
    webm = {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}}
    path = write_numbered(tmp_path / f"a.{ending}", 45, **(webm if ending == "webm" else {}))
    row = probe_video(path, ManifestSettings())
    assert (row["damaged_frames"], row["missing_s"], row["promised_frame_count"]) == (None,) * 3


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize("zeros", [1, 2, 3])
def test_zeros_behind_the_units_of_packets_are_no_damage(
    tmp_path: Path, ending: str, codec: str, zeros: int
) -> None:
    options = {"x265-params": X265} if codec == "libx265" else None
    whole = write_numbered(tmp_path / f"a.{ending}", 30, codec=codec, options=options)
    padded = rewritten(whole, tmp_path / f"b.{ending}", lambda _, data: data + bytes(zeros))
    index = index_frames(padded)
    assert (index.broken, len(index)) == (frozenset(), 30)
    assert [number_of(f.image) for f in ClipFrames(padded, 0, 30).read()] == list(range(30))


@pytest.mark.parametrize("which", [1, 15])
def test_what_a_decoder_finds_no_fault_in_is_not_given_up(tmp_path: Path, which: int) -> None:
    """Units that nobody knows, which decoders skip, in all packets or in keyframes."""
    unknown = bytes([0, 0, 0, 2, 0x9E, 7])
    whole = write_numbered(tmp_path / "a.mp4", options={"g": "15"})

    def change(place: int, data: bytes) -> bytes:
        return data + unknown if place % which == 0 else data

    index = index_frames(rewritten(whole, tmp_path / "b.mp4", change))
    assert index.broken == frozenset()
    assert lies(tmp_path / "b.mp4") == []


def test_a_file_that_is_mostly_damaged_stays_so(tmp_path: Path) -> None:
    whole = write_numbered(tmp_path / "a.mp4", options={"g": "15"})
    path = rewritten(
        whole, tmp_path / "b.mp4", lambda n, data: bytes(len(data)) if n % 15 == 7 else data
    )
    assert index_frames(path).broken
    assert lies(path) == []


@pytest.mark.parametrize("name", ["hand_gestures_webcam.mp4", "pancake_flip_audio.mkv"])
def test_real_whole_files_are_not_called_damaged(real_data: Path, name: str) -> None:
    index = index_frames(real_data / "videos" / name)
    assert (index.broken, index.ends_inside) == (frozenset(), False)


def test_what_a_packet_spoils() -> None:
    """Stored I0 P3 B1 B2 I6 B4 B5 P9 B7 B8: 4 and 5 are shown before the second keyframe."""
    order, keys = np.array([0, 3, 1, 2, 6, 4, 5, 9, 7, 8]), np.array([0, 4])
    spoilt = {n: spoilt_by(n, order, keys) for n in range(10)}
    assert spoilt[3] == {3, 1, 2, 4, 5}
    assert spoilt[2] == {2, 4, 5}
    assert spoilt[4] == {4, 5}, "what is shown before its keyframe harms nothing behind it"
    assert spoilt[6] == {6, 4, 5, 9, 7, 8}
    assert spoilt[8] == {8}
    assert known_after(order, keys, 10).tolist() == [0, 3, 3, 3, 6, 6, 6, 9, 9, 9]
    assert stretches({4, 5, 9, 2}) == [(2, 3), (4, 6), (9, 10)]


def test_a_wrong_time_stamp_holds_up_nothing_behind_its_group() -> None:
    order = np.array([0, 3, 1, 99, 6, 4, 5, *range(7, 99)])
    after = known_after(order, np.array([0, 4]), 100)
    assert after[[99, 4, 5, 6, 7, 50]].tolist() == [99, 6, 6, 7 - 1, 7, 50]
    of_one_group = known_after(order, np.array([0]), 100)
    assert misplaced(order) == {99}
    assert misplaced(np.array([*range(50, 99), *range(50)])) == frozenset()  # times begin again
    assert (of_one_group - np.arange(100)).max() == REORDERED


@pytest.mark.parametrize("keys", ["15", "300"])
def test_a_wrong_time_stamp_costs_no_memory_and_no_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: str
) -> None:
    whole, path = write_numbered(tmp_path / "a.mp4", 120, options={"g": keys}), tmp_path / "b.mp4"
    with av.open(str(whole)) as given, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(given.streams.video[0])
        for place, packet in enumerate(given.demux(video=0)):
            if packet.size:
                packet.pts = packet.pts * 9 if place == 20 else packet.pts
                packet.stream = stream
                container.mux(packet)
    frames = ClipFrames(path, 40, 45)
    assert frames.index.misplaced == {119}
    pulled: list[Any] = []
    decode = frames._pictures_from

    def counted(position: int) -> Any:
        for picture in decode(position):
            pulled.append(picture)
            yield picture

    monkeypatch.setattr(frames, "_pictures_from", counted)
    assert [number_of(f.image) for f in frames.read()] == [41, 42, 43, 44, 45]
    begin = int(frames.index.order[frames.index.keys[frames.index.keys <= 41][-1]])
    assert len(pulled) <= 45 - begin + REORDERED + 2
    assert [f.index for f in ClipFrames(path, 0, 120).read(max_side_px=32)] == [*range(119)]


def test_holes_take_in_what_touches_them() -> None:
    found = boundaries([10, 50, 90], [Transition(38, 42)], [(40, 60)])
    assert found == [(10, 10), (38, 60), (90, 90)]
    assert all(a.start <= b.end for a, b in pairwise(found))
