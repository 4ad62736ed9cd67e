"""What trackers of the SAM family remember of a video, and the rows that come of it.

Here: the memory of a transformers session, made, pruned, exported, restored; masks and rows.
Not here: networks, prompts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ego_assets.models.device import to_host
from ego_assets.models.memory import ElasticBatch, persist
from ego_assets.operator import Carried, ClipInput, ClipOperator
from ego_assets.settings import MAX_OVERLAP_S
from ego_assets.vision.rle import encode_mask

OBJECTS = 16
"""Tracks at once, where neither the settings nor a measurement say."""
KEPT_PROMPTS = 4
"""Conditioning frames of a track that are kept: its first and its newest ones. The network looks
at all there are, so without a bound time and memory would grow with the take."""


@dataclass(frozen=True)
class Tracked:
    """One track in one frame. mask: (H, W) bool, maybe empty; score: that it is in the picture."""

    mask: np.ndarray
    score: float


class TrackMemory(ABC):
    """The memory of a session of transformers' video trackers (SAM 2, and the tracker of SAM 3).

    Bounded however long it goes on; what is exported and restored is the same to the last bit.
    A subclass says what a fresh session is.
    """

    device: Any

    def remember_as(self, config: Any, objects: int) -> None:
        """Begin to remember for a network of that configuration, so many tracks at a time."""
        self.enlarge = ElasticBatch(full_masks, objects)
        # Frames back to which the network looks: for features, and for object pointers.
        self.feature_frames: int = config.num_maskmem - 1
        self.pointer_frames: int = config.max_object_pointers_in_encoder - 1
        self.session = self._fresh()

    @abstractmethod
    def _fresh(self) -> Any:
        """A session without memories."""

    @property
    def tracks(self) -> list[str]:
        return list(self.session.obj_ids)

    def _prune(self, frame_index: int) -> None:
        """Drop what no later frame looks at; sessions would else grow with every frame."""
        session = self.session
        session.processed_frames.clear()
        for index, outputs in session.output_dict_per_obj.items():
            prompted, tracked = outputs["cond_frame_outputs"], outputs["non_cond_frame_outputs"]
            for frame in sorted(prompted)[1 : 1 - KEPT_PROMPTS]:
                del prompted[frame]
            for frame in [f for f in tracked if f <= frame_index - self.pointer_frames]:
                del tracked[frame]
            for frame, memory in [*prompted.items(), *tracked.items()]:
                for name in ("pred_masks", "high_res_masks", "object_score_logits"):
                    memory.pop(name, None)
                if frame in tracked and frame <= frame_index - self.feature_frames:
                    # The gap that it leaves is one to the network: nothing is looked up there.
                    memory.pop("maskmem_features", None)
                    memory.pop("maskmem_pos_enc", None)
            session.frames_tracked_per_obj[index].clear()
            session.point_inputs_per_obj[index].clear()

    # -- memory --------------------------------------------------------------------------------

    def export(self) -> Carried:
        """The memory, as a flat dict of JSON values and arrays that does not lose a bit."""
        import torch

        entries: list[list[Any]] = []
        features, pointers, place = [], [], None
        for index, track in self.session._obj_idx_to_id.items():
            for kind, frames in self.session.output_dict_per_obj[index].items():
                for frame, memory in frames.items():
                    held = memory.get("maskmem_features")
                    entries.append([track, kind, frame, held is not None])
                    pointers.append(memory["object_pointer"].float().cpu().numpy())
                    if held is not None:
                        # numpy knows no bfloat16: its bits travel as int16.
                        features.append(held.to(torch.bfloat16).view(torch.int16).cpu().numpy())
                        place = memory["maskmem_pos_enc"]
        if place is None:
            return {}
        return {
            "memory_entries": entries,
            "memory_features": np.stack(features),
            "memory_pointers": np.stack(pointers),
            "memory_place": place.float().cpu().numpy(),  # of position only: the same for all
            "memory_dtypes": [str(memory["object_pointer"].dtype)[6:], str(place.dtype)[6:]],
        }

    def restore(self, memory: Carried, without: Sequence[str] = ()) -> None:
        """Begin anew with the memory of an `export`, less some tracks."""
        import torch

        self.session = self._fresh()
        if "memory_entries" not in memory:
            return
        pointer_dtype, place_dtype = (getattr(torch, name) for name in memory["memory_dtypes"])
        place = torch.from_numpy(memory["memory_place"]).to(self.device, place_dtype)
        features = iter(torch.from_numpy(memory["memory_features"]).view(torch.bfloat16))
        pointers = torch.from_numpy(memory["memory_pointers"]).to(self.device, pointer_dtype)
        for (track, kind, frame, has_features), pointer in zip(
            memory["memory_entries"], pointers, strict=True
        ):
            held = next(features) if has_features else None
            if track in without:
                continue
            entry = {"object_pointer": pointer}
            if held is not None:
                entry |= {"maskmem_features": held.to(self.device), "maskmem_pos_enc": place}
            index = self.session.obj_id_to_idx(track)
            self.session.output_dict_per_obj[index][kind][int(frame)] = entry
        self.session.processed_frames = {}


def encode_apart(model: Any, limit: int) -> None:
    """Let nobody's prompt change the memory of others, and no want of memory change any.

    The memory of a prompted frame is made from the mask, that of a tracked one from its
    probabilities. transformers 5.23 treats all tracks of a frame alike if one was prompted;
    Meta's code, which this restores, asks of each. limit: tracks that are remembered at once.
    What fails for want of memory has changed nothing yet in a session, and is tried again.
    """
    encode_together, infer = model._batch_encode_memories, model._run_single_frame_inference
    listed = (
        "objects_needing_memory_encoding",
        "high_res_masks_for_memory",
        "object_score_logits_for_memory",
        "is_mask_from_pts_per_obj",
    )

    def encode_some(tracks: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        session, frame, *columns = map(list, zip(*tracks, strict=True))
        part = dict(zip(listed, columns, strict=True))
        encode_together(inference_session=session[0], frame_idx=frame[0], **part)
        return tracks

    run = ElasticBatch(encode_some, limit)

    def encode(*, inference_session: Any, frame_idx: int, **lists: Any) -> None:
        rows = list(zip(*(lists[name] for name in listed), strict=True))
        for prompted in (False, True):
            run([(inference_session, frame_idx, *row) for row in rows if row[3] == prompted])

    model._batch_encode_memories = encode
    model._run_single_frame_inference = lambda **named: persist(lambda: infer(**named))


def full_masks(asked: list[tuple[Any, tuple[int, int]]]) -> list[np.ndarray]:
    """(H, W) bool masks of tracks, each from its (h, w) logits and the one size of all."""
    import torch
    import torch.nn.functional as F

    with torch.inference_mode():
        logits = torch.stack([small for small, _ in asked])[:, None].float()
        (masks,) = to_host(F.interpolate(logits, asked[0][1], mode="bilinear")[:, 0] > 0)
    return list(masks)


def noted(
    frame_index: int, pts_s: float, track: str, one: Tracked, box: Sequence[float]
) -> dict[str, Any]:
    """What is kept of a mask for its row, in values that JSON knows."""
    return {
        "frame_index": frame_index,
        "pts_s": pts_s,
        "track_id": track,
        "score": one.score,
        "box": box,
        "area_px": int(np.count_nonzero(one.mask)),
        "rle": encode_mask(one.mask).decode(),
    }


def shown_again(clip: ClipInput, notes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of what was noted in a clip, that of frames which the next one may share with it."""
    since = clip.clip["end_pts_s"] - MAX_OVERLAP_S
    return [n for n in notes if n["pts_s"] >= since]


def mask_row(
    clip: ClipInput,
    note: Mapping[str, Any],
    thing: Mapping[str, Any],
    size: tuple[int, int],
    backend: ClipOperator,
) -> dict[str, Any]:
    """The row of a mask. note: as `noted`; thing: table, label, side, is_wearer of its track;
    size: (H, W) of the picture."""
    columns = clip.row(note["frame_index"], note["pts_s"]) | {
        "track_id": note["track_id"],
        "label": thing["label"],
        "score": note["score"],
        "box": note["box"],
        "area_px": note["area_px"],
        "height_px": size[0],
        "width_px": size[1],
        "rle": note["rle"].encode(),
        "backend": backend.name,
        "quality_tier": backend.quality_tier,
    }
    if thing["table"] == "hand_masks":
        columns |= {"side": thing["side"], "is_wearer": thing["is_wearer"]}
    return columns
