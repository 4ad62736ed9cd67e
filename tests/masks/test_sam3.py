"""SAM 3 on a tiny random checkpoint: what words find, how it is followed, and hostile folders."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from ego_assets.catalog import TABLES
from ego_assets.masks.learned import track_memory
from ego_assets.masks.learned.detections import detection_rows, noted_detections
from ego_assets.masks.learned.sam3 import FORGOTTEN_AFTER_S, Sam3Segmenter, Sam3Tracker, _Sight
from ego_assets.masks.learned.sam3_network import MaskDetection, Sam3Network, distinct, load_model
from ego_assets.masks.learned.track_memory import KEPT_PROMPTS
from ego_assets.masks.settings import Sam3Settings
from ego_assets.models import registry
from ego_assets.models.memory import ElasticBatch
from ego_assets.models.pretrained import text_tokens
from ego_assets.models.weights import WeightsError, WeightsMissingError
from ego_assets.operator import ClipOutput, Frame
from ego_assets.vision.rle import decode_mask, mask_iou
from tests.models import layouts
from tests.models.noise_clips import SIZE, clip_of, picture, through_a_file
from tests.models.tiny_models import Tattletale, tiny_sam3

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = Sam3Settings(
    checkpoint="tiny", min_score=0.3, min_new_score=0.4, min_area_share=0.02, max_overlap=0.3
)
"""Under which a random network finds something."""
MASKS = ("hand_masks", "object_masks")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sam3(tmp_path_factory.mktemp("weights") / "tiny")


@pytest.fixture(scope="module")
def segmenter(checkpoint: Path) -> Sam3Segmenter:
    return Sam3Segmenter(SETTINGS, checkpoint.parent)


@pytest.fixture(scope="module")
def network(segmenter: Sam3Segmenter) -> Sam3Network:
    return segmenter.network


def frames(*indices: int) -> Iterator[Frame]:
    return (Frame(i, i / 10, picture(i), 1.0) for i in indices)


def with_settings(network: Sam3Network, **changed: Any) -> Sam3Network:
    """The same network, asked otherwise."""
    other = object.__new__(Sam3Network)
    settings = SETTINGS.model_copy(update=changed)
    other.__dict__ |= network.__dict__ | {"settings": settings}
    other.frames = settings.frames_per_batch or network.frames
    other.images = ElasticBatch(other.see, other.frames)
    other.prompts = ElasticBatch(other._find, settings.prompts_per_batch)
    return other


# -- a take ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(segmenter: Sam3Segmenter) -> ClipOutput:
    return segmenter.process(clip_of(0, 16), None)


def test_clips_of_a_take_are_as_one_clip(segmenter: Sam3Segmenter, whole: ClipOutput) -> None:
    """But for which frames vote on what a track is."""
    first = segmenter.process(clip_of(0, 10), None)
    clip = clip_of(7, 16, 1, context=3)
    second = segmenter.process(clip, through_a_file(first.carried))
    assert clip.frames.asked == list(range(10, 16)), "shared frames are not looked at again"  # type: ignore[attr-defined]
    voted = {"clip_id": "", "is_context": False, "side": "", "label": "", "is_wearer": True}
    for table in (*MASKS, "detections"):
        late = [r | voted for r in whole.tables[table] if r["frame_index"] >= 7]
        assert [r | voted for r in second.tables[table]] == late
        assert len(late) > 10
        shared = {r["frame_index"] for r in second.tables[table] if r["is_context"]}
        assert shared == ({8} if table == "detections" else {7, 8, 9})
    for row in second.tables["hand_masks"]:
        same = [r for r in first.tables["hand_masks"] if r["track_id"] == row["track_id"]]
        assert {r["side"] for r in same} <= {row["side"]}, "what was said of a track holds"


def test_tracks_go_on_from_frame_to_frame(whole: ClipOutput) -> None:
    lengths: dict[str, int] = {}
    for table in MASKS:
        for row in whole.tables[table]:
            lengths[row["track_id"]] = lengths.get(row["track_id"], 0) + 1
    assert max(lengths.values()) == 16


def test_rows_fit_the_contract(whole: ClipOutput) -> None:
    for table, rows in whole.tables.items():
        assert TABLES[table].from_rows(rows).num_rows > 10
        assert {(r["backend"], r["quality_tier"]) for r in rows} == {("sam3", "reference")}
    for row in whole.tables["hand_masks"]:
        assert row["label"] == "hand"
        assert decode_mask(row["rle"], *SIZE).sum() == row["area_px"]
    assert {r["label"] for r in whole.tables["object_masks"]} == {"robot arm", "handheld object"}
    for row in whole.tables["detections"]:
        assert row["side"] is None or row["label"] == "hand"
        assert 0 <= row["box"][0] < row["box"][2] <= SIZE[1]
        assert 0 <= row["box"][1] < row["box"][3] <= SIZE[0]
    # Every 0.2 s of ten frames a second.
    assert {r["frame_index"] for r in whole.tables["detections"]} == set(range(0, 16, 2))


def test_nothing_found_is_no_rows(checkpoint: Path, segmenter: Sam3Segmenter) -> None:
    other = object.__new__(Sam3Segmenter)
    other.settings = SETTINGS.model_copy(update={"min_score": 1.0})
    other.network = with_settings(segmenter.network, min_score=1.0)
    other.tracker = segmenter.tracker
    found = other.process(clip_of(0, 3), None)
    assert found.tables == {"detections": [], "hand_masks": [], "object_masks": []}
    assert other.process(clip_of(3, 5, 1), through_a_file(found.carried)).tables == found.tables


def test_memory_does_not_grow_with_the_clip(network: Sam3Network) -> None:
    tracker = Sam3Tracker(network)
    shown = network.detect(next(network.encode(frames(0)))[1])[0].logits
    sizes = []
    ((_, features),) = network.encode(frames(0))
    for frame in range(44):
        tracker.follow(frame, features)
        # As many prompts as there may be: one every second frame.
        tracker.remember(frame, {"a": shown} if frame % 2 == 0 else {})
        if frame % 8 == 3:
            memory = tracker.export()
            sizes.append([memory[k].nbytes for k in ("memory_features", "memory_pointers")])
    assert sizes[2:] == [sizes[2]] * 4
    session = tracker.session
    assert len(session.output_dict_per_obj[0]["cond_frame_outputs"]) == KEPT_PROMPTS
    assert not session.processed_frames
    assert not session.mask_inputs_per_obj[0]
    assert len(session.cache._vision_features) == 1


# -- detections ------------------------------------------------------------------------------


def same(ones: list[MaskDetection], others: list[MaskDetection], off: float = 0.0) -> bool:
    return [d.words for d in ones] == [d.words for d in others] and all(
        abs(a.score - b.score) <= off and np.allclose(a.logits, b.logits, atol=max(off, 1e-9))
        for a, b in zip(ones, others, strict=True)
    )


def test_a_frame_does_not_depend_on_its_batch(network: Sam3Network) -> None:
    together = {f.index: network.detect(x) for f, x in network.encode(frames(4, 5, 6, 7, 8))}
    alone = {i: network.detect(next(network.encode(frames(i)))[1]) for i in (5, 8)}
    assert len(alone[5]) > 2
    for index, found in alone.items():
        assert same(found, together[index])
    assert not same(alone[5], alone[8])


def test_sizes_of_batches_change_nothing_much(network: Sam3Network) -> None:
    """Batched otherwise, sums round otherwise: within 1e-4."""
    wanted = network.detect(next(network.encode(frames(5)))[1])
    single = with_settings(network, frames_per_batch=1)
    assert same(single.detect(next(single.encode(frames(5)))[1]), wanted, 1e-4)
    split = with_settings(network, prompts_per_batch=3)
    assert same(split.detect(next(network.encode(frames(5)))[1]), wanted, 1e-4)


def test_words_are_what_is_looked_for(checkpoint: Path, network: Sam3Network) -> None:
    other = Sam3Network(
        checkpoint, SETTINGS.model_copy(update={"vocabulary": {"x": "object", "left hand": "left"}})
    )
    features = next(network.encode(frames(0)))[1]
    ones, others = network.detect(features), other.detect(features)
    assert {d.words for d in others} <= {"x", "left hand"}
    assert {d.score for d in others} & {d.score for d in ones} == set() or len(ones) != len(others)


def detection(words: str, score: float, x: int = 0, side: int = 8, **votes: float) -> MaskDetection:
    import torch

    mask = np.zeros((16, 16), bool)
    mask[4 : 4 + side, x : x + side] = True
    box = [x / 16, 4 / 16, (x + side) / 16, (4 + side) / 16]
    named = votes or {words: score}
    return MaskDetection(
        words, score, box, named, mask=mask, logits=torch.from_numpy(mask * 20.0 - 10)
    )


def test_doubles_go_but_vote() -> None:
    settings = Sam3Settings()
    left, right = detection("left hand", 0.9), detection("right hand", 0.85)
    (found,) = distinct([left, right], settings)
    assert found.votes == {"left hand": 0.9, "right hand": 0.85}
    frame = next(frames(0))
    (row,) = noted_detections(settings, frame, [found], SIZE)
    assert (row["label"], row["side"]) == ("hand", None), "as likely the one as the other"
    (sure,) = distinct([detection("left hand", 0.9), detection("right hand", 0.6)], settings)
    (row,) = detection_rows(clip_of(0, 1), noted_detections(settings, frame, [sure], SIZE), "x")
    assert (row["side"], row["box"]) == ("left", [0.0, 22.5, 60.0, 67.5])


def test_what_is_a_double_depends_on_the_words() -> None:
    """Of one's own words, a part of it is one; of other words only the same thing."""
    settings = Sam3Settings()
    near = [detection("cup", 0.9), detection("cup", 0.8, x=5)]
    cups = settings.model_copy(update={"vocabulary": {"cup": "object", "tool": "object"}})
    assert 0.1 < mask_iou(near[0].mask, near[1].mask) < 0.7
    assert len(distinct(near, cups)) == 1
    near[1].words = "tool"
    assert len(distinct([detection("cup", 0.9), near[1]], cups)) == 2
    held = [detection("left hand", 0.9), detection("robot arm", 0.8)]
    assert len(distinct(held, settings)) == 2, "hands and objects are no doubles of each other"
    assert distinct([], settings) == []


def test_what_is_carried_does_not_grow_with_the_clip(
    segmenter: Sam3Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of rows, those of the frames that the next clip may share; frames are 0.1 s."""
    monkeypatch.setattr(track_memory, "MAX_OVERLAP_S", 0.4)
    carried = segmenter.process(clip_of(0, 10), None).carried
    assert {r["frame_index"] for r in carried["rows"]} == {6, 7, 8, 9}
    assert {r["frame_index"] for r in carried["seen"]} <= {6, 7, 8, 9}
    shown = {r["track_id"] for r in carried["rows"]}
    assert carried["things"].keys() == shown | carried["confirmed_s"].keys()


# -- tracks ----------------------------------------------------------------------------------


@pytest.fixture
def sight() -> _Sight:
    return _Sight(Sam3Settings(max_objects=2), clip_of(0, 9), {})


def at(index: int) -> Frame:
    return Frame(index, index / 10, np.zeros((1, 1, 3), np.uint8), 1.0)


def mask_at(x: int, side: int = 8) -> np.ndarray:
    return detection("robot arm", 1.0, x, side).mask


def test_a_track_begins_with_a_sure_detection(sight: _Sight) -> None:
    assert sight.meet(at(0), [detection("left hand", 0.65)], {}) == {}
    found = sight.meet(at(1), [detection("left hand", 0.75), detection("robot arm", 0.8)], {})
    assert list(found) == ["t-h000", "t-o000"]
    sight.cast.settle()
    assert sight.cast.things["t-h000"]["side"] == "left"
    assert sight.cast.things["t-o000"]["label"] == "robot arm"


def test_there_are_only_so_many(sight: _Sight) -> None:
    found = [detection("robot arm", 0.9 - x / 100, x, 3) for x in (0, 4, 8, 12)]
    assert list(sight.meet(at(0), found, {})) == ["t-o000", "t-o001"]


def test_a_detection_on_a_track_is_that_track(sight: _Sight) -> None:
    sight.meet(at(0), [detection("robot arm", 0.9)], {})
    assert sight.meet(at(1), [detection("robot arm", 0.9, x=2)], {"t-o000": mask_at(0)}) == {}
    # Another word for it: no new track either.
    other = detection("handheld object", 0.9, x=1)
    assert sight.meet(at(2), [other], {"t-o000": mask_at(0)}) == {}


def test_where_the_two_disagree_it_begins_anew(sight: _Sight) -> None:
    sight.meet(at(0), [detection("robot arm", 0.9)], {})
    far = detection("robot arm", 0.9, x=5)
    assert 0.1 < mask_iou(far.mask, mask_at(0)) < 0.5
    masks = {"t-o000": mask_at(0)}
    assert sight.meet(at(10), [far], masks) == {}, "not before it is due"
    assert sight.meet(at(20), [far], masks) == {"t-o000": far}
    assert sight.meet(at(30), [far], masks) == {}


def test_what_was_lost_is_found_again(sight: _Sight) -> None:
    sight.meet(at(0), [detection("robot arm", 0.9)], {})
    sight.cast.settle()
    again = detection("robot arm", 0.9, x=8)
    nothing = np.zeros((16, 16), bool)
    assert sight.meet(at(1), [again], {"t-o000": nothing}) == {"t-o000": again}
    other = detection("handheld object", 0.9, x=8)
    assert list(sight.meet(at(2), [other], {"t-o000": nothing})) == ["t-o001"]


def test_tracks_end_without_agreement(sight: _Sight) -> None:
    sight.meet(at(0), [detection("robot arm", 0.9), detection("left hand", 0.9, 8)], {})
    masks = {"t-o000": mask_at(0), "t-h000": mask_at(8)}
    late = int(10 * FORGOTTEN_AFTER_S) + 1
    sight.meet(at(late - 5), [detection("robot arm", 0.9)], masks)
    assert sight.forget((late - 1) / 10) == []
    assert sight.forget(late / 10) == ["t-h000"]
    assert sight.export(set())["things"].keys() == {"t-o000"}


def test_of_two_tracks_on_one_thing_the_younger_ends(sight: _Sight) -> None:
    sight.meet(at(0), [detection("robot arm", 0.9), detection("robot arm", 0.8, 8)], {})
    sight.meet(at(1), [detection("robot arm", 0.9)], {"t-o000": mask_at(0), "t-o001": mask_at(1)})
    assert sight.forget(0.1) == ["t-o001"]
    assert sight.forget(0.2) == []


# -- vocabulary ------------------------------------------------------------------------------


def test_a_vocabulary_means_something() -> None:
    for wrong in ({}, {" ": "object"}, {"cup": "object", "Cup ": "object"}, {"cup": "tool"}):
        with pytest.raises(ValidationError):
            Sam3Settings(vocabulary=wrong)  # type: ignore[arg-type]


def test_words_become_the_tokens_of_clip(checkpoint: Path) -> None:
    known = json.loads((checkpoint / "vocab.json").read_text())
    tokens, is_text = text_tokens(checkpoint, ["a hand", " A  HAND", "x"], 8, len(known))
    spelled = ["<|startoftext|>", "a</w>", "ha", "n", "d</w>", "<|endoftext|>"]
    assert tokens[0].tolist() == [*[known[t] for t in spelled], 0, 0]
    assert is_text.sum(1).tolist() == [6, 6, 3]
    assert (tokens[1] == tokens[0]).all()


def test_words_that_are_too_many(checkpoint: Path) -> None:
    long = Sam3Settings(checkpoint="tiny", vocabulary={"x " * 31: "object"})
    with pytest.raises(WeightsError, match=r"reads 30 tokens, .* has 31: say it in fewer words"):
        Sam3Segmenter(long, checkpoint.parent)


# -- checkpoints -----------------------------------------------------------------------------


def test_the_layout_is_the_official_one() -> None:
    built, written = layouts.built("sam3"), layouts.read("sam3")
    assert built == written
    assert sum(int(np.prod(s)) for s in written.values()) == pytest.approx(860e6, rel=0.01)


def test_what_is_not_saved_is_made_anew(checkpoint: Path) -> None:
    """Tables of angles and places, which no file holds, are as in a network that was built."""
    import torch
    from transformers import Sam3VideoModel

    loaded = load_model(checkpoint)
    built = Sam3VideoModel(loaded.config)
    saved = loaded.state_dict().keys()
    unsaved = {n: b for n, b in built.named_buffers() if n not in saved}
    assert len(unsaved) >= 4
    for name, value in loaded.named_buffers():
        assert name in saved or torch.equal(value, unsaved[name]), name


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissingError, match=r"model\.safetensors.*vocab\.json.*EGO_WEIGHTS"):
        registry.build("segmenter", "sam3", {}, str(tmp_path))


def damaged(checkpoint: Path, tmp_path: Path, **texts: str) -> Path:
    """A copy of the checkpoint, some of its text files replaced."""
    import shutil

    folder = tmp_path / "damaged"
    shutil.copytree(checkpoint, folder)
    for name, text in texts.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder


def test_a_file_that_is_cut_off(checkpoint: Path, tmp_path: Path) -> None:
    folder = damaged(checkpoint, tmp_path)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(WeightsError, match="cannot be read as SAM 3 weights"):
        load_model(folder)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ('{"model_type": "sam2_video"}', "holds a sam2_video, not a sam3_video model"),
        ("{}", "holds a None, not a sam3_video model"),
        ("[1]", "holds no JSON object"),
        ('{"model_type"', "cannot be read as SAM 3 weights: JSONDecodeError"),
        ('{"model_type": "sam3_video", "detector_config": 7}', "cannot be read as SAM 3 weights"),
    ],
)
def test_a_configuration_that_is_none(
    checkpoint: Path, tmp_path: Path, config: str, said: str
) -> None:
    with pytest.raises(WeightsError, match=said):
        load_model(damaged(checkpoint, tmp_path, config_json=config))


def test_weights_of_another_size(checkpoint: Path, tmp_path: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    config["detector_config"]["detr_decoder_config"]["num_queries"] = 9
    folder = damaged(checkpoint, tmp_path, config_json=json.dumps(config))
    with pytest.raises(WeightsError, match=r"whole SAM 3: 2 weights .*query_embed\.weight \(8, "):
        load_model(folder)


def test_weights_that_are_missing_inside(checkpoint: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = damaged(checkpoint, tmp_path) / "model.safetensors"
    weights = load_file(file)
    del weights["tracker_model.no_object_pointer"]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"1 weights .*tracker_model\.no_object_pointer"):
        load_model(file.parent)


def test_no_code_of_a_folder_is_run(checkpoint: Path, tmp_path: Path) -> None:
    told = tmp_path / "told"
    config = json.loads((checkpoint / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}
    folder = damaged(checkpoint, tmp_path, config_json=json.dumps(config))
    (folder / "mine.py").write_text(f"open({str(told)!r}, 'w')")
    load_model(folder)
    config["model_type"] = "mine"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="holds a mine"):
        load_model(folder)
    (folder / "model.safetensors").unlink()
    (folder / "config.json").write_text((checkpoint / "config.json").read_text())
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Tattletale(told)))
    with pytest.raises(WeightsError):
        load_model(folder)
    assert not told.exists()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("vocab_json", '{"a": 0}', r"not CLIP's"),
        ("vocab_json", "nonsense", r"cannot be read: JSONDecodeError"),
        ("vocab_json", "[]", r"holds no JSON object"),
        ("vocab_json", "other", r"of another network"),
        ("vocab_json", "text", r"of another network"),
        ("merges_txt", "a b c\n", r"cannot be read"),
        ("merges_txt", "z z\n", r"cannot be read"),
    ],
)
def test_words_that_are_none(
    checkpoint: Path, tmp_path: Path, name: str, text: str, said: str
) -> None:
    if text in ("other", "text"):
        tokens = json.loads((checkpoint / "vocab.json").read_text())
        text = json.dumps(tokens | {"new": len(tokens) if text == "other" else "0"})
    folder = damaged(checkpoint, tmp_path, **{name: text})
    with pytest.raises(WeightsError, match=said):
        Sam3Segmenter.check(Sam3Settings(checkpoint="damaged"), folder.parent)


def test_no_torchvision_and_no_kernels_are_needed() -> None:
    assert "torchvision" not in sys.modules
    assert "kernels" not in sys.modules
