"""The plain video: frame n is picture n at its time, with what the rows of frame n say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from ego_assets.media.video_writer import write_mp4
from ego_assets.viewing.overlay import LANE_PX, write_overlay
from ego_assets.viewing.states import INVALID, STATE_COLORS, VALID
from ego_assets.vision import draw
from tests.viewing.shown_lake import (
    ABSENT,
    BAR_PX,
    CUT,
    FIRST,
    FRAMES,
    HEIGHT,
    JUMPS,
    NO_CAMERA,
    SECOND,
    WIDTH,
    ShownLake,
    joints_px,
    number_in,
    time_of,
)
from tests.viewing.test_recording_of_clips import footage_of

TITLE_PX = draw.LINE_PX + 4


@pytest.fixture(scope="module")
def overlay(shown: ShownLake, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("overlay") / "both.mp4"
    assert write_overlay(footage_of(shown, FIRST, SECOND, side=WIDTH), path) == FRAMES
    assert [p.name for p in path.parent.iterdir()] == ["both.mp4"]
    return path


def pictures_of(path: Path) -> list[tuple[float, np.ndarray]]:
    with av.open(str(path)) as container:
        return [(float(f.time), f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]


def white_at(picture: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(N,) whether there is a white dot at each of the points of the video's picture."""
    x, y = np.round(points).astype(int).T
    return np.array(
        [
            picture[b - 1 : b + 2, a - 1 : a + 2].min(axis=-1).max() > 200
            for a, b in zip(x, y, strict=True)
        ]
    )


def test_each_frame_is_its_picture_with_its_own_hands(overlay: Path) -> None:
    found = pictures_of(overlay)
    assert len(found) == FRAMES
    for frame, (seconds, picture) in enumerate(found):
        inner = picture[TITLE_PX : TITLE_PX + HEIGHT]
        assert number_in(inner) == frame
        assert seconds == pytest.approx(time_of(frame), abs=1e-4)
        assert white_at(inner, joints_px(frame, left=True)).all()
        right = white_at(inner, joints_px(frame))
        assert not right.any() if frame in (ABSENT, *JUMPS) else right.all()
        assert inner[BAR_PX + 2 : BAR_PX + 8, -40:-6].std() < 12, (
            "nothing is drawn where there is nothing"
        )


def is_near(pixels: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    found: np.ndarray = np.abs(pixels.astype(int) - color).max(axis=-1) < 60
    return found


def test_frames_with_rows_that_are_not_valid_look_different(overlay: Path) -> None:
    """The lanes of a clip are below its pictures: hands, camera, objects, robots."""
    for frame, (_, picture) in enumerate(pictures_of(overlay)):
        left, right = picture[TITLE_PX + 80 : TITLE_PX + 200, [[1], [-2]]].mean(axis=0)[:, 0]
        bad = frame in (*JUMPS, *NO_CAMERA)
        assert is_near(left, STATE_COLORS[INVALID]) == bad, frame
        assert is_near(right, STATE_COLORS[INVALID]) == bad, frame
        below = picture[TITLE_PX + HEIGHT :]
        lanes = below[TITLE_PX:][2 :: LANE_PX + 1][:3]
        first, last = (0, CUT) if frame < CUT else (CUT, FRAMES)
        for lane, wrong in zip(lanes, (JUMPS, NO_CAMERA, ()), strict=True):
            for at in range(first, last):
                if at == frame:
                    continue  # the mark is there
                color = lane[round((at - first + 0.5) * WIDTH / (last - first))]
                state = INVALID if at in wrong else VALID
                assert is_near(color, STATE_COLORS[state]), (frame, at)


def test_the_title_tells_frames_apart_and_the_legend_has_the_colours(overlay: Path) -> None:
    found = pictures_of(overlay)
    titles = {picture[:TITLE_PX].tobytes() for _, picture in found}
    assert len(titles) == FRAMES
    legend = found[0][1][TITLE_PX + HEIGHT :].astype(int)
    for color in (draw.LEFT_COLOR, draw.RIGHT_COLOR, draw.AXES["x"]):
        assert (np.abs(legend - color).max(axis=-1) < 40).sum() > 40


def test_it_plays_everywhere(overlay: Path) -> None:
    with av.open(str(overlay)) as container:
        stream: Any = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt, context.has_b_frames) == ("h264", "yuv420p", False)
        told = context.colorspace, context.color_primaries, context.color_trc, context.color_range
        assert [int(each) for each in told] == [1, 1, 1, 1]
        packets = [p for p in container.demux(stream) if p.size]
        assert [p.pts for p in packets] == [p.dts for p in packets]
        assert packets[0].is_keyframe
    data = overlay.read_bytes()
    assert data.find(b"moov") < data.find(b"mdat"), "a browser has to load all of it first"


def test_colours_and_odd_sizes_are_kept(tmp_path: Path) -> None:
    picture = np.full((51, 71, 3), (200, 40, 90), np.uint8)
    assert write_mp4(tmp_path / "odd.mp4", [(5.0, picture), (5.04, picture)]) == 2
    (first, shown), _ = pictures_of(tmp_path / "odd.mp4")
    assert (first, shown.shape) == (0.0, (52, 72, 3))
    assert np.abs(shown[10:40, 10:60].astype(int) - (200, 40, 90)).max() < 6


def test_a_video_that_fails_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no picture"):
        write_mp4(tmp_path / "none.mp4", [])
    sizes = [(0.0, np.zeros((50, 70, 3), np.uint8)), (0.1, np.zeros((60, 70, 3), np.uint8))]
    with pytest.raises(ValueError, match="several sizes"):
        write_mp4(tmp_path / "two.mp4", sizes)
    assert list(tmp_path.iterdir()) == []
