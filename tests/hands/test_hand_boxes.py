"""The hand in a mask, without the arm: against the joints of rendered hands."""

from __future__ import annotations

import numpy as np
import pytest

from ego_assets.hands.hamer.crops import hand_box
from ego_assets.vision.rle import mask_box
from samples import Truth, load_truth
from tests.support.rendered import render_sample


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    return load_truth(render_sample(tmp_path_factory.mktemp("s"), seed=3, duration_s=1.0))


def test_a_bare_forearm_is_left_out(truth: Truth) -> None:
    """Boxes of masks are 1.7 times as large as those of the joints, and off by a third of them."""
    compared = []
    for frame in range(0, len(truth.pts_s), 5):
        for side in np.flatnonzero(truth.hand_visible[frame]):
            mask = truth.hand_mask(frame, side) | truth.forearm_mask(frame, side)
            joints = truth.joints_px[frame, side]
            found, whole = hand_box(mask), mask_box(mask)
            if found is None or whole is None or joints.min() < 0:
                continue
            low, high = joints.min(axis=0), joints.max(axis=0)
            size = (high - low).max()
            row = []
            for box in (np.array(found), np.array(whole)):
                off = np.linalg.norm((box[:2] + box[2:]) / 2 - (low + high) / 2)
                row += [off / size, (box[2:] - box[:2]).max() / size]
            compared.append(row)
    assert len(compared) > 5
    off, large, off_whole, large_whole = np.median(compared, axis=0)
    assert large_whole > 1.5
    assert large < 1.35
    assert off < 0.5 * off_whole


def test_a_hand_without_an_arm_stays_whole() -> None:
    mask = np.zeros((200, 300), bool)
    mask[50:110, 100:160] = True
    assert hand_box(mask) == mask_box(mask)
    assert hand_box(np.zeros((200, 300), bool)) is None
