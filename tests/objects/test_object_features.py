"""Features of objects, followed together and one by one."""

from __future__ import annotations

import cv2
import numpy as np

from ego_assets.objects.baseline.features import FeatureTracks

SHAPE = (120, 200)


def pictures() -> list[np.ndarray]:
    """A texture that moves right."""
    noise = np.random.default_rng(0).integers(0, 255, (*SHAPE, 1)).astype(np.uint8)
    texture = cv2.GaussianBlur(noise, (0, 0), 2)
    texture = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX)
    return [np.roll(texture, 2 * step, axis=1) for step in range(6)]


def mask(left: int) -> np.ndarray:
    found = np.zeros(SHAPE, np.uint8)
    found[30:90, left : left + 50] = 1
    return found


def test_objects_that_are_followed_together_are_followed_as_alone() -> None:
    masks = [[mask(10 + 2 * n), mask(100 + 2 * n) if n != 3 else None] for n in range(6)]
    together = [FeatureTracks(), FeatureTracks()]
    alone = [FeatureTracks(), FeatureTracks()]
    for frame, (grey, shown) in enumerate(zip(pictures(), masks, strict=True)):
        FeatureTracks.step_together(together, frame, grey, shown)
        for track, one in zip(alone, shown, strict=True):
            FeatureTracks.step_together([track], frame, grey, [one])
    for one, other in zip(together, alone, strict=True):
        assert {f: list(p) for f, p in one.places.items()} == {
            f: list(p) for f, p in other.places.items()
        }
        for frame, places in one.places.items():
            assert all((places[k] == other.places[frame][k]).all() for k in places)
    first, last = together[0].places[0], together[0].places[5]
    kept = first.keys() & last.keys()
    assert len(kept) > 20
    moved = np.median([last[k] - first[k] for k in kept], axis=0)
    assert np.allclose(moved, [10, 0], atol=0.2)
    assert together[1].places[3] == {}
