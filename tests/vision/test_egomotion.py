"""The camera's motion in the picture, and all motion."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ego_assets.vision import egomotion
from ego_assets.vision.egomotion import MotionField


def textured(height: int, width: int) -> np.ndarray:
    """(height, width) uint8 picture."""
    noise = np.random.default_rng(0).normal(0, 1, (height, width))
    soft = cv2.GaussianBlur(noise, (0, 0), 2.0)
    return np.clip(128 + 40 * soft / soft.std(), 0, 255).astype(np.uint8)


def test_what_moves_by_itself_has_another_flow_than_the_background() -> None:
    wall, thing = textured(200, 260), textured(80, 80)
    earlier, later = wall[:180, 4:244].copy(), wall[:180, :240].copy()  # the camera turns by 4
    earlier[60:120, 80:140] = thing[:60, :60]
    later[65:125, 80:140] = thing[:60, :60]
    flow, background, change = MotionField().flows(earlier, later)
    assert np.median(background[..., 0]) == pytest.approx(-4, abs=0.3)
    assert np.median(flow[75:115, 90:130], axis=(0, 1)) == pytest.approx([0, -5], abs=0.5)
    assert change[75:115, 90:130].mean() > 5 * change[10:50, 10:50].mean()


@pytest.mark.parametrize("shape", [(2, 2), (8, 8), (30, 500), (500, 30)])
def test_pictures_of_few_pixels_have_a_flow(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenCV's flow raises or crashes in them: it is given larger ones."""
    sizes = []
    create = cv2.DISOpticalFlow.create

    class Noted:
        def __init__(self, preset: int) -> None:
            self.flow = create(preset)

        def calc(self, one: np.ndarray, other: np.ndarray, into: np.ndarray) -> np.ndarray:
            sizes.append(min(one.shape))
            assert sizes[-1] >= egomotion._LEAST_SIDE, "before it crashes"
            return self.flow.calc(one, other, into)

    monkeypatch.setattr(cv2, "DISOpticalFlow", type("Flow", (), {"create": staticmethod(Noted)}))
    picture = textured(*shape)
    flow, background, change = MotionField().flows(picture, picture)
    assert sizes == [40]
    assert flow.shape == background.shape == (*shape, 2)
    assert change.shape == shape
    assert np.abs(flow).max() < 0.5
