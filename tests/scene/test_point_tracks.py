"""Point tracks: numbering, masks, seeds, accuracy."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from ego_assets.operator import Frame
from ego_assets.scene.colmap.point_tracks import Seeds, TrackTable, collect_tracks
from tests.support.plane_scene import texture

STEP = np.array([1.5, -0.75])
SHAPE = (120, 160)


def sliding(count: int) -> Iterator[Frame]:
    """A wide texture sliding by STEP a frame."""
    wide = cv2.resize(texture(5), (512, 512), interpolation=cv2.INTER_CUBIC)
    for i in range(count):
        shift = np.float32([[1, 0, STEP[0] * i - 150], [0, 1, STEP[1] * i - 150]])
        image = cv2.warpAffine(wide, shift, SHAPE[::-1], flags=cv2.INTER_CUBIC)
        yield Frame(10 + i, i / 30, np.asarray(image), 1.0)


def follow(count: int = 12, **changed: object) -> TrackTable:
    arguments: dict = {"mask_of": lambda index, shape: None, "max_tracks": 150} | changed
    return collect_tracks(sliding(count), **arguments)


def test_points_follow_the_motion() -> None:
    tracks = follow()
    ids, a, b = tracks.common(0, 8)
    assert len(ids) > 60
    assert np.percentile(np.linalg.norm(b - a - 8 * STEP, axis=1), 90) < 0.15


def test_tracks_ascend_in_each_frame_and_are_never_reused() -> None:
    tracks = follow(20)
    seen_last: dict[int, int] = {}
    for position in range(len(tracks)):
        ids, xy = tracks.at(position)
        assert (np.diff(ids) > 0).all()
        assert len(ids) == len(xy)
        for track in ids.tolist():
            assert seen_last.get(track, position - 1) == position - 1
            seen_last[track] = position
    assert len(tracks.colours) > max(seen_last)


def test_nothing_is_tracked_where_it_is_forbidden() -> None:
    def left_half(index: int, shape: tuple[int, int]) -> np.ndarray:
        assert shape == SHAPE
        mask = np.zeros(shape, bool)
        mask[:, : shape[1] // 2] = True
        return mask

    tracks = follow(mask_of=left_half)
    assert len(tracks.xy)
    assert tracks.xy[:, 0].min() >= SHAPE[1] // 2 - 0.5


def test_seeds_become_the_first_tracks_from_their_frame_on() -> None:
    full = np.array([[100.0, 120.0], [-10.0, -10.0], [200.0, 100.0]])
    tracks = follow(seeds=Seeds(13, full, (320, 240)))
    before, _ = tracks.at(2)
    ids, xy = tracks.at(3)
    assert (before >= 3).all()
    assert ids[:2].tolist() == [0, 2]
    np.testing.assert_allclose(xy[:2], [[49.75, 59.75], [99.75, 49.75]], atol=1e-5)


def test_no_frames_give_an_empty_table() -> None:
    tracks = collect_tracks(iter(()), lambda index, shape: None, 100)
    assert len(tracks) == 0
    assert tracks.size == (0, 0)


def test_a_black_picture_has_no_tracks() -> None:
    black = (Frame(i, i / 30, np.zeros((*SHAPE, 3), np.uint8), 1.0) for i in range(3))
    tracks = collect_tracks(black, lambda index, shape: None, 100)
    assert len(tracks) == 3
    assert len(tracks.track) == 0
