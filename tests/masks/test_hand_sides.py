"""Sides of hands: words first, then where the arm comes in, and nobody has two left hands."""

from __future__ import annotations

from collections.abc import Mapping

from ego_assets.masks.sides import SideEvidence, settle_sides


def seen(
    votes: Mapping[str, float],
    entry: float = 0.5,
    frames: range = range(10),
    is_low: bool = True,
) -> SideEvidence:
    found = SideEvidence()
    for frame in frames:
        found.look(frame, entry, is_low, votes)
    return found


def test_words_decide() -> None:
    assert seen({"left": 0.9}, entry=0.9).side == "left"
    assert seen({"left": 0.5, "right": 0.9}, entry=0.1).side == "right"


def test_where_both_words_match_the_arm_decides() -> None:
    assert seen({"left": 0.9, "right": 0.85}, entry=0.8).side == "right"
    assert seen({"left": 0.85, "right": 0.9}, entry=0.2).side == "left"
    assert seen({}, entry=0.2).side == "left"


def test_one_frame_does_not_outvote_many() -> None:
    found = seen({"left": 0.8})
    found.look(10, 0.9, True, {"right": 0.99})
    assert found.side == "left"


def test_the_surer_of_two_left_hands_is_it() -> None:
    hands = {"a": seen({"left": 0.9, "right": 0.6}), "b": seen({"left": 0.9})}
    assert settle_sides(hands) == {"a": "right", "b": "left"}


def test_what_stands_stays() -> None:
    hands = {"a": seen({"left": 0.9}), "b": seen({"left": 0.9, "right": 0.7})}
    assert settle_sides(hands, {"b": "left"}) == {"a": "right", "b": "left"}
    assert settle_sides({}, {"old": "left"}) == {"old": "left"}


def test_hands_at_other_times_are_no_rivals() -> None:
    hands = {"a": seen({"left": 0.9}), "b": seen({"left": 0.8}, frames=range(20, 30))}
    assert settle_sides(hands) == {"a": "left", "b": "left"}


def test_other_peoples_hands_are_no_rivals() -> None:
    hands = {"a": seen({"left": 0.9}), "b": seen({"left": 0.8}, is_low=False)}
    assert hands["a"].is_wearer
    assert not hands["b"].is_wearer
    assert settle_sides(hands) == {"a": "left", "b": "left"}


def test_a_third_hand_keeps_what_was_said_of_it() -> None:
    hands = {
        "a": seen({"left": 0.9}),
        "b": seen({"right": 0.9}),
        "c": seen({"left": 0.9, "right": 0.5}),
    }
    assert settle_sides(hands) == {"a": "left", "b": "right", "c": "left"}
