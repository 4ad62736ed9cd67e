"""Faces as mosaics: nothing but means is left of them, and a face that is missed stays hidden."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pytest

from ego_assets.operator import Frame
from ego_assets.vision.faces.blurring import (
    BLOCKS,
    GROWN,
    HOLD_FRAMES,
    FaceBlur,
    boxes_at,
    covered,
    pixelated,
)

FACE = np.array([40.0, 20.0, 80.0, 60.0])
GROWN_FACE = (32, 12, 88, 68)


def noise(seed: int = 0, size: tuple[int, int] = (100, 160)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


class ScriptedFinder:
    """Finds what a script says, frame by frame, and counts how often it looks."""

    max_side_px = 160

    def __init__(self, script: Mapping[int, Iterable[np.ndarray]]) -> None:
        self.script = script
        self.looks: list[int] = []

    def said(self) -> dict[str, Any]:
        return {"finder": "scripted"}

    def find(self, image: np.ndarray) -> np.ndarray:
        index = int(image[0, 0, 0])
        self.looks.append(index)
        return np.array(list(self.script.get(index, ())), np.float64).reshape(-1, 4)


def frames(indices: Iterable[int]) -> list[Frame]:
    """Noise whose first pixel tells the frame."""
    made = []
    for index in indices:
        image = noise(index)
        image[0, 0] = index
        made.append(Frame(index=index, pts_s=index / 30, image=image, scale=1.0))
    return made


def hidden_in(
    script: Mapping[int, Iterable[np.ndarray]], indices: Iterable[int], **options: Any
) -> dict[int, np.ndarray]:
    """{frame: (H, W) bool, where its picture is another one}"""
    given = frames(indices)
    before = {f.index: f.image.copy() for f in given}
    shown = FaceBlur(ScriptedFinder(script)).frames(iter(given), **options)
    return {f.index: (f.image != before[f.index]).any(axis=2) for f in shown}


def test_a_mosaic_leaves_a_few_means_and_the_rest_as_it_was() -> None:
    image = noise()
    before = image.copy()
    shown = pixelated(image, FACE[None])
    assert (image == before).all()
    left, top, right, bottom = GROWN_FACE
    region = shown[top:bottom, left:right]
    side = (right - left) // BLOCKS
    for row in range(0, bottom - top, side):
        for column in range(0, right - left, side):
            block = region[row : row + side, column : column + side].reshape(-1, 3)
            assert (block.var(axis=0) == 0).all()
            source = image[top + row : top + row + side, left + column : left + column + side]
            assert np.abs(block[0] - source.mean(axis=(0, 1))).max() <= 1
    assert len(np.unique(region.reshape(-1, 3), axis=0)) <= BLOCKS**2
    outside = np.ones(image.shape[:2], bool)
    outside[top:bottom, left:right] = False
    assert (shown[outside] == image[outside]).all()
    assert (covered(FACE[None], 160, 100) == ~outside).all()


@pytest.mark.parametrize("scale", [0.25, 1.0, 3.0])
def test_blocks_are_as_large_as_the_face_is(scale: float) -> None:
    image = noise(size=(400, 600))
    box = np.array([100.0, 100.0, 100 + 80 * scale, 100 + 60 * scale])
    hidden = covered(box[None], 600, 400)
    colours = np.unique(pixelated(image, box[None])[hidden], axis=0)
    assert len(colours) <= BLOCKS**2
    assert hidden.sum() == pytest.approx(80 * 60 * scale**2 * GROWN**2, rel=0.2)


def test_a_face_at_the_edge_has_no_smaller_blocks_and_one_outside_none() -> None:
    image = noise()
    half = pixelated(image, np.array([[-20.0, 20.0, 20.0, 60.0]]))
    changed = half[12:68, :28]
    assert len(np.unique(changed.reshape(-1, 3), axis=0)) <= BLOCKS * BLOCKS // 2
    assert (half[:, 28:] == image[:, 28:]).all()
    assert (pixelated(image, np.array([[200.0, 20.0, 240.0, 60.0]])) == image).all()


def test_a_box_without_end_hides_the_whole_picture() -> None:
    shown = pixelated(noise(), np.array([[-1e6, -1e6, 1e6, 1e6]]))
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) == 1


def test_a_face_that_is_missed_between_two_frames_is_hidden_on_the_way() -> None:
    script = {3: [FACE], 7: [FACE + 16]}
    hidden = hidden_in(script, range(11))
    for index in range(3, 8):
        way = FACE + 4 * (index - 3)
        # Noise may be the mean of its block here and there.
        assert hidden[index][covered(way[None], 160, 100)].mean() > 0.99, index
        assert not hidden[index][~covered(way[None], 160, 100)].any(), index


def test_a_face_stays_hidden_a_few_frames_before_and_after() -> None:
    hidden = hidden_in({10: [FACE], 11: [FACE]}, range(20))
    blurred = [index for index, where in hidden.items() if where.any()]
    # Frame 10 - HOLD_FRAMES sees only one of the two.
    assert blurred == list(range(11 - HOLD_FRAMES, 10 + HOLD_FRAMES + 1))
    assert list(hidden) == list(range(20))


def test_what_is_seen_in_one_frame_only_is_hidden_there_alone() -> None:
    hidden = hidden_in({10: [FACE], 12: [FACE + 70]}, range(20))
    assert [index for index, where in hidden.items() if where.any()] == [10, 12]


def test_what_is_found_counts_more_than_what_is_held() -> None:
    script = {4: [FACE], 5: [FACE + 3], 6: [FACE + 6]}
    np.testing.assert_array_equal(
        boxes_at({i: np.array(b) for i, b in script.items()}, 5), [FACE + 3]
    )


def test_a_face_that_moves_far_leaves_nothing_behind() -> None:
    script = {index: [FACE + 8 * index] for index in range(8)}
    hidden = hidden_in(script, range(8))
    for index, where in hidden.items():
        assert not where[~covered(np.array(script[index]), 160, 100)].any(), index


def test_two_faces_are_held_each_by_itself() -> None:
    other = FACE + np.array([60, 0, 60, 0])
    found = {
        4: np.array([FACE, other]),
        5: np.array([other + 1]),
        6: np.array([FACE + 2, other + 2]),
    }
    np.testing.assert_allclose(boxes_at(found, 5), [other + 1, FACE + 1])


def test_gaps_in_the_frames_count_by_their_index() -> None:
    hidden = hidden_in({0: [FACE], 1: [FACE]}, [0, 1, 3, 5, 6, 50])
    assert [i for i, where in hidden.items() if where.any()] == [0, 1, 3, 5]


def test_only_frames_near_the_needed_ones_are_looked_at() -> None:
    finder = ScriptedFinder({25: [FACE], 27: [FACE]})
    shown = list(FaceBlur(finder).frames(iter(frames(range(60))), needed=[30, 50]))
    assert [f.index for f in shown] == [30, 50]
    wanted = {i + d for i in (30, 50) for d in range(-HOLD_FRAMES, HOLD_FRAMES + 1)}
    assert finder.looks == sorted(wanted)
    whole = FaceBlur(ScriptedFinder(finder.script)).frames(iter(frames(range(60))))
    alike = {f.index: f.image for f in whole}
    for frame in shown:
        assert (frame.image == alike[frame.index]).all()


def test_few_pictures_are_in_memory_at_a_time() -> None:
    taken = 0

    def counting() -> Iterable[Frame]:
        nonlocal taken
        for frame in frames(range(30)):
            taken += 1
            yield frame

    for given, frame in enumerate(FaceBlur(ScriptedFinder({})).frames(counting())):
        assert frame.index == given
        assert taken <= given + HOLD_FRAMES + 1


def test_what_pictures_depend_on_is_said() -> None:
    said = FaceBlur(ScriptedFinder({})).said()
    assert said["shown"] == "blurred" and said["finder"] == "scripted"
    assert (said["blocks"], said["grown"], said["hold_frames"]) == (BLOCKS, GROWN, HOLD_FRAMES)
