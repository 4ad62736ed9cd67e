"""SAM 3: things found by words, followed through a take (Carion et al., "SAM 3: Segment Anything
with Concepts", 2025).

Here: the tracker (that of transformers, without its own rules of association, some of which need a
kernel that is fetched at run time) and the segmenter. Not here: the detector (`sam3_network`),
which detections are one thing (`association`), sides of hands (`sides`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ego_assets.masks.association import assign, keepers, mask_overlaps
from ego_assets.masks.learned.detections import (
    Cast,
    detection_rows,
    noted_detections,
    same_table,
    table_of,
)
from ego_assets.masks.learned.sam2 import FORGOTTEN_AFTER_S, SAME_IOU
from ego_assets.masks.learned.sam3_network import (
    TEXT_LENGTH,
    MaskDetection,
    Sam3Network,
    load_model,
)
from ego_assets.masks.learned.track_memory import (
    Tracked,
    TrackMemory,
    encode_apart,
    mask_row,
    noted,
    shown_again,
)
from ego_assets.masks.settings import Sam3Settings
from ego_assets.masks.sides import LOW, MAX_HANDS, entry_x
from ego_assets.models.device import autocast
from ego_assets.models.memory import persist
from ego_assets.models.pretrained import text_tokens
from ego_assets.operator import Carried, ClipInput, ClipOutput, Frame
from ego_assets.vision.rle import mask_box

MIN_MATCH = 0.1
"""Least overlap (IoU) of a detection with the track that it continues."""


class Sam3Tracker(TrackMemory):
    """Masks of things that were shown to it once, frame by frame: SAM 3's, which is SAM 2's."""

    def __init__(self, network: Sam3Network) -> None:
        self.device = network.device
        self.network = network
        self.model = network.model.tracker_model
        objects = network.settings.objects_per_batch
        encode_apart(self.model, objects)
        self.remember_as(self.model.config, objects)

    def _fresh(self) -> Any:
        from transformers.models.sam3_tracker_video.modeling_sam3_tracker_video import (
            Sam3TrackerVideoInferenceSession,
        )

        session = Sam3TrackerVideoInferenceSession(
            inference_device=self.device,
            inference_state_device=self.device,
            video_storage_device=self.device,
            dtype=self.model.dtype,
        )
        session.obj_with_new_inputs = []
        return session

    def follow(self, frame_index: int, features: Any) -> tuple[Any, list[float]]:
        """(logits (N, h, w), scores) of all `tracks` in the next frame, which are not remembered
        before `remember` is called."""
        import torch

        with torch.inference_mode(), autocast(self.device):
            seen = persist(lambda: self.network.tracker_features(features))
            self.session.cache.cache_vision_features(frame_index, seen)
            if not self.tracks:
                return torch.zeros((0, 1, 1), device=self.device), []
            found = self.model(
                self.session,
                frame_idx=frame_index,
                frame=torch.zeros(1, device=self.device),  # says that it is a stream
                run_mem_encoder=False,
            )
            scores = found.object_score_logits.float().sigmoid().flatten().tolist()
            return found.pred_masks[:, 0].float(), scores

    def remember(self, frame_index: int, prompts: Mapping[str, Any]) -> None:
        """End a frame. prompts: {track: (h, w) logits of its mask}, of things new or corrected."""
        import torch

        session = self.session
        with torch.inference_mode(), autocast(self.device):
            for track, logits in prompts.items():
                index = session.obj_id_to_idx(track)
                shown = self.model._run_single_frame_inference(
                    inference_session=session,
                    frame_idx=frame_index,
                    obj_idx=index,
                    batch_size=1,
                    is_init_cond_frame=True,
                    point_inputs=None,
                    mask_inputs=(logits > 0)[None, None].to(session.dtype),
                    reverse=False,
                    streaming=True,
                )
                session.output_dict_per_obj[index]["non_cond_frame_outputs"].pop(frame_index, None)
                session.store_output(index, frame_index, output_value=shown)
            self._encode_memories(frame_index)
        if session.processed_frames is None:
            session.processed_frames = {}
        self._prune(frame_index)

    def _encode_memories(self, frame_index: int) -> None:
        indices, masks, scores, prompted = [], [], [], []
        for index, outputs in self.session.output_dict_per_obj.items():
            is_prompted = frame_index in outputs["cond_frame_outputs"]
            kind = "cond_frame_outputs" if is_prompted else "non_cond_frame_outputs"
            memory = outputs[kind][frame_index]
            indices.append(index)
            masks.append(memory["high_res_masks"])
            scores.append(memory["object_score_logits"])
            prompted.append(is_prompted)
        self.model._batch_encode_memories(
            inference_session=self.session,
            frame_idx=frame_index,
            objects_needing_memory_encoding=indices,
            high_res_masks_for_memory=masks,
            object_score_logits_for_memory=scores,
            is_mask_from_pts_per_obj=prompted,
        )


class Sam3Segmenter:
    """`detections`, `object_masks`, `hand_masks` by words, in one pass over the frames.

    Frames that a clip shares with the one before are not looked at again: they have its rows.
    """

    name = "sam3"
    version = "2"
    quality_tier = "reference"
    weights_hash = ""
    on_device = True

    def __init__(self, settings: Sam3Settings, weights: Path) -> None:
        self.settings = settings
        self.network = Sam3Network(weights / settings.checkpoint, settings)
        self.tracker = Sam3Tracker(self.network)

    def try_batch(self, count: int) -> None:
        """Encode so many black frames, and follow all that there may be, to see the peak."""
        import torch

        features, *_ = self.network.see([None] * count)
        size = self.tracker.model.prompt_encoder.mask_input_size
        shown = torch.ones(size, device=self.network.device)
        prompts = {str(n): shown for n in range(MAX_HANDS + self.settings.max_objects)}
        self.tracker.restore({})
        for frame in range(self.tracker.feature_frames + 2):
            logits, _ = self.tracker.follow(frame, features)
            self.network.detect(features)
            self.tracker.enlarge([(one, (1080, 1920)) for one in logits])
            self.tracker.remember(frame, {} if frame else prompts)
        self.tracker.restore({})

    @staticmethod
    def check(settings: Sam3Settings, weights: Path) -> str:
        """What the weights hold, for people. Raises WeightsError."""
        folder = weights / settings.checkpoint
        model = load_model(folder)
        texts = model.config.detector_config.text_config
        length = min(TEXT_LENGTH, texts.max_position_embeddings)
        text_tokens(folder, list(settings.vocabulary), length, texts.vocab_size)
        return f"SAM 3 of {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters"

    def process(self, clip: ClipInput, carried: Carried | None) -> ClipOutput:
        """A clip in which the words find nothing gives no rows."""
        carried = carried or {}
        sight = _Sight(self.settings, clip, carried)
        self.tracker.restore(carried)
        size = (clip.frames.height, clip.frames.width)
        start, end = clip.clip["start_frame"], clip.clip["end_frame"]
        rows = [r for r in carried.get("rows", []) if r["frame_index"] >= start]
        seen = [r for r in carried.get("seen", []) if r["frame_index"] >= start]
        indices = range(max(start, carried.get("next_frame", start)), end)
        # Twice the network's side keeps every line of a 16:9 picture that it could make use of.
        shown = clip.frames.read(max_side_px=2 * self.network.side, indices=indices)
        for frame, features in self.network.encode(shown if indices else iter(())):
            logits, scores = self.tracker.follow(frame.index, features)
            tracked = dict(zip(self.tracker.tracks, zip(logits, scores, strict=True), strict=True))
            prompts: dict[str, MaskDetection] = {}
            if sight.is_due(frame.pts_s):
                detections = self.network.detect(features)
                seen.extend(noted_detections(self.settings, frame, detections, size))
                prompts = sight.meet(frame, detections, _small(tracked))
            tracked |= {t: (d.logits, d.score) for t, d in prompts.items()}
            self.tracker.remember(frame.index, {t: d.logits for t, d in prompts.items()})
            masks = self.tracker.enlarge([(logits, size) for logits, _ in tracked.values()])
            for (track, (_, score)), mask in zip(tracked.items(), masks, strict=True):
                one = Tracked(mask, score)
                if (box := mask_box(one.mask)) is not None:
                    rows.append(noted(frame.index, frame.pts_s, track, one, box))
            if gone := sight.forget(frame.pts_s):
                self.tracker.restore(self.tracker.export(), without=gone)
        sight.cast.settle()
        tables: dict[str, list[dict[str, Any]]] = {"hand_masks": [], "object_masks": []}
        for row in rows:
            thing = sight.cast.things[row["track_id"]]
            tables[thing["table"]].append(mask_row(clip, row, thing, size, self))
        tables["detections"] = detection_rows(clip, seen, self.name)
        late = shown_again(clip, rows)
        state = self.tracker.export() | sight.export({r["track_id"] for r in late})
        state |= {"rows": late, "seen": shown_again(clip, seen), "next_frame": end}
        notes = {"detections": len(seen), "tracks": len(self.tracker.tracks)}
        return ClipOutput(tables, carried=state, notes=notes)


def _small(tracked: Mapping[str, tuple[Any, float]]) -> dict[str, np.ndarray]:
    """{track: (h, w) bool}, of the network's small size."""
    return {t: (logits > 0).cpu().numpy() for t, (logits, _) in tracked.items()}


class _Sight:
    """What is tracked, and what a frame's detections mean for it.

    confirmed_s: {track alive: time of the last detection that agreed}; intervals: those of the
    clocks of detection and of correction that are running.
    """

    def __init__(self, settings: Sam3Settings, clip: ClipInput, carried: Carried) -> None:
        self.settings = settings
        self.cast = Cast(settings, settings.max_objects, clip, carried)
        self.confirmed_s: dict[str, float] = dict(carried.get("confirmed_s", {}))
        self.intervals: list[int] = list(carried.get("intervals", [-1, -1]))
        self.doubles: list[str] = []

    def export(self, shown: set[str]) -> Carried:
        """What the next clip needs to know. shown: tracks with rows, which it may show again."""
        clocks = {"confirmed_s": self.confirmed_s, "intervals": self.intervals}
        return self.cast.export(shown | self.confirmed_s.keys()) | clocks

    def _begins(self, which: int, interval_s: float, pts_s: float) -> bool:
        """Whether a new interval of the clock `which` begins with this frame."""
        if not interval_s:
            return True
        number = int(pts_s / interval_s + 1e-6)  # 0.6 s are three times 0.2 s
        begins, self.intervals[which] = number != self.intervals[which], number
        return begins

    def is_due(self, pts_s: float) -> bool:
        """Whether the vocabulary is looked for in this frame."""
        return self._begins(0, self.settings.detection_interval_s, pts_s)

    def meet(
        self, frame: Frame, found: Sequence[MaskDetection], masks: Mapping[str, np.ndarray]
    ) -> dict[str, MaskDetection]:
        """{track: detection that it begins with, or begins anew with}. masks: of all tracks."""
        corrects = self._begins(1, self.settings.prompt_interval_s, frame.pts_s)
        tracks = list(masks)
        tables = self.cast.tables(tracks)
        kinds = [table_of(self.settings, d.words) for d in found]
        overlaps = _overlaps(list(masks.values()), [d.mask for d in found], tables, kinds)
        self._drop_doubles(list(masks.values()), tracks, tables)
        prompts: dict[str, MaskDetection] = {}
        unmatched = dict(enumerate(found))
        for row, column in assign(overlaps, MIN_MATCH):
            track, one = tracks[row], unmatched.pop(column)
            self._confirm(track, frame, one)
            is_off = overlaps[row, column] < self.settings.min_agreement
            if corrects and is_off and one.score >= self.settings.min_new_score:
                prompts[track] = one
        for column, one in unmatched.items():
            is_new = not len(tracks) or overlaps[:, column].max() < SAME_IOU
            if is_new and one.score >= self.settings.min_new_score:
                lost = [t for t in tracks if not masks[t].any() and t not in prompts]
                again = [t for t in lost if self.cast.words_of(t) == one.words]
                name = again[0] if again else self.cast.begin(kinds[column], self.confirmed_s)
                if name:
                    prompts[name] = one
                    self._confirm(name, frame, one)
        return prompts

    def _drop_doubles(self, masks: list[np.ndarray], tracks: list[str], tables: list[str]) -> None:
        """Two tracks that have become one: the older one stays."""
        alike = _overlaps(masks, masks, tables, tables)
        stays = keepers(-np.arange(len(tracks)), alike, SAME_IOU)
        self.doubles = [t for index, t in enumerate(tracks) if stays[index] != index]

    def _confirm(self, track: str, frame: Frame, one: MaskDetection) -> None:
        """Remember that a detection agreed, and what it says."""
        self.confirmed_s[track] = frame.pts_s
        is_low = bool(one.mask[int(LOW * len(one.mask)) :].any())
        self.cast.hear(track, frame.index, one.votes, entry_x(one.mask), is_low)

    def forget(self, pts_s: float) -> list[str]:
        """The tracks that are given up: doubles, and those that no detection agrees with."""
        late = [t for t, seen in self.confirmed_s.items() if pts_s - seen > FORGOTTEN_AFTER_S]
        gone = list(dict.fromkeys([*self.doubles, *late]))
        self.doubles = []
        for track in gone:
            del self.confirmed_s[track]
        return gone


def _overlaps(
    ones: list[np.ndarray], others: list[np.ndarray], tables: list[str], kinds: list[str]
) -> np.ndarray:
    """(N, M) overlaps of masks, nought between hands and objects."""
    if not ones or not others:
        return np.zeros((len(ones), len(others)))
    overlaps = mask_overlaps(np.stack(ones), np.stack(others))
    overlaps *= same_table(tables, kinds)
    return overlaps
