"""SAM 2.1, SAM 3 and OWLv2 on a device with little memory, whose allocator fails on demand.

What they batch shrinks, results stay (scores within 1e-4, masks within 0.1 % of the pixels), and a
clip that never fits leaves a model that works.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ego_assets.masks.learned.owlv2 import Owlv2Sam2Segmenter
from ego_assets.masks.learned.sam2 import Sam2Segmenter
from ego_assets.masks.learned.sam3 import Sam3Segmenter
from ego_assets.masks.settings import Owlv2Sam2Settings, Sam2Settings, Sam3Settings
from ego_assets.models.memory import DeviceMemoryError, ElasticBatch
from ego_assets.operator import ClipOutput
from ego_assets.vision.rle import decode_mask
from tests.engine.memory_backends import Allocator, OutOfMemoryError
from tests.masks.test_sam2 import Prompter
from tests.models.noise_clips import SIZE, clip_of, picture
from tests.models.tiny_models import tiny_owlv2, tiny_sam2, tiny_sam3
from tests.support.linked_weights import link_default_weights

pytestmark = pytest.mark.usefixtures("one_thread")

MASKS = ("hand_masks", "object_masks")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, packaged_weights: Path) -> Path:
    root = tmp_path_factory.mktemp("weights")
    link_default_weights(root)
    tiny_sam2(root / "sam2")
    tiny_owlv2(root / "owlv2")
    tiny_sam3(root / "sam3")
    return root


class Scarce:
    """Memory for so many items at a time in calls of `name` of an object, which has a batch as its
    first argument. asked: sizes of all batches."""

    def __init__(self, patch: pytest.MonkeyPatch, thing: Any, name: str, capacity: int) -> None:
        self.allocator = Allocator(capacity)
        self.asked: list[int] = []
        plain = getattr(thing, name)

        def call(*args: Any, **named: Any) -> Any:
            size = len([*args, *named.values()][0])
            self.asked.append(size)
            with self.allocator.hold(size):
                return plain(*args, **named)

        patch.setattr(thing, name, call)


def assert_alike(found: ClipOutput, wanted: ClipOutput) -> None:
    for table in MASKS:
        rows = {(r["frame_index"], r["track_id"]): r for r in wanted.tables[table]}
        assert len(rows) == len(found.tables[table]) > 1
        for row in found.tables[table]:
            other = rows[row["frame_index"], row["track_id"]]
            assert row["score"] == pytest.approx(other["score"], abs=1e-4)
            masks = (decode_mask(r["rle"], *SIZE) for r in (row, other))
            assert np.mean(np.not_equal(*masks)) < 1e-3
    sure = ([r["score"] for r in x.tables["detections"]] for x in (found, wanted))
    assert np.allclose(*sure, atol=1e-4)


def sam2(weights: Path) -> Sam2Segmenter:
    made = Sam2Segmenter(Sam2Settings(checkpoint="sam2"), weights)
    made.prompter = Prompter()
    return made


def test_sam2_follows_fewer_tracks_at_once(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = sam2(weights)
    wanted = segmenter.process(clip_of(0, 8), None)
    tracker = segmenter.tracker
    memory = Scarce(monkeypatch, tracker.model.memory_encoder, "forward", 1)
    masks = Scarce(monkeypatch, tracker.enlarge, "run", 1)
    assert_alike(segmenter.process(clip_of(0, 8), None), wanted)
    # Both are in sight from the sixth frame on, where the second one is prompted, and so apart.
    assert memory.asked == [1] * 7 + [2, 1, 1] + [1, 1]
    assert masks.asked == [1] * 5 + [2, 1, 1] + [1, 1] * 2
    assert tracker.enlarge.limit == 1


def test_sam2_tries_a_frame_again(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One picture cannot be made smaller; what others held may be free by now."""
    segmenter = sam2(weights)
    wanted = segmenter.process(clip_of(0, 7), None)
    encoder = segmenter.tracker.model.vision_encoder
    plain, calls = encoder.forward, []

    def sometimes(*args: Any, **named: Any) -> Any:
        calls.append(args)
        if len(calls) in (1, 2, 5):
            raise OutOfMemoryError("CUDA out of memory")
        return plain(*args, **named)

    monkeypatch.setattr(encoder, "forward", sometimes)
    assert_alike(segmenter.process(clip_of(0, 7), None), wanted)
    assert len(calls) == 7 + 3


def test_sam2_is_well_after_a_clip_that_never_fits(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = sam2(weights)
    first = segmenter.process(clip_of(0, 6), None)
    wanted = segmenter.process(clip_of(6, 10, 1), first.carried)
    with monkeypatch.context() as patch:
        scarce = Scarce(patch, segmenter.tracker.model.memory_encoder, "forward", 0)
        with pytest.raises(DeviceMemoryError, match=r"batches of 2, 1, 1, 1: .*no device in use"):
            segmenter.process(clip_of(6, 10, 1), first.carried)
        assert scarce.asked == [2, 1, 1, 1]
    assert_alike(segmenter.process(clip_of(6, 10, 1), first.carried), wanted)


def test_sam3_encodes_fewer_frames_and_looks_for_fewer_words(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Sam3Settings(
        checkpoint="sam3", min_score=0.3, min_new_score=0.4, min_area_share=0.02, max_overlap=0.3
    )
    segmenter = Sam3Segmenter(settings, weights)
    wanted = segmenter.process(clip_of(0, 6), None)
    network, tracker = segmenter.network, segmenter.tracker
    limits = {"images": 2, "prompts": 1}
    scarce = {n: Scarce(monkeypatch, getattr(network, n), "run", c) for n, c in limits.items()}
    memory = Scarce(monkeypatch, tracker.model.memory_encoder, "forward", 1)
    assert_alike(segmenter.process(clip_of(0, 6), None), wanted)
    assert scarce["images"].asked == [4, 2, 2, 2], "of the second four, two are there"
    assert scarce["prompts"].asked[:6] == [4, 2, 1, 1, 1, 1]
    assert max(memory.asked) > 1
    assert memory.asked[-2:] == [1, 1]
    with monkeypatch.context() as patch:
        Scarce(patch, network.images, "run", 0)
        with pytest.raises(DeviceMemoryError, match=r"batches of 2, 1, 1, 1: "):
            segmenter.process(clip_of(0, 6), None)
    assert_alike(segmenter.process(clip_of(0, 6), None), wanted)


def test_owlv2_looks_at_fewer_pictures(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Owlv2Sam2Settings(checkpoint="sam2", detector="owlv2", detection_interval_s=0.1)
    segmenter = Owlv2Sam2Segmenter(settings, weights)
    wanted = segmenter.process(clip_of(0, 6), None)
    detector = segmenter.prompter.detector  # type: ignore[attr-defined]
    scarce = Scarce(monkeypatch, detector.model.owlv2.vision_model, "forward", 99)
    assert_alike(segmenter.process(clip_of(0, 6), None), wanted)
    assert scarce.asked == [4, 4], "filled up with black"
    scarce.allocator.capacity = 2
    assert_alike(segmenter.process(clip_of(0, 6), None), wanted)
    assert scarce.asked[2:] == [4, 2, 2, 2]
    ones, others = (detector.detect([picture(i) for i in s]) for s in ((0, 1, 2), (2,)))
    assert ones[2] == others[0], "who shares a batch counts no more than before"


def test_words_are_read_in_parts_if_need_be(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    plain = ElasticBatch.__call__

    def call(self: Any, items: Any) -> Any:
        if getattr(self.run, "__name__", "") == "_read":
            Scarce(monkeypatch, self, "run", 1)
            asked.append(len(items))
        return plain(self, items)

    settings = Owlv2Sam2Settings(checkpoint="sam2", detector="owlv2")
    wanted = Owlv2Sam2Segmenter(settings, weights).prompter.detector.texts  # type: ignore[attr-defined]
    monkeypatch.setattr(ElasticBatch, "__call__", call)
    found = Owlv2Sam2Segmenter(settings, weights).prompter.detector.texts  # type: ignore[attr-defined]
    assert asked == [4]
    assert np.allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("name", ["sam2", "sam3", "owlv2"])
def test_what_a_batch_takes_can_be_tried(weights: Path, name: str) -> None:
    """With the memory full of as much as there may be; nothing of it is left."""
    segmenter: Any
    if name == "sam2":
        segmenter = sam2(weights)
    elif name == "sam3":
        segmenter = Sam3Segmenter(Sam3Settings(checkpoint="sam3", max_objects=1), weights)
    else:
        settings = Owlv2Sam2Settings(checkpoint="sam2", detector="owlv2", max_objects=1)
        segmenter = Owlv2Sam2Segmenter(settings, weights)
    most: list[int] = []
    tracker = segmenter.tracker
    prune = tracker._prune

    def watch(frame: int) -> None:
        outputs = tracker.session.output_dict_per_obj
        memories = [m for o in outputs.values() for k in o.values() for m in k.values()]
        most.append(sum("maskmem_features" in m for m in memories))
        prune(frame)

    tracker._prune = watch
    segmenter.try_batch(2)
    tracks = 2 if name == "sam2" else 5
    assert max(most) == tracks * (1 + tracker.feature_frames + 1)
    assert tracker.tracks == []
