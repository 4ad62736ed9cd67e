"""The confidence of cameras: it grows with the evidence, and is null where there is no pose."""

from __future__ import annotations

from typing import Any

import pytest

from ego_assets.scene.confidence import confidence_of

MOVING: dict[str, Any] = {
    "is_valid": True,
    "registration": "pnp",
    "inlier_share": 0.97,
    "reprojection_error_px": 0.4,
    "fx_px": 400.0,
}
STATIC = MOVING | {"registration": "static"}


@pytest.mark.parametrize(
    "worse",
    [
        {"inlier_share": 0.6},
        {"reprojection_error_px": 2.0},
    ],
)
def test_less_evidence_is_less_confidence(worse: dict[str, Any]) -> None:
    sure = confidence_of(MOVING)
    less = confidence_of(MOVING | worse)
    assert sure is not None
    assert less is not None
    assert 0 <= less < sure <= 1


def test_a_static_camera_is_judged_by_what_stays_in_place() -> None:
    sure, less = confidence_of(STATIC), confidence_of(STATIC | {"inlier_share": 0.3})
    assert sure is not None
    assert less is not None
    assert 0 <= less < sure <= 1


def test_the_size_of_the_picture_does_not_matter() -> None:
    large = MOVING | {"reprojection_error_px": 1.6, "fx_px": 1600.0}
    assert confidence_of(large) == pytest.approx(confidence_of(MOVING))


def test_no_pose_has_no_confidence() -> None:
    assert confidence_of(MOVING | {"is_valid": False}) is None
