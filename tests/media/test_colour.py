"""Pictures come out in the right colours, whatever the stream is coded in.

Expected values are computed here from the standards, not by the code under test.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter

from ego_assets.catalog import TABLES
from ego_assets.media import nvdec, tone
from ego_assets.media.colour import Colours, RgbConverter, colours_of
from ego_assets.media.decode import ClipFrames
from ego_assets.media.frame_index import index_frames
from ego_assets.operator import BadInputError
from ego_assets.videos.cuts import find_cuts
from ego_assets.videos.inspection import probe_video
from ego_assets.videos.settings import ClipSettings, ManifestSettings
from ego_assets.vision import threads
from tests.support.coded_video import join, middles, patches, write_coded, ycbcr

CASES = Path(__file__).parents[1] / "support" / "colour_cases"
COLOURS = np.array(
    [[200, 60, 30], [90, 90, 90], [40, 120, 60], [30, 50, 110], [120, 100, 80], [12, 12, 12]]
)
"""Of them none is lighter than what the roll-off leaves as it is, but the first, by a little."""
TAGS_709 = {"colorspace": 1, "color_range": 1, "color_trc": 1, "color_primaries": 1}
PQ = {"colorspace": 9, "color_range": 1, "color_trc": 16, "color_primaries": 9}
HLG = PQ | {"color_trc": 18}


def first(path: Path, max_side_px: int | None = None) -> np.ndarray:
    frame = next(ClipFrames(path, 0, 1).read(max_side_px=max_side_px))
    return frame.image


def from_primaries(*corners: tuple[float, float]) -> np.ndarray:
    """XYZ from linear RGB, from chromaticities of the primaries, with D65."""
    xyz = np.array([[x / y, 1, (1 - x - y) / y] for x, y in (*corners, (0.3127, 0.3290))])
    scale = np.linalg.solve(xyz[:3].T, xyz[3])
    matrix: np.ndarray = xyz[:3].T * scale
    return matrix


XYZ = {
    1: from_primaries((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)),
    9: from_primaries((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    12: from_primaries((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
"""From linear RGB, by primaries."""


def pq_codes(nits: np.ndarray) -> np.ndarray:
    """The inverse EOTF of ST 2084."""
    y = (np.maximum(nits, 0) / 10000) ** 0.1593017578125
    codes: np.ndarray = ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375
    return codes


def hlg_codes(nits: np.ndarray) -> np.ndarray:
    """The OETF of BT.2100, of the light of a display of 1000 cd/m² and gamma 1.2."""
    scene = (np.maximum(nits, 0) / 1000) ** (1 / 1.2)
    log = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), log)


def light_of(rgb: np.ndarray, primaries: int = 9) -> np.ndarray:
    """Light in cd/m², of these primaries, of 8-bit codes, white at 203 (BT.1886, BT.2408)."""
    light: np.ndarray = 203 * (rgb / 255) ** 2.4 @ np.linalg.solve(XYZ[primaries], XYZ[1]).T
    return light


def write_hdr(path: Path, light: np.ndarray, tags: dict[str, int]) -> Path:
    coded = (pq_codes if tags["color_trc"] == 16 else hlg_codes)(light)
    codes = ycbcr(patches(coded.tolist(), 192, 64), "bt2020", bits=10)
    return write_coded(path, [codes] * 3, tags, codec="libx265")


@pytest.mark.parametrize("tags", [PQ, HLG], ids=["pq", "hlg"])
@pytest.mark.parametrize("max_side_px", [None, 96])
def test_what_hdr_shows_of_standard_range_comes_out_as_it_was(
    tmp_path: Path, tags: dict[str, int], max_side_px: int | None
) -> None:
    path = write_hdr(tmp_path / "hdr.mp4", light_of(COLOURS), tags)
    found = middles(first(path, max_side_px), len(COLOURS))
    assert np.abs(found - COLOURS).max() <= 4, found


@pytest.mark.parametrize("tags", [PQ, HLG], ids=["pq", "hlg"])
@pytest.mark.parametrize("primaries", [1, 12])
def test_hdr_of_other_primaries_comes_out_as_it_was(
    tmp_path: Path, tags: dict[str, int], primaries: int
) -> None:
    tagged = tags | {"color_primaries": primaries}
    path = write_hdr(tmp_path / "hdr.mp4", light_of(COLOURS, primaries), tagged)
    found = middles(first(path), len(COLOURS))
    assert np.abs(found - COLOURS).max() <= 4, found


@pytest.mark.parametrize("transfer", [16, 18])
def test_hdr_that_says_only_its_transfer_is_bt2020(tmp_path: Path, transfer: int) -> None:
    path = write_hdr(tmp_path / "hdr.mp4", light_of(COLOURS), {"color_trc": transfer})
    found = middles(first(path), len(COLOURS))
    assert np.abs(found - COLOURS).max() <= 4, found


@pytest.mark.parametrize("tags", [PQ, HLG], ids=["pq", "hlg"])
def test_highlights_are_rolled_off_in_order_and_without_colour(
    tmp_path: Path, tags: dict[str, int]
) -> None:
    nits = np.array([0.0, 93, 203, 300, 500, 1000])
    path = write_hdr(tmp_path / "grey.mp4", np.repeat(nits[:, None], 3, 1), tags)
    found = middles(first(path), len(nits))
    assert np.ptp(found, axis=1).max() <= 1
    grey = found.mean(axis=1)
    assert np.all(np.diff(grey) > 0), grey
    assert grey[[0, -1]] == pytest.approx([0, 255], abs=1)
    assert grey[1] == pytest.approx(255 * (93 / 203) ** (1 / 2.4), abs=2)
    assert grey[2] == pytest.approx(230, abs=2)  # the EETF of BT.2390 has 158 of 203 cd/m²


@pytest.mark.parametrize(
    ("name", "within"), [("true_pq", 15), ("true_hlg", 15), ("untagged_hd709", 3)]
)
@pytest.mark.parametrize("max_side_px", [None, 160])
def test_files_of_other_encoders(name: str, within: int, max_side_px: int | None) -> None:
    image = first(CASES / f"{name}.mp4", max_side_px)
    height, width = image.shape[:2]
    found = image[height * 3 // 4, width // 2].astype(int)
    assert np.abs(found - [200, 60, 30]).max() <= within, found


@pytest.mark.parametrize(
    ("size", "matrix"),
    [
        ((640, 480), "bt601"),
        ((480, 856), "bt601"),
        ((1280, 720), "bt709"),
        ((720, 1280), "bt709"),
        ((1280, 536), "bt709"),
    ],
)
def test_a_stream_without_tags_is_guessed_from_its_size(
    tmp_path: Path, size: tuple[int, int], matrix: str
) -> None:
    codes = ycbcr(patches((COLOURS / 255).tolist(), *size), matrix)
    path = write_coded(tmp_path / "untagged.mp4", [codes])
    assert colours_of(next(av.open(str(path)).decode(video=0))).matrix == 2
    found = middles(first(path), len(COLOURS))
    assert np.abs(found - COLOURS).max() <= 3, found


@pytest.mark.parametrize(
    ("matrix", "code"), [("bt709", 1), ("bt601", 5), ("bt601", 6), ("bt2020", 9)]
)
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("size", [(192, 64), (1280, 720)])
def test_matrix_and_range_are_honoured(
    tmp_path: Path, matrix: str, code: int, full: bool, size: tuple[int, int]
) -> None:
    codes = ycbcr(patches((COLOURS / 255).tolist(), *size), matrix, full=full)
    tags = TAGS_709 | {"colorspace": code, "color_range": 2 if full else 1}
    path = write_coded(tmp_path / "tagged.mp4", [codes], tags)
    found = middles(first(path), len(COLOURS))
    assert np.abs(found - COLOURS).max() <= 3, found
    row = probe_video(path, ManifestSettings())
    assert row["color_range"] == ("full" if full else "limited")


@pytest.mark.parametrize(
    ("primaries", "code", "matrix"), [(9, 9, "bt2020"), (9, 2, "bt2020"), (12, 1, "bt709")]
)
def test_wide_primaries_of_standard_range_are_brought_to_bt709(
    tmp_path: Path, primaries: int, code: int, matrix: str
) -> None:
    coded = (light_of(COLOURS, primaries) / 203).clip(0) ** (1 / 2.4)
    codes = ycbcr(patches(coded.tolist(), 192, 64), matrix, bits=10)
    tags = PQ | {"color_trc": 14, "color_primaries": primaries, "colorspace": code}
    path = write_coded(tmp_path / "wide.mp4", [codes], tags, codec="libx265")
    found = middles(first(path), len(COLOURS))
    assert np.abs(found - COLOURS).max() <= 4, found


@pytest.mark.parametrize(
    "name",
    [
        "videos/hands_kneading_dough.mp4",  # no tags, small
        "videos/ego_table_objects.mp4",  # BT.709
        "videos/object_orbit_basketball.mp4",  # BT.601
        "odd/mjpeg.avi",  # full range
        "odd/hevc_10bit.mp4",
        "odd/odd_size_641x359_yuv444.mp4",
        "odd/torchcodec_h265_10bits.mp4",
        "odd/webm_named.mp4",
    ],
)
@pytest.mark.parametrize("max_side_px", [None, 160])
def test_ordinary_video_is_what_libav_makes_of_it(
    real_data: Path, name: str, max_side_px: int | None
) -> None:
    """To the bit: rows made before colours were told apart stay right."""
    path = real_data / name
    frames = ClipFrames(path, 0, min(3, len(index_frames(path))))
    images = [f.image for f in frames.read(max_side_px=max_side_px)]
    scaler = VideoReformatter()
    height, width = images[0].shape[:2]
    how = "BILINEAR" if (width, height) == (frames.width, frames.height) else "AREA"
    for image, (_, picture) in zip(images, frames.read_pictures(), strict=True):
        there = scaler.reformat(picture, width, height, "rgb24", interpolation=how, threads=1)
        assert np.array_equal(image, there.to_ndarray())


def converted(picture: Any, said: Colours) -> np.ndarray:
    return RgbConverter(said).convert(picture, picture.width, picture.height, shrinks=False)


def test_what_a_picture_does_not_say_the_container_does(tmp_path: Path) -> None:
    path = write_hdr(tmp_path / "pq.mp4", light_of(COLOURS), PQ)
    picture = next(av.open(str(path)).decode(video=0))
    expected = converted(picture, Colours())
    told = colours_of(picture)
    picture.colorspace, picture.color_trc, picture.color_primaries = 2, 2, 2
    assert np.array_equal(converted(picture, told), expected)
    assert not np.array_equal(converted(picture, Colours()), expected)


@pytest.mark.parametrize("matrix", [3, 10])
def test_a_matrix_that_libav_lacks_is_the_nearest(matrix: int) -> None:
    """It refuses to convert with a reserved matrix, and with the other one of BT.2020."""
    pictures = []
    for code in (matrix, 6 if matrix == 3 else 9):
        picture = av.VideoFrame.from_ndarray(np.full((48, 64), 90, np.uint8), format="yuv420p")
        picture.colorspace, picture.color_range = code, 1
        pictures.append(converted(picture, Colours()))
    assert np.array_equal(pictures[0], pictures[1])


@pytest.mark.parametrize(
    ("name", "codec", "code", "matrix"),
    [
        ("reserved.ts", "mpeg2video", 3, "bt601"),
        ("reserved.mkv", "libvpx-vp9", 3, "bt601"),
        ("constant.mp4", "libx264", 10, "bt2020"),
    ],
)
def test_files_whose_matrix_libav_lacks_are_read_and_cut(
    tmp_path: Path, name: str, codec: str, code: int, matrix: str
) -> None:
    """The container of some says the same matrix, so that it is no help."""
    options = {"qmin": "1", "qmax": "2", "crf": "2"} if codec != "libx264" else None
    scenes = [COLOURS] * 6 + [255 - COLOURS] * 6
    pictures = [ycbcr(patches((s / 255).tolist(), 192, 64), matrix) for s in scenes]
    tags = {"colorspace": code, "color_range": 1}
    path = write_coded(tmp_path / name, pictures, tags, codec=codec, options=options)
    assert int(next(av.open(str(path)).decode(video=0)).colorspace) == code
    found = middles(first(path), len(COLOURS))
    assert np.abs(found - COLOURS).max() <= 5, found
    row = probe_video(path, ManifestSettings())
    assert row["accepted"], row["reject_detail"]
    assert row["color_matrix"] == (None if code == 3 else "bt2020c")
    for search in ("exact", "fast", "pyscenedetect"):
        assert find_cuts(path, ClipSettings(search=search)).cuts == [6]


@pytest.mark.parametrize(("code", "name"), [(8, "ycgco"), (14, "ictcp"), (12, "chroma-derived-nc")])
def test_a_matrix_that_is_not_supported_is_no_damage(tmp_path: Path, code: int, name: str) -> None:
    codes = ycbcr(patches((COLOURS / 255).tolist(), 192, 64), "bt709", bits=10)
    tags = {"colorspace": code, "color_range": 1}
    path = write_coded(tmp_path / "v.mp4", [codes] * 6, tags, codec="libx265")
    row = probe_video(path, ManifestSettings())
    assert (row["reject_reason"], row["color_matrix"]) == ("unsupported_codec", name)
    assert f"the matrix {name}, which is not supported" in row["reject_detail"]
    for search in ("exact", "fast", "pyscenedetect"):
        with pytest.raises(BadInputError, match="cannot be converted"):
            find_cuts(path, ClipSettings(search=search))


@pytest.mark.parametrize("order", [["hdr", "plain"], ["plain", "hdr"]])
def test_a_stretch_without_tags_is_not_taken_for_the_one_before(
    tmp_path: Path, order: list[str]
) -> None:
    hdr = write_hdr(tmp_path / "hdr.ts", light_of(COLOURS), PQ)
    codes = ycbcr(patches((COLOURS / 255).tolist(), 192, 64), "bt601", bits=10)
    plain = write_coded(tmp_path / "plain.ts", [codes] * 3, codec="libx265")
    parts = {"hdr": hdr, "plain": plain}
    path = join([parts[name] for name in order], tmp_path / "joined.ts")
    frames = list(ClipFrames(path, 0, 6).read())
    for frame in frames:
        found = middles(frame.image, len(COLOURS))
        assert np.abs(found - COLOURS).max() <= 4, (frame.index, found)
    told = index_frames(path).colours.names()["color_transfer"]
    assert told == ("smpte2084" if order[0] == "hdr" else None)


@pytest.mark.parametrize("kind", ["pq", "hlg", "wide"])
@pytest.mark.parametrize("gamut", list(tone.TO_BT709))
def test_without_opencv_the_same_comes_out(
    monkeypatch: pytest.MonkeyPatch, kind: str, gamut: int
) -> None:
    codes = np.random.default_rng(0).integers(0, 65536, (3, 37, 50), dtype=np.uint16)
    with_opencv = tone.to_bt709(codes, kind, gamut)
    monkeypatch.setattr(tone, "_opencv", lambda: None)
    apart = np.abs(tone.to_bt709(codes, kind, gamut).astype(int) - with_opencv)
    assert apart.max() <= 1
    assert (apart > 0).mean() < 0.001


@pytest.mark.parametrize("kind", ["pq", "hlg", "wide"])
@pytest.mark.parametrize("gamut", list(tone.TO_BT709))
def test_tables_are_within_a_level_of_the_formulas(kind: str, gamut: int) -> None:
    """Of all codes, also those that come out of the gamut."""
    codes = np.random.default_rng(1).integers(0, 65536, (3, 61, 67), dtype=np.uint16)
    light = {"pq": tone.pq_light, "hlg": tone.hlg_light, "wide": tone.sdr_light}[kind]
    nits = np.moveaxis(light(codes / 65535), 0, -1) @ tone.TO_BT709[gamut].T
    nits = np.clip(nits, 0, tone.PEAK)
    shown = nits if kind == "wide" else tone.roll_off(nits)
    exact = 255 * np.clip(shown / tone.REFERENCE_WHITE, 0, 1) ** (1 / 2.4)
    assert np.abs(tone.to_bt709(codes, kind, gamut) - exact).max() < 1


def test_what_comes_out_does_not_depend_on_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = np.random.default_rng(2).integers(0, 65536, (3, 1081, 1000), dtype=np.uint16)
    seen = []
    for count in (1, 3):
        monkeypatch.setattr(threads, "allowed_threads", lambda count=count: count)
        assert tone._threads_for(codes.size) == count
        seen.append(tone.to_bt709(codes, "pq", 9))
    assert np.array_equal(*seen)
    assert tone._threads_for(640 * 360 * 3) == 1


def test_rows_of_any_length_are_taken(tmp_path: Path) -> None:
    """libav pads rows: what lies behind a picture is none of it."""
    path = write_hdr(tmp_path / "pq.mp4", light_of(COLOURS), PQ)
    whole = first(path, 96)
    padded = first(path, 97)
    assert whole.shape != padded.shape
    found = middles(padded, len(COLOURS))
    assert np.abs(found - COLOURS).max() <= 4, found


def test_what_comes_from_a_device_keeps_its_colours(tmp_path: Path) -> None:
    path = write_hdr(tmp_path / "pq.mp4", light_of(COLOURS), PQ)
    picture: Any = next(av.open(str(path)).decode(video=0))
    there = nvdec.as_software_has_it(picture.reformat(format="p010le"))
    assert np.array_equal(converted(there, Colours()), converted(picture, Colours()))


def test_the_manifest_says_what_the_stream_says() -> None:
    hdr = probe_video(CASES / "true_pq.mp4", ManifestSettings())
    said = ("color_transfer", "color_primaries", "color_matrix", "color_range", "bit_depth")
    assert [hdr[n] for n in said] == ["smpte2084", "bt2020", "bt2020nc", "limited", 10]
    hlg = probe_video(CASES / "true_hlg.mp4", ManifestSettings())
    assert (hlg["color_transfer"], hlg["field_order"]) == ("arib-std-b67", "progressive")
    none = probe_video(CASES / "untagged_hd709.mp4", ManifestSettings())
    assert [none[n] for n in said] == [None, None, None, None, 8]
    assert (none["video_stream_index"], none["video_stream_count"]) == (0, 1)
    for row in (hdr, hlg, none):
        rest = {"video_id": "v", "shard": "s", "uri": "u", "byte_size": 1, "sha256": ""}
        TABLES["video_manifest"].from_rows([rest | row])
