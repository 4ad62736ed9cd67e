"""The cuts are PySceneDetect's, and the fast search finds the same with less decoding."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import scenedetect

from ego_assets.media.decode import ClipFrames
from ego_assets.media.frame_index import index_frames
from ego_assets.operator import BadInputError
from ego_assets.videos import cuts as cuts_module
from ego_assets.videos.cuts import find_cuts, suspect_stretches
from ego_assets.videos.settings import ClipSettings
from samples import load_truth
from tests.support.rendered import render_sample

WIDTH, HEIGHT, FPS = 320, 180, 30
BLACK = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
X264: dict[str, str] = {"preset": "veryfast", "crf": "23", "g": "48", "x264-params": "scenecut=0"}
X265 = {"preset": "ultrafast", "crf": "26", "x265-params": "keyint=48:scenecut=0:log-level=none"}
ENCODERS: dict[str, tuple[str, dict[str, str]]] = {
    "x264": ("libx264", X264),
    "x264-open-gop": ("libx264", X264 | {"x264-params": "scenecut=0:open-gop=1"}),
    "x264-many-references": ("libx264", X264 | {"x264-params": "scenecut=0:ref=16"}),
    "x264-scenecut": ("libx264", {"preset": "medium", "g": "250"}),
    "x264-no-b": ("libx264", X264 | {"preset": "ultrafast", "tune": "zerolatency"}),
    "x264-constant-rate": ("libx264", X264 | {"crf": "-1", "maxrate": "800k", "bufsize": "100k"}),
    "x265": ("libx265", X265),
    "mpeg4": ("mpeg4", {"g": "48", "sc_threshold": "1000000000"}),
    "vp9": ("libvpx-vp9", {"g": "48", "cpu-used": "8", "deadline": "realtime"}),
    "mjpeg": ("mjpeg", {}),
}
SPARSE = {name for name, (codec, _) in ENCODERS.items() if codec in ("libx264", "libx265")}


class _Recording:
    """Mixed into a detector of PySceneDetect: which frame had which time, and what it found."""

    def process_frame(self, timecode: Any, frame_img: np.ndarray) -> Any:
        self.__dict__.setdefault("times", []).append(timecode.seconds)
        return self._found(super().process_frame(timecode, frame_img))  # type: ignore[misc]

    def post_process(self, timecode: Any) -> Any:
        return self._found(super().post_process(timecode))  # type: ignore[misc]

    def _found(self, cuts: list[Any]) -> list[Any]:
        self.__dict__.setdefault("cuts", set()).update(cut.seconds for cut in cuts)
        return cuts


class _Content(_Recording, scenedetect.ContentDetector):
    pass


class _Adaptive(_Recording, scenedetect.AdaptiveDetector):
    pass


Wanted = tuple[str, float]
"""Detector and threshold."""


@cache
def peers(path: Path, wanted: tuple[Wanted, ...], backend: str) -> dict[Wanted, list[int]]:
    """What PySceneDetect's own manager finds, as the order of the frame it found it at. All of its
    detectors see the frames of one decoding."""
    detectors: dict[Wanted, Any] = {}
    manager = scenedetect.SceneManager()
    for kind, threshold in wanted:
        if kind == "content":
            detector: Any = _Content(threshold=threshold, min_scene_len=0)
        else:
            detector = _Adaptive(adaptive_threshold=threshold, min_scene_len=0)
        detectors[kind, threshold] = detector
        manager.add_detector(detector)
    manager.detect_scenes(scenedetect.open_video(str(path), backend=backend))
    return {
        which: [detector.times.index(at) for at in sorted(detector.cuts)]
        for which, detector in detectors.items()
    }


def peer_cuts(path: Path, detector: str, threshold: float, backend: str = "opencv") -> list[int]:
    wanted = (detector, threshold)
    return peers(path, (*THRESHOLDS,) if wanted in THRESHOLDS else (wanted,), backend)[wanted]


def encode(
    path: Path,
    images: Sequence[np.ndarray],
    encoder: str = "x264",
    pts: Sequence[int] | None = None,
) -> Path:
    """A video of the pictures (H, W, 3) RGB; pts: their time stamps in 1/60000 s."""
    codec, options = ENCODERS[encoder]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=FPS)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.options = options
        stream.bit_rate = 800_000  # of those that take no quality
        stream.codec_context.time_base = stream.time_base = Fraction(1, 60000)
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = pts[number] if pts is not None else number * 60000 // FPS
            frame.time_base = Fraction(1, 60000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def takes(tmp_path_factory: pytest.TempPathFactory) -> list[list[np.ndarray]]:
    """Three takes of 120 frames, with other colours each."""
    folder = tmp_path_factory.mktemp("takes")
    found = []
    for seed in (0, 1, 2):
        video = render_sample(folder, seed=seed, duration_s=4.0, width=WIDTH, height=HEIGHT)
        found.append([frame.image for frame in ClipFrames(video, 0, 120).read()])
    return found


def join(*parts: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[int]]:
    """The pictures one after the other, and the cuts between."""
    lengths = np.cumsum([len(part) for part in parts])
    return [image for part in parts for image in part], lengths[:-1].tolist()


def both(path: Path, **settings: Any) -> tuple[cuts_module.FoundCuts, cuts_module.FoundCuts]:
    return tuple(  # type: ignore[return-value]
        find_cuts(path, ClipSettings(search=search, **settings)) for search in ("exact", "fast")
    )


# -- exact: PySceneDetect's ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three short videos of three scenes each; `test_clips` has the same."""
    folder = tmp_path_factory.mktemp("samples")
    size = {"width": WIDTH, "height": HEIGHT}
    return [render_sample(folder, seed=s, duration_s=4.0, scenes=3, **size) for s in (0, 1, 2)]


THRESHOLDS = [("content", 27.0), ("content", 20.0), ("content", 4.0)]
THRESHOLDS += [("adaptive", 3.0), ("adaptive", 1.3)]


@pytest.mark.parametrize(("detector", "threshold"), THRESHOLDS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_exact_is_pyscenedetect_on_samples(
    samples: list[Path], seed: int, detector: str, threshold: float
) -> None:
    video = samples[seed]
    found = find_cuts(video, ClipSettings(detector=detector, threshold=threshold))
    assert found.proposed == peer_cuts(video, detector, threshold)
    assert found.cuts == load_truth(video).cuts
    assert found.decoded_frames == 120


@pytest.mark.parametrize(("detector", "threshold"), THRESHOLDS)
def test_the_library_itself_finds_the_same(
    samples: list[Path], detector: str, threshold: float
) -> None:
    video = samples[2]
    exact, theirs = (
        find_cuts(video, ClipSettings(search=search, detector=detector, threshold=threshold))
        for search in ("exact", "pyscenedetect")
    )
    assert theirs == exact
    assert theirs.cuts == load_truth(video).cuts


@pytest.mark.heavy
@pytest.mark.parametrize(("detector", "threshold"), [("content", 12.0), ("adaptive", 1.3)])
def test_exact_is_pyscenedetect_on_real_videos(
    real_data: Path, detector: str, threshold: float
) -> None:
    """Cross-fades, low frame rates, turned, portrait and very large pictures are among them."""
    # OpenCV takes another stream of this file than we do.
    other_stream = "telescope_multistream.mp4"
    compared = 0
    for path in sorted([*(real_data / "videos").iterdir(), *real_data.glob("constructed/*.mp4")]):
        if path.name != other_stream:
            found = find_cuts(path, ClipSettings(detector=detector, threshold=threshold))
            assert found.proposed == peer_cuts(path, detector, threshold), path.name
            compared += len(found.proposed)
    assert compared > 5


ODD = [
    *("bitflips_payload.mp4", "decord_corrupted.mp4", "fps_120.mp4", "hevc_10bit.mp4"),
    *("late_start_pts.ts", "mjpeg.avi", "non_square_pixels.mp4", "odd_size_641x359_yuv444.mp4"),
    *("one_frame.mp4", "rotated_90_metadata.mp4", "rotated_180_metadata.mp4", "tiny_32x18.mp4"),
    *("torchcodec_h265_10bits.mp4", "truncated_faststart_60pct.mp4", "vfr.mp4", "webm_named.mp4"),
]


@pytest.mark.parametrize("name", ODD)
def test_exact_is_pyscenedetect_on_odd_files(real_data: Path, name: str) -> None:
    path = real_data / "odd" / name
    for detector, threshold in THRESHOLDS:
        found = find_cuts(path, ClipSettings(detector=detector, threshold=threshold))
        assert found.proposed == peer_cuts(path, detector, threshold), (detector, threshold)


@pytest.mark.parametrize("name", ["av1.mp4", "torchcodec_av1_video.mkv"])
def test_exact_is_pyscenedetect_where_opencv_cannot_decode(real_data: Path, name: str) -> None:
    path = real_data / "odd" / name
    found = find_cuts(path, ClipSettings(threshold=0.5))
    assert found.proposed
    assert found.proposed == peer_cuts(path, "content", 0.5, backend="pyav")


def test_interlaced_video_is_seen(real_data: Path) -> None:
    """OpenCV's reader hands out black pictures for it, so that PySceneDetect finds nothing."""
    path = real_data / "odd" / "interlaced_mpeg2.ts"
    assert find_cuts(path, ClipSettings(threshold=5.0)).proposed
    assert peer_cuts(path, "content", 5.0) == []


@pytest.mark.parametrize("name", ["audio_only.mp4", "random_bytes.mp4", "zero_bytes.mp4"])
@pytest.mark.parametrize("search", ["exact", "fast"])
def test_no_video_is_bad_input(real_data: Path, name: str, search: str) -> None:
    with pytest.raises(BadInputError):
        find_cuts(real_data / "odd" / name, ClipSettings(search=search))


def test_a_glance_far_below_the_limit_spares_the_look(
    takes: list[list[np.ndarray]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, cuts = join(takes[0][:30], takes[1][:30])
    looked: list[int] = []
    original = cuts_module._SeenFrame.look.func

    def look(frame: Any) -> np.ndarray:
        looked.append(frame.index)
        return original(frame)

    monkeypatch.setattr(cuts_module._SeenFrame, "look", property(look))
    assert find_cuts(encode(tmp_path / "v.mp4", images), ClipSettings()).cuts == cuts
    assert set(looked) == {29, 30}


# -- fast: the same cuts -------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", sorted(ENCODERS))
def test_fast_finds_cuts_inside_of_gops(
    takes: list[list[np.ndarray]], tmp_path: Path, encoder: str
) -> None:
    """Keyframes come every 48 frames: cuts before, at, behind and far from one; short inserts."""
    one, two, three = takes
    joins = [
        join(one, two[:70], three[:83]),
        join(one[:48], two[:48], one[:48]),
        join(one[:95], two[:98]),
        join(one[:60], two[:16], one[76:120], three[:20], one[:80]),
        join(two[:64], [BLACK] * 16, two[80:120]),
    ]
    for number, (images, cuts) in enumerate(joins):
        suffix = ".mkv" if encoder in ("vp9", "mjpeg") else ".mp4"
        path = encode(tmp_path / f"{number}{suffix}", images, encoder)
        exact, fast = both(path)
        assert exact.cuts == cuts, (encoder, number)
        assert fast.cuts == cuts, (encoder, number)
        if encoder not in SPARSE:
            assert fast.fallback is not None


@pytest.mark.parametrize("detector", ["content", "adaptive"])
@pytest.mark.parametrize("seed", range(4))
def test_fast_finds_cuts_at_random_places(
    takes: list[list[np.ndarray]], tmp_path: Path, seed: int, detector: str
) -> None:
    rng = np.random.default_rng(seed)
    parts, last = [], -1
    for _ in range(6):
        last = int(rng.choice([n for n in range(3) if n != last]))
        start = int(rng.integers(0, 40))
        parts.append(takes[last][start : start + int(rng.integers(18, 80))])
    images, cuts = join(*parts)
    encoder = str(rng.choice(sorted(SPARSE)))
    exact, fast = both(encode(tmp_path / "v.mp4", images, encoder), detector=detector)
    assert exact.cuts == cuts
    assert fast.cuts == cuts


@pytest.mark.parametrize("encoder", ["x264", "x264-open-gop", "x264-no-b", "x265"])
def test_fast_decodes_a_quiet_take_in_small_part(
    takes: list[list[np.ndarray]], tmp_path: Path, encoder: str
) -> None:
    smooth = [cv2.GaussianBlur(image, (0, 0), 1.5) for image in takes[0]]
    slow = (smooth + smooth[::-1]) * 2  # 480 frames, ten GOPs
    path = encode(tmp_path / "v.mp4", slow, encoder)
    exact, fast = both(path)
    assert fast.cuts == exact.cuts == []
    assert fast.fallback is None
    assert fast.decoded_frames < 0.5 * exact.decoded_frames
    stretches = suspect_stretches(path, index_frames(path), ClipSettings())
    assert stretches[-1][1] == 479, "what follows the last keyframe is always decoded"


def test_fast_with_a_variable_rate(takes: list[list[np.ndarray]], tmp_path: Path) -> None:
    images, cuts = join(takes[0][:70], takes[1][:50], takes[0][70:120])
    steps = np.random.default_rng(0).integers(1500, 9000, len(images))
    path = encode(tmp_path / "v.mp4", images, pts=np.cumsum(steps).tolist())
    exact, fast = both(path)
    assert exact.cuts == fast.cuts == cuts


def test_without_confirmation_fast_is_exact(takes: list[list[np.ndarray]], tmp_path: Path) -> None:
    images, _ = join(takes[0][:70], takes[1][:50], takes[0][70:120])
    path = encode(tmp_path / "v.mp4", images)
    exact, fast = both(path, threshold=3.0, min_histogram_distance=0)
    assert len(exact.cuts) > 2
    assert fast.cuts == exact.cuts == exact.proposed


@pytest.mark.parametrize("detector", ["content", "adaptive"])
def test_fast_finds_the_cuts_of_real_videos(real_data: Path, detector: str) -> None:
    for path in sorted([*(real_data / "videos").iterdir(), *real_data.glob("constructed/*.mp4")]):
        exact, fast = both(path, detector=detector)
        assert fast.cuts == exact.cuts, path.name


def test_fast_finds_the_cuts_of_odd_files(real_data: Path) -> None:
    compared = 0
    for path in sorted((real_data / "odd").iterdir()):
        try:
            exact = find_cuts(path, ClipSettings(threshold=8.0))
        except BadInputError:
            continue
        fast = find_cuts(path, ClipSettings(threshold=8.0, search="fast"))
        assert fast.cuts == exact.cuts, path.name
        compared += 1
    assert compared > 15


# -- when the stream is no evidence --------------------------------------------------------------


def test_fast_says_why_it_decodes_everything(
    takes: list[list[np.ndarray]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one_gop = encode(tmp_path / "one.mp4", takes[0][:40])
    with caplog.at_level("INFO", logger=cuts_module.__name__):
        found = find_cuts(one_gop, ClipSettings(search="fast"))
    assert found.fallback == "1 usable keyframes in 40 frames"
    assert found.decoded_frames == 40
    assert "one.mp4: every frame is decoded: 1 usable keyframes" in caplog.text


def test_a_video_of_which_nothing_decodes_is_bad_input(
    takes: list[list[np.ndarray]], tmp_path: Path
) -> None:
    path = encode(tmp_path / "v.mp4", takes[0][:40])
    with av.open(str(path)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    for start, size in places:
        data[start : start + size] = b"\xff" * size
    path.write_bytes(data)
    for search in ("exact", "fast"):
        with pytest.raises(BadInputError, match="none of the frames"):
            find_cuts(path, ClipSettings(search=search))


def test_a_keyframe_that_does_not_decode_is_a_fallback(
    takes: list[list[np.ndarray]], tmp_path: Path
) -> None:
    slow = [image for image in takes[0] for _ in range(2)]
    path = encode(tmp_path / "v.mp4", slow)
    with av.open(str(path)) as container:
        keys = [p for p in container.demux(video=0) if p.is_keyframe and p.size]
        start, size = keys[2].pos, keys[2].size
    data = bytearray(path.read_bytes())
    data[start + 4 : start + size] = bytes(size - 4)
    path.write_bytes(data)
    exact, fast = both(path)
    assert fast.fallback is not None
    assert fast.cuts == exact.cuts
