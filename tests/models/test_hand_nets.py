"""The hand nets see what is in real pictures, whichever library runs them."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ego_assets.masks.landmarks.scan import HandScan
from ego_assets.models.hand_nets import runtime
from ego_assets.models.hand_nets.landmarks import HandLook, LandmarkNet, region_of
from ego_assets.models.hand_nets.palms import PalmDetector, Region, anchors, windows
from ego_assets.models.hand_nets.runtime import load_net
from ego_assets.models.weights import WeightsError

EQUAL = 1e-3


@pytest.fixture(scope="module")
def pictures(real_data: Path) -> list[np.ndarray]:
    """Hands that fill the picture, of five people."""
    files = sorted((real_data / "images" / "hands_freihand").glob("*.jpg"))
    return [np.ascontiguousarray(cv2.imread(str(f))[..., ::-1]) for f in files]


def whole(image: np.ndarray, share: float = 1.0, angle: float = 0.0) -> Region:
    height, width = image.shape[:2]
    return Region((width - 1) / 2, (height - 1) / 2, share * max(height, width), angle)


def test_both_runtimes_give_the_same(hand_nets: Path, pictures: list[np.ndarray]) -> None:
    pytest.importorskip("ai_edge_litert")
    names = {
        "palm_detection_full.tflite": ("Identity", "Identity_1"),
        "hand_landmark_full.tflite": ("Identity", "Identity_1", "Identity_2", "Identity_3"),
    }
    for file, outputs in names.items():
        side = 192 if file.startswith("palm") else 224
        nets = [load_net(hand_nets / file, outputs, kind) for kind in ("litert", "opencv")]
        for image in pictures[:3]:
            crop = whole(image, 1.4, 0.3).crop(image, side)
            one, other = (net.run(crop) for net in nets)
            for name in outputs:
                assert one[name].shape == other[name].shape
                # Places in pixels of the crop, all else from -1 to 1 or so.
                assert np.abs(one[name] - other[name]).max() < EQUAL * max(
                    1, np.abs(one[name]).max()
                )


def test_many_threads_share_a_few_copies_of_a_net(
    hand_nets: Path, pictures: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[object] = []

    class Counted(runtime._OpenCvNet):
        def __init__(self, *arguments: Any) -> None:
            built.append(self)
            super().__init__(*arguments)

    monkeypatch.setattr(runtime, "_OpenCvNet", Counted)
    net = load_net(hand_nets / "palm_detection_full.tflite", ("Identity_1",), "opencv")
    crops = [whole(image, 1.4, turn).crop(image, 192) for image in pictures for turn in range(4)]
    alone = [net.run(crop)["Identity_1"] for crop in crops]
    assert len(built) == 1
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda crop: net.run(crop)["Identity_1"], crops))
    assert len(built) <= runtime.MOST_COPIES
    for one, other in zip(alone, found, strict=True):
        np.testing.assert_array_equal(one, other)


def best_look(hand_nets: Path, image: np.ndarray) -> HandLook:
    return max(HandScan(hand_nets).find(image, []), key=lambda look: look.presence)


def test_joints_lie_on_the_hand(
    hand_nets: Path, real_data: Path, pictures: list[np.ndarray]
) -> None:
    """Against joints that were measured: 21 points, as a share of the hand's box."""
    truth = json.loads((real_data / "images/hands_freihand/annotations.json").read_text())
    by_image = {a["image_id"]: a for a in truth["annotations"]}
    names = {i["file_name"].rpartition("/")[2]: i["id"] for i in truth["images"]}
    files = sorted((real_data / "images" / "hands_freihand").glob("*.jpg"))
    errors = []
    for file, image in zip(files, pictures, strict=True):
        true = np.array(by_image[names[file.name]]["keypoints"], float).reshape(21, 3)[:, :2]
        look = best_look(hand_nets, image)
        assert look.presence > 0.5
        errors.append(np.linalg.norm(look.points - true, axis=1).mean() / np.ptp(true, 0).max())
    assert float(np.mean(errors)) < 0.16, errors


def test_a_turned_picture_turns_what_is_seen(hand_nets: Path, pictures: list[np.ndarray]) -> None:
    image = pictures[0]
    turned = np.ascontiguousarray(np.rot90(image, -1))
    upright, lying = (best_look(hand_nets, each) for each in (image, turned))
    height = image.shape[0]
    expected = np.column_stack([height - 1 - upright.points[:, 1], upright.points[:, 0]])
    size = np.ptp(expected, axis=0).max()
    assert np.linalg.norm(lying.points - expected, axis=1).mean() < 0.08 * size
    flat = np.column_stack([-upright.metres[:, 1], upright.metres[:, 0]])
    assert np.linalg.norm(lying.metres[:, :2] - flat, axis=1).mean() < 0.012


def test_a_grey_wall_is_no_hand(hand_nets: Path) -> None:
    image = np.full((240, 320, 3), 128, np.uint8)
    assert LandmarkNet(hand_nets).look(image, whole(image)).presence < 0.1
    assert PalmDetector(hand_nets).find(image, whole(image), 0.5) == []


def test_a_region_maps_a_crop_onto_the_picture() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    image[30:41, 120:131] = 255
    region = Region(125, 35, 40, np.pi / 2)
    crop = region.crop(image, 80)
    y, x = np.nonzero(crop[..., 0] > 0.5)
    centre = np.array([x.mean(), y.mean()])
    to_picture = region.to_picture(80)
    assert to_picture[:, :2] @ centre + to_picture[:, 2] == pytest.approx([125, 35], abs=0.3)


def test_the_region_of_joints_points_along_the_fingers() -> None:
    points = np.zeros((21, 2))
    points[:, 0] = np.linspace(0, 100, 21)
    points[:, 1] = np.tile([0, 10, 20], 7)
    region = region_of(points)
    assert region.angle == pytest.approx(np.pi / 2, abs=0.3)


def test_windows_cover_the_picture() -> None:
    for width, height in ((1280, 720), (720, 1280), (500, 500), (224, 224)):
        for share in (1.4, 1.0, 0.6, 0.36):
            covered = np.zeros((height, width), bool)
            for window in windows(width, height, (share,), (0.0,)):
                x, y, half = window.x + 0.5, window.y + 0.5, window.side / 2 + 0.51
                covered[max(0, int(y - half)) : int(y + half), :][
                    :, max(0, int(x - half)) : int(x + half)
                ] = True
            assert covered.all()


def test_anchors_lie_in_the_order_of_the_outputs() -> None:
    found = anchors()
    assert found.shape == (2016, 2)
    assert found[0] == pytest.approx([0.5 / 24, 0.5 / 24])
    assert found[2] == pytest.approx([1.5 / 24, 0.5 / 24])
    assert found[1152 + 6] == pytest.approx([1.5 / 12, 0.5 / 12])


@pytest.mark.parametrize("runtime", ["litert", "opencv"])
def test_a_file_that_is_no_network_says_so(tmp_path: Path, runtime: str) -> None:
    if runtime == "litert":
        pytest.importorskip("ai_edge_litert")
    (tmp_path / "net.tflite").write_bytes(b"no network" * 100)
    with pytest.raises(WeightsError, match="cannot be read as a TFLite network"):
        load_net(tmp_path / "net.tflite", ("Identity",), runtime)  # type: ignore[arg-type]
