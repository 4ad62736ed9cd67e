"""What a take knows of a hand: sides by majority, shapes that never change."""

from __future__ import annotations

import numpy as np
import pytest

from ego_assets.hands.takes import bones_m, count_votes, fixed_shapes, owner_of, side_of


def mask(frame: int, side: str, wearer: bool = True, score: float = 1.0) -> dict:
    return {
        "track_id": "h",
        "frame_index": frame,
        "side": side,
        "is_wearer": wearer,
        "score": score,
    }


def test_votes_are_weighed_and_shared_frames_count_once():
    first = count_votes([mask(0, "left", score=0.9), mask(1, "right", score=0.3)], 0, {})
    assert first["h"] == pytest.approx({"left": 0.9, "right": 0.3, "wearer": 1.2})
    again = count_votes([mask(1, "right"), mask(2, "right", wearer=False)], 2, first)
    assert again["h"] == pytest.approx({"left": 0.9, "right": 1.3, "wearer": 1.2, "other": 1.0})
    assert first["h"]["right"] == 0.3, "what came in is left alone"
    assert (side_of(first["h"]), side_of(again["h"])) == ("left", "right")
    fresh = count_votes([mask(1, "right")], 2, {})
    assert fresh["h"]["right"] == 1.0, "a track that the clip before did not have"


def test_the_wearers_hands_have_one_shape():
    rng = np.random.default_rng(0)
    seen = [(track, "wearer", rng.normal(2, 1, 10), True) for track in "ab" for _ in range(50)]
    seen += [("c", "c", np.full(10, -3.0), True)]
    shapes = fixed_shapes(seen, {})
    assert shapes["a"] == shapes["b"] == shapes["wearer"]
    np.testing.assert_allclose(shapes["a"], 2, atol=0.6)
    assert shapes["c"] == [-3.0] * 10
    # Later looks change nothing, nor does taking the track for somebody else's.
    nought = np.zeros(10)
    later = fixed_shapes([("a", "a", nought, True), ("d", "wearer", nought, True)], shapes)
    assert later["a"] == later["d"] == shapes["wearer"]


def test_bad_looks_count_only_if_all_are():
    bad, good = ("a", "a", np.full(10, 50.0), False), ("a", "a", np.ones(10), True)
    assert fixed_shapes([bad, bad, good], {})["a"] == [1.0] * 10
    assert fixed_shapes([bad], {})["a"] == [50.0] * 10


def test_whose_hand_it_is():
    assert owner_of("h", {"wearer": 2.0, "other": 1.0}) == "wearer"
    assert owner_of("h", {"wearer": 1.0, "other": 2.0}) == "h"


def test_bones_are_measured_along_the_fingers():
    joints = np.zeros((1, 21, 3))
    for finger in range(5):
        for joint in range(4):
            joints[0, 1 + 4 * finger + joint, 0] = 0.1 + 0.02 * joint
    assert bones_m(joints) == pytest.approx([5 * 0.16])
