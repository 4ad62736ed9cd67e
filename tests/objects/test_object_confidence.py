"""The confidence of object poses: it grows with the evidence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ego_assets.objects.confidence import confidence_of

HALF = float(np.sqrt(0.5))
ROW: dict[str, Any] = {
    "inliers": 60,
    "reprojection_error_px": 0.4,
    "camera_from_object_xyzw": [0.0, 0.0, 0.0, 1.0],
}


@pytest.mark.parametrize(
    "worse",
    [
        {"inliers": 15},
        {"reprojection_error_px": 0.8},
        {"camera_from_object_xyzw": [0.0, HALF, 0.0, -HALF]},
    ],
)
def test_less_evidence_is_less_confidence(worse: dict[str, Any]) -> None:
    assert 0 <= confidence_of(ROW | worse) < confidence_of(ROW) <= 1


def test_a_quaternion_and_its_negative_are_one_turn() -> None:
    turned = ROW | {"camera_from_object_xyzw": [0.0, HALF, 0.0, HALF]}
    other = ROW | {"camera_from_object_xyzw": [0.0, -HALF, 0.0, -HALF]}
    assert confidence_of(turned) == pytest.approx(confidence_of(other))


def test_the_size_of_the_picture_does_not_matter() -> None:
    large = ROW | {"reprojection_error_px": 1.6}
    assert confidence_of(large, limit_px=6.0) == pytest.approx(confidence_of(ROW, limit_px=1.5))
