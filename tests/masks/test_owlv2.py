"""OWLv2 on a tiny random checkpoint: boxes by words, and what SAM 2.1 is prompted with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ego_assets.catalog import TABLES
from ego_assets.masks.learned import owlv2, sam2
from ego_assets.masks.learned.owlv2 import (
    MAX_DETECTIONS,
    Owlv2Detector,
    Owlv2Sam2Segmenter,
    _Sight,
    load_model,
)
from ego_assets.masks.settings import Owlv2Sam2Settings
from ego_assets.models import registry
from ego_assets.models.weights import WeightsError, WeightsMissingError
from ego_assets.operator import ClipOutput
from tests.models import layouts
from tests.models.noise_clips import SIZE, clip_of, picture, through_a_file
from tests.models.tiny_models import tiny_owlv2, tiny_sam2

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = Owlv2Sam2Settings(checkpoint="sam2", detector="owlv2", detection_interval_s=0.4)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("weights")
    tiny_owlv2(root / "owlv2")
    tiny_sam2(root / "sam2")
    return root


@pytest.fixture(scope="module")
def segmenter(weights: Path) -> Owlv2Sam2Segmenter:
    return Owlv2Sam2Segmenter(SETTINGS, weights)


@pytest.fixture(scope="module")
def detector(segmenter: Owlv2Sam2Segmenter) -> Owlv2Detector:
    return segmenter.prompter.detector  # type: ignore[attr-defined, no-any-return]


# -- the detector ----------------------------------------------------------------------------


def test_a_picture_does_not_depend_on_its_batch(detector: Owlv2Detector) -> None:
    together = detector.detect([picture(i) for i in range(3)])
    for index, found in enumerate(together):
        assert detector.detect([picture(index)]) == [found]
    assert len(together[0]) > 3
    assert together[0] != together[1]


def test_pictures_are_made_square_with_grey(detector: Owlv2Detector) -> None:
    """As OWLv2 was trained; a third of a 3:2 picture's square is padding."""
    height, width = SIZE
    mean, std = (np.array(v)[:, None, None] for v in (owlv2.MEAN, owlv2.STD))
    shown = detector._pixels(picture(0)).numpy() * std + mean
    picture_ends = -(-detector.side * height // width) + 1
    assert picture_ends < detector.side
    assert np.allclose(shown[:, picture_ends:], 0.5, atol=1e-6)
    assert np.abs(shown[:, : picture_ends - 2] - 0.5).max() > 0.1


def test_boxes_are_of_the_picture_and_not_of_the_square(
    detector: Owlv2Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture that was padded to a square by hand has its boxes in the same pixels."""
    monkeypatch.setattr(owlv2, "GREY", 127 / 255)
    _, width = SIZE
    for image in (picture(0), np.ascontiguousarray(picture(0).swapaxes(0, 1))):
        square = np.full((width, width, 3), 127, np.uint8)
        square[: image.shape[0], : image.shape[1]] = image
        (plain,), (padded,) = detector.detect([image]), detector.detect([square])
        scale = np.array([*image.shape[1::-1]] * 2)
        inside = {
            d.score: np.array(d.box) * scale
            for d in plain
            if max(d.box) < 1  # those at the rim are cut off there
        }
        assert len(inside) > 2
        wanted = {d.score: np.array(d.box) * width for d in padded}
        for score in inside.keys() & wanted.keys():
            assert np.allclose(inside[score], wanted[score], atol=1e-3)
        assert len(inside.keys() & wanted.keys()) > 1


def test_the_best_stay(detector: Owlv2Detector) -> None:
    (found,) = detector.detect([picture(0)])
    scores = [d.score for d in found]
    assert scores == sorted(scores, reverse=True)
    assert min(scores) >= SETTINGS.min_score
    assert all(d.votes[d.words] == d.score == max(d.votes.values()) for d in found)


def test_a_network_that_sees_things_everywhere_is_bounded(detector: Owlv2Detector) -> None:
    rng = np.random.default_rng(0)
    low = rng.random((2000, 2)) * 0.9
    found = detector._distinct(
        rng.random((2000, len(detector.words))), np.concatenate([low, low + 0.001], axis=1)
    )
    assert len(found) == MAX_DETECTIONS


def test_boxes_without_area_are_none(detector: Owlv2Detector) -> None:
    boxes = np.array([[0.5, 0.5, 0.5, 0.9], [0.1, 0.1, 0.2, 0.2]])
    (found,) = detector._distinct(np.full((2, len(detector.words)), 0.9), boxes)
    assert found.box == [0.1, 0.1, 0.2, 0.2]


# -- a take ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(segmenter: Owlv2Sam2Segmenter) -> ClipOutput:
    return segmenter.process(clip_of(0, 14), None)


def test_clips_of_a_take_are_as_one_clip(segmenter: Owlv2Sam2Segmenter, whole: ClipOutput) -> None:
    first = segmenter.process(clip_of(0, 9), None)
    second = segmenter.process(clip_of(6, 14, 1, context=3), through_a_file(first.carried))
    voted = {"clip_id": "", "is_context": False, "side": "", "label": "", "is_wearer": True}
    for table in whole.tables:
        late = [r | voted for r in whole.tables[table] if r["frame_index"] >= 6]
        assert [r | voted for r in second.tables[table]] == late
        assert len(late) > 10


def test_rows_say_who_made_them(whole: ClipOutput) -> None:
    made = {t: {r["backend"] for r in rows} for t, rows in whole.tables.items()}
    assert made == {
        "detections": {"owlv2"},
        "hand_masks": {"owlv2_sam2"},
        "object_masks": {"owlv2_sam2"},
    }
    for table, rows in whole.tables.items():
        assert TABLES[table].from_rows(rows).num_rows > 10
        assert {r["quality_tier"] for r in rows} == {"reference"}
    assert {r["frame_index"] for r in whole.tables["detections"]} == {0, 4, 8, 12}
    assert {r["label"] for r in whole.tables["hand_masks"]} == {"hand"}
    assert {r["label"] for r in whole.tables["object_masks"]} <= {"robot arm", "handheld object"}


# -- proposals and tracks --------------------------------------------------------------------


def proposal(words: str, x: float, score: float = 0.9, frame: int = 0) -> dict[str, Any]:
    table = "hand_masks" if words.endswith("hand") else "object_masks"
    return {
        "frame_index": frame,
        "box": [x, 30.0, x + 20.0, 50.0],
        "score": score,
        "words": words,
        "votes": {words: score},
        "low": True,
        "table": table,
    }


@pytest.fixture
def sight() -> _Sight:
    return _Sight(SETTINGS, clip_of(0, 9), {})


def test_new_things_are_prompted(sight: _Sight) -> None:
    rows = [proposal("left hand", 0), proposal("robot arm", 60)]
    found = sight.prompts(rows, 0.0, SIZE)
    assert found["t-h000"] == pytest.approx([0, 30 / 90, 20 / 120, 50 / 90])
    assert list(found) == ["t-h000", "t-o000"]
    sight.settle()
    assert sight.things["t-h000"]["side"] == "left"
    assert sight.things["t-o000"]["label"] == "robot arm"
    assert sight.prompts([], 0.1, SIZE) == {}


def test_things_that_are_tracked_are_not(sight: _Sight) -> None:
    sight.prompts([proposal("robot arm", 0)], 0.0, SIZE)
    sight.boxes["t-o000"] = [2.0, 30.0, 22.0, 50.0]
    assert sight.prompts([proposal("robot arm", 0)], 0.5, SIZE) == {}
    assert sight.prompts([proposal("handheld object", 0)], 1.0, SIZE) == {}, "nor by other words"


def test_a_hand_that_is_elsewhere_is_prompted_there(sight: _Sight) -> None:
    sight.prompts([proposal("left hand", 0)], 0.0, SIZE)
    sight.boxes["t-h000"] = [0.0, 30.0, 20.0, 50.0]
    assert list(sight.prompts([proposal("left hand", 70)], 0.5, SIZE)) == ["t-h000"]
    assert list(sight.prompts([proposal("right hand", 70)], 1.0, SIZE)) == ["t-h001"]


def test_an_object_is_found_again_only_when_it_was_lost(sight: _Sight) -> None:
    sight.prompts([proposal("robot arm", 0)], 0.0, SIZE)
    sight.boxes["t-o000"] = [0.0, 30.0, 20.0, 50.0]
    assert list(sight.prompts([proposal("robot arm", 70)], 0.5, SIZE)) == ["t-o001"]
    sight.boxes |= {"t-o000": None, "t-o001": [70.0, 30.0, 90.0, 50.0]}
    again = [proposal("robot arm", 70), proposal("robot arm", 40)]
    assert list(sight.prompts(again, 1.0, SIZE)) == ["t-o000"]


def test_there_are_only_so_many(sight: _Sight) -> None:
    sight.cast.limits["object_masks"] = 2
    rows = [proposal("robot arm", x) for x in (0, 30, 60)]
    assert list(sight.prompts(rows, 0.0, SIZE)) == ["t-o000", "t-o001"]


def test_what_is_found_again_counts_once(sight: _Sight) -> None:
    sight.cast.limits["object_masks"] = 2
    sight.prompts([proposal("robot arm", 0)], 0.0, SIZE)
    sight.boxes["t-o000"] = None
    rows = [proposal("robot arm", 70), proposal("handheld object", 30)]
    assert list(sight.prompts(rows, 1.0, SIZE)) == ["t-o000", "t-o001"]


def test_names_do_not_come_again_behind_a_clip_that_failed() -> None:
    sights = [_Sight(SETTINGS, clip_of(10 * k, 10 * k + 10, k), {}) for k in (0, 2)]
    found = [s.prompts([proposal("left hand", 0)], 0.0, SIZE) for s in sights]
    assert [list(f) for f in found] == [["t-h000"], ["t-h2000"]]
    went_on = _Sight(SETTINGS, clip_of(30, 40, 3), sights[1].export())
    assert list(went_on.prompts([proposal("right hand", 0)], 0.0, SIZE)) == ["t-h2001"]


def test_an_object_is_never_labelled_as_a_hand(sight: _Sight) -> None:
    """Two words for it share its votes, and the words of a hand come second each time."""
    for frame, votes in enumerate(((0.30, 0.25), (0.25, 0.30))):
        row = proposal("robot arm", 0, frame=frame)
        row["votes"] = dict(zip(("robot arm", "handheld object"), votes, strict=True))
        row["votes"]["left hand"] = 0.28
        sight.prompts([row], frame / 10, SIZE)
        sight.boxes["t-o000"] = row["box"]
    sight.settle()
    assert sight.things["t-o000"]["label"] in ("robot arm", "handheld object")


def test_settings_that_would_do_nothing_are_refused() -> None:
    for name in ("prompt_interval_s", "scan_interval_s", "work_side_px"):
        assert name not in Owlv2Sam2Settings.model_fields


def test_the_encoder_of_masks_is_compiled_if_that_is_wanted(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted: list[bool] = []
    monkeypatch.setattr(sam2, "compiled", lambda run, wish: (wanted.append(wish), run)[1])
    Owlv2Sam2Segmenter(SETTINGS.model_copy(update={"compile": True}), weights)
    assert wanted == [True]


# -- checkpoints -----------------------------------------------------------------------------


def test_the_layout_is_the_official_one() -> None:
    assert layouts.built("owlv2") == layouts.read("owlv2")


def test_what_is_not_saved_is_made_anew(weights: Path) -> None:
    import torch

    model = load_model(weights / "owlv2")
    wanted = model.compute_box_bias(model.num_patches_height, model.num_patches_width)
    assert torch.equal(model.box_bias, wanted)


def test_both_models_must_be_there(weights: Path, tmp_path: Path) -> None:
    shutil.copytree(weights / "sam2", tmp_path / "sam2")
    settings = {"checkpoint": "sam2", "detector": "owlv2"}
    with pytest.raises(WeightsMissingError, match=r"owlv2/model\.safetensors"):
        registry.build("segmenter", "owlv2_sam2", settings, str(tmp_path))
    shutil.copytree(weights / "owlv2", tmp_path / "owlv2")
    built = registry.build("segmenter", "owlv2_sam2", settings, str(tmp_path))
    assert built.name == "owlv2_sam2"


def test_the_hash_is_of_both_models_and_the_words(weights: Path, tmp_path: Path) -> None:
    shutil.copytree(weights, tmp_path / "w")
    settings = {"checkpoint": "sam2", "detector": "owlv2"}

    def digest() -> str:
        return registry.version("segmenter", "owlv2_sam2", settings, str(tmp_path / "w"))[1]

    seen = {digest()}
    for name in ("sam2/config.json", "owlv2/config.json", "owlv2/merges.txt"):
        file = tmp_path / "w" / name
        file.write_text(file.read_text() + "\n")
        seen.add(digest())
    assert len(seen) == 4


def test_another_architecture_and_cut_off_files(weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "x"
    shutil.copytree(weights / "owlv2", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "owlvit"}))
    with pytest.raises(WeightsError, match="holds a owlvit, not a owlv2"):
        load_model(folder)
    (folder / "config.json").write_text(json.dumps(config))
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(WeightsError, match="cannot be read as OWLv2 weights"):
        load_model(folder)


def test_words_that_are_too_many(weights: Path) -> None:
    long = SETTINGS.model_copy(update={"vocabulary": {"x " * 15: "object"}})
    with pytest.raises(WeightsError, match="reads 14 tokens"):
        Owlv2Sam2Segmenter.check(long, weights)
