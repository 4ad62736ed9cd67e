"""SAM 2.1 video masks (Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024).

Here: the tracker (transformers' Sam2VideoModel, without its processor, which needs torchvision)
and the segmenter, which prompts it with the boxes of the baseline. Not here: finding hands and
objects; the network itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ego_assets.config import Sam2Settings, SegmentSettings
from ego_assets.operators.rle import encode_mask, mask_box
from ego_assets.operators.segment import BaselineSegmenter
from ego_assets.protocols import Carried, ClipInput, ClipOperator, ClipOutput
from resources.backends.device import (
    autocast,
    compiled,
    pick_device,
    settle,
    to_device,
    to_host,
)
from resources.backends.pretrained import load_saved

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet, as the image encoder was trained."""
KEPT_PROMPTS = 4
"""Conditioning frames of a track that are kept: its first and its newest ones. The network looks
at all there are, so without a bound time and memory would grow with the take."""
FORGOTTEN_AFTER_S = 5.0
"""A track that is out of sight for so long is given up; it may be prompted anew."""
SAME_IOU = 0.7
"""A box that covers a tracked one like this is the same thing, whatever the baseline calls it."""

Box = Sequence[float]


@dataclass(frozen=True)
class Tracked:
    """One track in one frame. mask: (H, W) bool, maybe empty; score: that it is in the picture."""

    mask: np.ndarray
    score: float


class Sam2Tracker:
    """Masks of prompted things, frame by frame, and the memory that lets it go on elsewhere.

    The same frames and prompts give the same masks, whether in one go or from `restore`d
    memory, and whoever else is tracked beside. A frame is encoded once for all tracks, and so are
    their new memories; transformers decodes track by track.
    """

    def __init__(self, folder: Path, compile: bool = False) -> None:
        import torch

        self.device = pick_device()
        self.model = settle(load_model(folder), self.device)
        self.model.vision_encoder.forward = compiled(self.model.vision_encoder.forward, compile)
        self.constants = [torch.tensor(v, device=self.device)[:, None, None] for v in (MEAN, STD)]
        self.size: int = self.model.config.image_size
        # Frames back to which the network looks: for features, and for object pointers.
        self.feature_frames: int = self.model.config.num_maskmem - 1
        self.pointer_frames: int = self.model.config.max_object_pointers_in_encoder - 1
        self.session = self._fresh()

    def _fresh(self) -> Any:
        from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

        return Sam2VideoInferenceSession(
            inference_device=self.device,
            inference_state_device=self.device,
            video_storage_device=self.device,
            dtype=self.model.dtype,
        )

    @property
    def tracks(self) -> list[str]:
        return list(self.session.obj_ids)

    def step(
        self, frame_index: int, image: np.ndarray, prompts: Mapping[str, Box], size: tuple[int, int]
    ) -> dict[str, Tracked]:
        """Track everything into the next frame.

        frame_index: absolute, rising by one; image: (h, w, 3) uint8 RGB; prompts: {track: box in
        0 … 1 of width and height}, of things new or lost; size: (H, W) of the masks given back.
        """
        import torch
        import torch.nn.functional as F

        if not prompts and not self.tracks:
            return {}
        with torch.inference_mode(), autocast(self.device):
            self._prompt(frame_index, prompts)
            found = self.model(self.session, frame_idx=frame_index, frame=self._pixels(image))
            logits = F.interpolate(found.pred_masks.float(), size, mode="bilinear")
            seen = found.object_score_logits.float().sigmoid().flatten()
            masks, scores = to_host(logits[:, 0] > 0, seen)
        self._prune(frame_index)
        return {
            track: Tracked(mask, float(score))
            for track, mask, score in zip(found.object_ids, masks, scores, strict=True)
        }

    def _pixels(self, image: np.ndarray) -> Any:
        """(3, S, S): squeezed to a square, as in training, and normalised, on the device."""
        import torch.nn.functional as F

        pixels = to_device(image, self.device).permute(2, 0, 1)[None].float() / 255
        pixels = F.interpolate(pixels, (self.size, self.size), mode="bilinear", antialias=True)
        mean, std = self.constants
        return ((pixels - mean) / std)[0]

    def _prompt(self, frame_index: int, prompts: Mapping[str, Box]) -> None:
        """A box is two points, labelled 2 and 3: its upper left and lower right corner."""
        import torch

        for track, box in prompts.items():
            corners = torch.tensor(box, dtype=torch.float32).reshape(1, 1, 2, 2) * self.size
            labels = torch.tensor([[[2, 3]]], dtype=torch.int32)
            index = self.session.obj_id_to_idx(track)
            inputs = {"point_coords": corners, "point_labels": labels}
            self.session.add_point_inputs(index, frame_index, inputs)
        self.session.obj_with_new_inputs = list(prompts)

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


def load_model(folder: Path) -> Any:
    """The network of a `save_pretrained` folder, on the CPU, in evaluation mode.

    Only safetensors are read, and nothing is fetched. Raises WeightsError.
    """
    from transformers import Sam2VideoModel

    model = load_saved(Sam2VideoModel, folder, "sam2_video", "SAM 2.1")
    _encode_apart(model)
    return model


def _encode_apart(model: Any) -> None:
    """Let nobody's prompt change the memory of others.

    The memory of a prompted frame is made from the mask, that of a tracked one from its
    probabilities. transformers 5.23 treats all tracks of a frame alike if one was prompted;
    Meta's code, which this restores, asks of each.
    """
    encode_together = model._batch_encode_memories
    listed = (
        "objects_needing_memory_encoding",
        "high_res_masks_for_memory",
        "object_score_logits_for_memory",
        "is_mask_from_pts_per_obj",
    )

    def encode(*, inference_session: Any, frame_idx: int, **lists: Any) -> None:
        for prompted in (False, True):
            chosen = [i for i, p in enumerate(lists[listed[3]]) if p == prompted]
            part = {name: [lists[name][i] for i in chosen] for name in listed}
            encode_together(inference_session=inference_session, frame_idx=frame_idx, **part)

    model._batch_encode_memories = encode


class Sam2Segmenter:
    """`detections`, `object_masks`, `hand_masks`: what the baseline finds, followed by SAM 2.1.

    A thing is prompted when the baseline first sees it and, at every `prompt_interval_s`, if the
    two disagree about where it is. Frames that a clip shares with the one before are not tracked
    again: they have its masks. `detections` are the baseline's, and say so.
    """

    name = "sam2"
    version = "1"
    quality_tier = "model"
    weights_hash = ""
    on_device = True

    def __init__(self, settings: Sam2Settings, weights: Path) -> None:
        self.settings = settings
        self.tracker = Sam2Tracker(weights / settings.checkpoint, settings.compile)
        kept = {name: getattr(settings, name) for name in SegmentSettings.model_fields}
        self.prompter: ClipOperator = BaselineSegmenter(SegmentSettings(**kept))

    @staticmethod
    def check(settings: Sam2Settings, weights: Path) -> str:
        """What the weights hold, for people. Raises WeightsError."""
        model = load_model(weights / settings.checkpoint)
        return f"SAM 2.1 of {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters"

    def process(self, clip: ClipInput, carried: Carried | None) -> ClipOutput:
        """See `Segmenter`. A clip in which the baseline finds nothing gives no rows."""
        carried = carried or {}
        seen = self.prompter.process(clip, _unprefixed(carried) or None)
        sight = _Sight(self.settings, carried)
        proposed: dict[int, list[dict[str, Any]]] = {}
        for table in ("hand_masks", "object_masks"):
            for row in seen.tables[table]:
                proposed.setdefault(row["frame_index"], []).append(row)
                sight.name(row, table)
        self.tracker.restore(carried)
        size = (clip.frames.height, clip.frames.width)
        start, end = clip.clip["start_frame"], clip.clip["end_frame"]
        rows = [r for r in carried.get("rows", []) if r["frame_index"] >= start]
        indices = range(max(start, carried.get("next_frame", start)), end)
        prompted = 0
        # Twice the network's side keeps every line of a 16:9 picture that it could make use of.
        shown = clip.frames.read(max_side_px=2 * self.tracker.size, indices=indices)
        for frame in shown if indices else ():
            prompts = sight.prompts(proposed.get(frame.index, []), frame.pts_s, size)
            prompted += len(prompts)
            found = self.tracker.step(frame.index, frame.image, prompts, size)
            rows.extend(sight.look(frame.index, frame.pts_s, found))
            if gone := sight.forget(frame.pts_s):
                self.tracker.restore(self.tracker.export(), without=gone)
        tables: dict[str, list[dict[str, Any]]] = {"hand_masks": [], "object_masks": []}
        for row in rows:
            thing = sight.things[row["track_id"]]
            tables[thing["table"]].append(self._row(clip, row, thing, size))
        tables["detections"] = seen.tables["detections"]
        state = self.tracker.export() | sight.export() | {"rows": rows, "next_frame": end}
        state |= {f"{_PREFIX}{name}": value for name, value in seen.carried.items()}
        notes = {"prompts": prompted, "tracks": len(self.tracker.tracks)}
        return ClipOutput(tables, carried=state, notes=notes)

    def _row(
        self, clip: ClipInput, row: dict[str, Any], thing: dict[str, Any], size: tuple[int, int]
    ) -> dict[str, Any]:
        columns = clip.row(row["frame_index"], row["pts_s"]) | {
            "track_id": row["track_id"],
            "label": thing["label"],
            "score": row["score"],
            "box": row["box"],
            "area_px": row["area_px"],
            "height_px": size[0],
            "width_px": size[1],
            "rle": row["rle"].encode(),
            "backend": self.name,
            "quality_tier": self.quality_tier,
        }
        if thing["table"] == "hand_masks":
            columns |= {"side": thing["side"], "is_wearer": thing["is_wearer"]}
        return columns


_PREFIX = "prompter_"


def _unprefixed(carried: Carried) -> Carried:
    """What the prompter carried, from among what we carry."""
    return {k.removeprefix(_PREFIX): v for k, v in carried.items() if k.startswith(_PREFIX)}


class _Sight:
    """What is tracked, where it was last, and which of the baseline's boxes are prompts.

    things: {track: what its rows say in every frame}; boxes: {track: box in pixels, None when out
    of sight}; seen_s: {track: time it was last in sight, or prompted}.
    """

    def __init__(self, settings: Sam2Settings, carried: Carried) -> None:
        self.settings = settings
        self.things: dict[str, dict[str, Any]] = dict(carried.get("things", {}))
        self.boxes: dict[str, Box | None] = dict(carried.get("boxes", {}))
        self.seen_s: dict[str, float] = dict(carried.get("seen_s", {}))
        self.interval: int = carried.get("interval", -1)

    def export(self) -> Carried:
        return {
            "things": self.things,
            "boxes": self.boxes,
            "seen_s": self.seen_s,
            "interval": self.interval,
        }

    def name(self, row: dict[str, Any], table: str) -> None:
        """Take over what the baseline says of a track; what was said first counts for the take."""
        said = {k: row.get(k) for k in ("label", "side", "is_wearer")}
        self.things.setdefault(row["track_id"], said | {"table": table})

    def prompts(
        self, rows: list[dict[str, Any]], pts_s: float, size: tuple[int, int]
    ) -> dict[str, Box]:
        """{track: box in 0 … 1} of one frame, from the baseline's rows of it."""
        interval = int(pts_s / self.settings.prompt_interval_s)
        is_due, self.interval = interval != self.interval, interval
        found: dict[str, Box] = {}
        for row in rows:
            track, box = row["track_id"], row["box"]
            if track in self.boxes:
                wanted = is_due and box_iou(self.boxes[track], box) < self.settings.min_agreement
            else:
                table = self.things[track]["table"]
                others = [b for t, b in self.boxes.items() if self.things[t]["table"] == table]
                wanted = all(box_iou(b, box) < SAME_IOU for b in others)
            if wanted:
                height, width = size
                found[track] = [box[0] / width, box[1] / height, box[2] / width, box[3] / height]
                self.seen_s[track] = pts_s
        return found

    def look(
        self, frame_index: int, pts_s: float, tracked: Mapping[str, Tracked]
    ) -> list[dict[str, Any]]:
        """Remember where things are. What a row of each needs, in values that JSON knows."""
        rows = []
        for track, one in tracked.items():
            box = self.boxes[track] = mask_box(one.mask)
            if box is None:
                continue
            self.seen_s[track] = pts_s
            rows.append(
                {
                    "frame_index": frame_index,
                    "pts_s": pts_s,
                    "track_id": track,
                    "score": one.score,
                    "box": box,
                    "area_px": int(np.count_nonzero(one.mask)),
                    "rle": encode_mask(one.mask).decode(),
                }
            )
        return rows

    def forget(self, pts_s: float) -> list[str]:
        """The tracks that have been out of sight for too long; they are tracked no more."""
        gone = [t for t, seen in self.seen_s.items() if pts_s - seen > FORGOTTEN_AFTER_S]
        for track in gone:
            del self.seen_s[track], self.boxes[track]
        return gone


def box_iou(one: Box | None, other: Box) -> float:
    """Intersection over union of two boxes x_min, y_min, x_max, y_max; 0 for none."""
    if one is None:
        return 0.0
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (one, other)]
    return width * height / (sum(areas) - width * height)
