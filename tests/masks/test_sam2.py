"""SAM 2.1 on a tiny random checkpoint: its memory, its rows, and checkpoints that are not one."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ego_assets.catalog import TABLES
from ego_assets.masks.learned import track_memory
from ego_assets.masks.learned.sam2 import Sam2Segmenter, Sam2Tracker, load_model
from ego_assets.masks.learned.track_memory import KEPT_PROMPTS, Tracked
from ego_assets.masks.settings import Sam2Settings
from ego_assets.models import device, registry
from ego_assets.models.weights import WeightsError, WeightsMissingError
from ego_assets.operator import Carried, ClipInput, ClipOutput
from ego_assets.vision.rle import decode_mask, encode_mask
from tests.models.noise_clips import SIZE, clip_of, picture, through_a_file
from tests.models.tiny_models import Tattletale, tiny_sam2
from tests.support.linked_weights import link_default_weights

pytestmark = pytest.mark.usefixtures("one_thread")

FRAMES = 30
BOXES = {"a": [0.1, 0.1, 0.5, 0.6], "b": [0.5, 0.3, 0.9, 0.9]}
PROMPTS = {0: {"a": BOXES["a"]}, 5: {"b": BOXES["b"]}, 17: {"a": BOXES["b"]}}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, packaged_weights: Path) -> Path:
    root = tmp_path_factory.mktemp("weights")
    link_default_weights(root)
    return tiny_sam2(root / "tiny")


def track(tracker: Sam2Tracker, frames: range, only: str = "ab") -> list[dict[str, Tracked]]:
    return [
        tracker.step(
            f, picture(f), {t: b for t, b in PROMPTS.get(f, {}).items() if t in only}, SIZE
        )
        for f in frames
    ]


def assert_same(found: list[dict[str, Tracked]], wanted: list[dict[str, Tracked]]) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert np.array_equal(one[name].mask, other[name].mask)
            assert one[name].score == other[name].score


@pytest.fixture(scope="module")
def uninterrupted(checkpoint: Path) -> list[dict[str, Tracked]]:
    return track(Sam2Tracker(checkpoint), range(FRAMES))


@pytest.mark.parametrize("cut", [4, 20])
def test_going_on_is_as_never_having_stopped(
    checkpoint: Path, uninterrupted: list[dict[str, Tracked]], cut: int
) -> None:
    first, second = Sam2Tracker(checkpoint), Sam2Tracker(checkpoint)
    before = track(first, range(cut))
    second.restore(through_a_file(first.export()))
    assert_same([*before, *track(second, range(cut, FRAMES))], uninterrupted)


def test_a_memory_that_is_not_the_right_one_would_show(
    checkpoint: Path, uninterrupted: list[dict[str, Tracked]]
) -> None:
    tracker = Sam2Tracker(checkpoint)
    track(tracker, range(20))
    memory = tracker.export()
    memory["memory_features"] = np.roll(memory["memory_features"], 7, axis=1)
    tracker.restore(memory)
    (found,) = track(tracker, range(20, 21))
    assert not np.array_equal(found["a"].mask, uninterrupted[20]["a"].mask)


def test_pruning_changes_nothing(checkpoint: Path) -> None:
    """Against transformers' own session, which keeps everything."""
    import torch

    tracker, model = Sam2Tracker(checkpoint), load_model(checkpoint)
    session = tracker._fresh()
    corners = torch.tensor(BOXES["a"]).reshape(1, 1, 2, 2) * tracker.size
    inputs = {"point_coords": corners, "point_labels": torch.tensor([[[2, 3]]])}
    session.add_point_inputs(session.obj_id_to_idx("a"), 0, inputs)
    session.obj_with_new_inputs = ["a"]
    for frame in range(24):
        pixels = tracker._pixels(picture(frame))
        kept = model(session, frame_idx=frame, frame=pixels)
        prompts = {"a": BOXES["a"]} if frame == 0 else {}
        pruned = tracker.step(frame, picture(frame), prompts, SIZE)["a"]
        assert pruned.score == kept.object_score_logits.sigmoid().item()
        logits = torch.nn.functional.interpolate(kept.pred_masks, SIZE, mode="bilinear")
        assert np.array_equal(pruned.mask, (logits[0, 0] > 0).numpy())
    assert len(session.output_dict_per_obj[0]["non_cond_frame_outputs"]) == 23


def test_memory_does_not_grow_with_the_clip(checkpoint: Path) -> None:
    tracker = Sam2Tracker(checkpoint)
    sizes = []
    for frame in range(48):
        # As many prompts as there may be: one every second frame.
        tracker.step(frame, picture(frame), {"a": BOXES["a"]} if frame % 2 == 0 else {}, SIZE)
        if frame % 8 == 7:
            memory = tracker.export()
            sizes.append([memory[k].nbytes for k in ("memory_features", "memory_pointers")])
    assert sizes[2:] == [sizes[2]] * 4
    outputs = tracker.session.output_dict_per_obj[0]
    assert len(outputs["cond_frame_outputs"]) == KEPT_PROMPTS
    assert min(outputs["cond_frame_outputs"]) == 0
    assert not tracker.session.processed_frames
    assert not tracker.session.frames_tracked_per_obj[0]


def test_a_compiled_encoder_sees_the_same(
    checkpoint: Path, uninterrupted: list[dict[str, Tracked]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced by torch.compile, run by its simplest backend."""
    monkeypatch.setattr(device, "COMPILER", "eager")
    tracker = Sam2Tracker(checkpoint, compile=True)
    encoder = tracker.model.vision_encoder.forward
    for one, other in zip(track(tracker, range(2)), uninterrupted, strict=False):
        assert one["a"].score == pytest.approx(other["a"].score, abs=1e-4)
        assert np.mean(one["a"].mask != other["a"].mask) < 1e-3
    assert encoder.quick is not None, "it fell back"


def test_company_changes_nothing(checkpoint: Path, uninterrupted: list[dict[str, Tracked]]) -> None:
    """Batched with others, convolutions may round otherwise: within 1e-4, and 0.1 % of pixels."""
    alone = track(Sam2Tracker(checkpoint), range(FRAMES), only="a")
    for one, both in zip(alone, uninterrupted, strict=True):
        assert one["a"].score == pytest.approx(both["a"].score, abs=1e-4)
        assert np.mean(one["a"].mask != both["a"].mask) < 1e-3


def test_tracks_can_be_given_up(checkpoint: Path) -> None:
    tracker = Sam2Tracker(checkpoint)
    track(tracker, range(8))
    tracker.restore(tracker.export(), without=["a"])
    assert tracker.tracks == ["b"]
    assert list(track(tracker, range(8, 9))[0]) == ["b"]


# -- the segmenter ---------------------------------------------------------------------------


class Prompter:
    """A hand from the first frame on, an object from the sixth; always in the same places."""

    name, version, quality_tier, weights_hash = "fixed", "1", "baseline", ""

    def process(self, clip: ClipInput, carried: Carried | None) -> ClipOutput:
        tables: dict[str, list[dict[str, Any]]] = {t: [] for t in TABLES if t.endswith("masks")}
        for index in range(clip.clip["start_frame"], clip.clip["end_frame"]):
            row = clip.row(index, index / 10) | {"label": "hand", "track_id": "t-h000"}
            row |= {"box": [12, 9, 60, 54], "side": "left", "is_wearer": True}
            tables["hand_masks"].append(row)
            if index >= 5:
                row = row | {"label": "object", "track_id": "t-o000", "box": [60, 27, 108, 81]}
                tables["object_masks"].append(row)
        count = (carried or {}).get("clips", 0) + 1
        return ClipOutput(tables | {"detections": []}, carried={"clips": count})


@pytest.fixture(scope="module")
def segmenter(checkpoint: Path) -> Sam2Segmenter:
    settings = Sam2Settings(checkpoint="tiny", prompt_interval_s=0.5, min_agreement=0.2)
    made = Sam2Segmenter(settings, checkpoint.parent)
    made.prompter = Prompter()
    return made


def test_clips_of_a_take_are_as_one_clip(segmenter: Sam2Segmenter) -> None:
    whole = segmenter.process(clip_of(0, 24), None)
    first = segmenter.process(clip_of(0, 14), None)
    second = segmenter.process(clip_of(10, 24, 1, context=4), through_a_file(first.carried))
    assert second.carried["prompter_clips"] == 2
    for table in ("hand_masks", "object_masks"):
        assert TABLES[table].from_rows(whole.tables[table]).num_rows > 10
        apart = {"clip_id": "", "is_context": False}
        late = [r | apart for r in whole.tables[table] if r["frame_index"] >= 10]
        assert [r | apart for r in second.tables[table]] == late
        context = [r for r in second.tables[table] if r["is_context"]]
        assert {r["frame_index"] for r in context} == set(range(10, 14))
        assert {r["clip_id"] for r in second.tables[table]} == {"v-0001"}


def test_what_is_carried_does_not_grow_with_the_clip(
    segmenter: Sam2Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of rows, those of the frames that the next clip may share; frames are 0.1 s."""
    monkeypatch.setattr(track_memory, "MAX_OVERLAP_S", 0.4)
    carried = segmenter.process(clip_of(0, 14), None).carried
    assert {r["frame_index"] for r in carried["rows"]} == {10, 11, 12, 13}


def test_rows_say_who_made_them_and_whose_they_are(segmenter: Sam2Segmenter) -> None:
    tables = segmenter.process(clip_of(0, 8), None).tables
    for row in [*tables["hand_masks"], *tables["object_masks"]]:
        assert (row["backend"], row["quality_tier"]) == ("sam2", "reference")
        mask = decode_mask(row["rle"], *SIZE)
        assert mask.sum() == row["area_px"]
        assert encode_mask(mask) == row["rle"]
    assert {(r["track_id"], r["side"]) for r in tables["hand_masks"]} == {("t-h000", "left")}
    assert {r["track_id"] for r in tables["object_masks"]} == {"t-o000"}
    assert min(r["frame_index"] for r in tables["object_masks"]) == 5


# -- checkpoints that are none ---------------------------------------------------------------


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissingError, match=r"model\.safetensors.*EGO_WEIGHTS"):
        registry.build("segmenter", "sam2", {}, str(tmp_path))


def test_a_file_that_is_cut_off(tmp_path: Path) -> None:
    file = tiny_sam2(tmp_path / "x") / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(WeightsError, match=r"cannot be read as SAM 2\.1"):
        load_model(file.parent)


def test_another_architecture(tmp_path: Path) -> None:
    folder = tiny_sam2(tmp_path / "x")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "sam2"}))
    with pytest.raises(WeightsError, match="holds a sam2, not a sam2_video"):
        load_model(folder)


def test_weights_that_are_missing_inside(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = tiny_sam2(tmp_path / "x") / "model.safetensors"
    weights = load_file(file)
    del weights["memory_temporal_positional_encoding"]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"1 weights .*memory_temporal_positional_encoding"):
        load_model(file.parent)


def test_a_pickle_is_not_even_opened(tmp_path: Path) -> None:
    folder = tiny_sam2(tmp_path / "x")
    (folder / "model.safetensors").unlink()
    told = tmp_path / "told"
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Tattletale(told)))
    with pytest.raises(WeightsError):
        load_model(folder)
    assert not told.exists()
    pickle.loads((folder / "pytorch_model.bin").read_bytes())  # noqa: S301 - it does tell
    assert told.exists()


def test_no_torchvision_is_needed() -> None:
    assert "torchvision" not in sys.modules
