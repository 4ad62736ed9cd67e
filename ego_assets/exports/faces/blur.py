"""Whether the pictures of an export show faces, and what blurs them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ego_assets.exports.faces.rule import rules_of
from ego_assets.exports.grid import ExportError
from resources.environment import faces_must_be_blurred
from resources.lake import Lake

if TYPE_CHECKING:
    from ego_assets.vision.faces.blurring import FaceBlur

Faces = Literal["keep", "blur"]


def blur_of(faces: Faces) -> FaceBlur | None:
    """What the pictures go through; None: faces stay. Raises ExportError without the weights."""
    if faces == "keep":
        return None
    try:
        from ego_assets.models.faces.centerface import CenterFace
        from ego_assets.vision.faces.blurring import FaceBlur
    except ModuleNotFoundError as error:
        raise ExportError(
            "blurring faces needs OpenCV: pip install opencv-python-headless"
        ) from error
    from ego_assets.models.weights import WeightsError

    try:
        return FaceBlur(CenterFace.load())
    except WeightsError as error:
        raise ExportError(f"faces cannot be blurred: {error}") from error


def check_faces(faces: Faces | None, lake: Lake) -> None:
    """Raise ExportError where faces must be blurred, and would not be. None: the format cannot."""
    if faces == "blur":
        return
    if faces_must_be_blurred():
        who = "EGO_FACES is blur"
    elif rules_of(lake).faces == "blur":
        who = "the rule of this lake for faces is blur (`ego config lake`)"
    else:
        return
    if faces is None:
        raise ExportError(
            f"{who}, and this format shows pictures as they were recorded: export another one, "
            "with `--faces blur`"
        )
    raise ExportError(
        f"{who}, and the pictures of this export would show faces: give `--faces blur`"
    )
