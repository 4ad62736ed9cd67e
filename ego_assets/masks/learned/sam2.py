"""SAM 2.1 video masks (Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024).

Here: the tracker (transformers' Sam2VideoModel, without its processor, which needs torchvision)
and the segmenter, which prompts it with the boxes of hands that landmarks give, and of what is cut
out at them. Not here: finding hands and objects; the network itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ego_assets.masks.association import box_iou, box_overlaps
from ego_assets.masks.landmarks.segmenter import LandmarksSegmenter
from ego_assets.masks.learned.track_memory import (
    OBJECTS,
    Tracked,
    TrackMemory,
    encode_apart,
    mask_row,
    noted,
    shown_again,
)
from ego_assets.masks.settings import Sam2Settings, Sam2TrackerSettings, SegmentSettings
from ego_assets.models.device import (
    autocast,
    compiled,
    pick_device,
    settle,
    to_device,
    to_host,
)
from ego_assets.models.memory import persist
from ego_assets.models.pretrained import load_pretrained
from ego_assets.operator import Carried, ClipInput, ClipOperator, ClipOutput
from ego_assets.vision.rle import mask_box

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet, as the image encoder was trained."""
FORGOTTEN_AFTER_S = 5.0
"""A track that is out of sight for so long is given up; it may be prompted anew."""
SAME_IOU = 0.7
"""A box that covers a tracked one like this is the same thing, whatever it is called."""

Box = Sequence[float]


class Sam2Tracker(TrackMemory):
    """Masks of prompted things, frame by frame, and the memory that lets it go on elsewhere.

    The same frames and prompts give the same masks, whether in one go or from `restore`d
    memory, and whoever else is tracked beside. A frame is encoded once for all tracks, and so are
    new memories, up to `objects` at once; transformers decodes track by track.
    """

    def __init__(
        self, folder: Path, compile: bool | str = False, objects: int | None = None
    ) -> None:
        import torch

        self.device = pick_device()
        self.model = settle(load_model(folder), self.device)
        self.model.vision_encoder.forward = compiled(self.model.vision_encoder.forward, compile)
        self.constants = [torch.tensor(v, device=self.device)[:, None, None] for v in (MEAN, STD)]
        self.size: int = self.model.config.image_size
        encode_apart(self.model, objects or OBJECTS)
        self.remember_as(self.model.config, objects or OBJECTS)

    def _fresh(self) -> Any:
        from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

        return Sam2VideoInferenceSession(
            inference_device=self.device,
            inference_state_device=self.device,
            video_storage_device=self.device,
            dtype=self.model.dtype,
        )

    def step(
        self, frame_index: int, image: np.ndarray, prompts: Mapping[str, Box], size: tuple[int, int]
    ) -> dict[str, Tracked]:
        """Track everything into the next frame.

        frame_index: absolute, rising by one; image: (h, w, 3) uint8 RGB; prompts: {track: box in
        0 … 1 of width and height}, of things new or lost; size: (H, W) of the masks given back.
        """
        import torch

        if not prompts and not self.tracks:
            return {}
        with torch.inference_mode(), autocast(self.device):
            self._prompt(frame_index, prompts)
            pixels = persist(lambda: self._pixels(image))
            found = self.model(self.session, frame_idx=frame_index, frame=pixels)
            masks = self.enlarge([(logits, size) for logits in found.pred_masks[:, 0]])
            (scores,) = to_host(found.object_score_logits.float().sigmoid().flatten())
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

    def try_batch(self, count: int) -> None:
        """Follow so many things until their memory is full, so that the peak can be measured."""
        side = 2 * self.size
        image = np.zeros((round(side * 9 / 16), side, 3), np.uint8)
        prompts = {str(n): [0.1, 0.1, 0.9, 0.9] for n in range(count)}
        self.restore({})
        for frame in range(self.feature_frames + 2):
            self.step(frame, image, {} if frame else prompts, image.shape[:2])
        self.restore({})


def load_model(folder: Path) -> Any:
    """The network of a `save_pretrained` folder, on the CPU. Raises WeightsError."""
    return load_pretrained(folder, "sam2_video", "Sam2VideoModel", "SAM 2.1")


class Sam2Segmenter:
    """`detections`, `object_masks`, `hand_masks`: what landmarks and motion find,
    followed by SAM 2.1.

    A thing is prompted when it is first found and, at every `prompt_interval_s`, if the
    two disagree about where it is. Frames that a clip shares with the one before are not tracked
    again: they have its masks. `detections` are its prompters', and say so.
    """

    name = "sam2"
    version = f"{LandmarksSegmenter.version}.3"
    quality_tier = "reference"
    weights_hash = ""
    on_device = True

    def __init__(self, settings: Sam2Settings, weights: Path) -> None:
        self.settings = settings
        self.tracker = Sam2Tracker(
            weights / settings.checkpoint, settings.compile, settings.objects_per_batch
        )
        self.try_batch = self.tracker.try_batch
        kept = {name: getattr(settings, name) for name in SegmentSettings.model_fields}
        self.prompter: ClipOperator = LandmarksSegmenter(SegmentSettings(**kept), weights)

    @staticmethod
    def check(settings: Sam2TrackerSettings, weights: Path) -> str:
        """What the weights hold, for people. Raises WeightsError."""
        model = load_model(weights / settings.checkpoint)
        return f"SAM 2.1 of {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters"

    def process(self, clip: ClipInput, carried: Carried | None) -> ClipOutput:
        """A clip in which nothing is found gives no rows."""
        carried = carried or {}
        seen = self.prompter.process(clip, _unprefixed(carried) or None)
        sight = self.sight(clip, carried)
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
        sight.settle()
        tables: dict[str, list[dict[str, Any]]] = {"hand_masks": [], "object_masks": []}
        for row in rows:
            thing = sight.things[row["track_id"]]
            tables[thing["table"]].append(mask_row(clip, row, thing, size, self))
        tables["detections"] = seen.tables["detections"]
        state = self.tracker.export() | sight.export()
        state |= {"rows": shown_again(clip, rows), "next_frame": end}
        state |= {f"{_PREFIX}{name}": value for name, value in seen.carried.items()}
        notes = {"prompts": prompted, "tracks": len(self.tracker.tracks)}
        return ClipOutput(tables, carried=state, notes=notes)

    def sight(self, clip: ClipInput, carried: Carried) -> Sight:
        """What is known of a clip's take so far."""
        return _PromptedSight(self.settings, carried)


_PREFIX = "prompter_"


def _unprefixed(carried: Carried) -> Carried:
    """What the prompter carried, from among what we carry."""
    return {k.removeprefix(_PREFIX): v for k, v in carried.items() if k.startswith(_PREFIX)}


class Sight(ABC):
    """What is tracked, where it was last, and which boxes are prompts; a subclass says which.

    things: {track: what its rows say in every frame}; boxes: {track: box in pixels, None when out
    of sight}; seen_s: {track: time it was last in sight, or prompted}.
    """

    def __init__(self, settings: Sam2TrackerSettings, carried: Carried) -> None:
        self.settings = settings
        self.things: dict[str, dict[str, Any]] = dict(carried.get("things", {}))
        self.boxes: dict[str, Box | None] = dict(carried.get("boxes", {}))
        self.seen_s: dict[str, float] = dict(carried.get("seen_s", {}))

    def export(self) -> Carried:
        return {"things": self.things, "boxes": self.boxes, "seen_s": self.seen_s}

    @abstractmethod
    def name(self, row: dict[str, Any], table: str) -> None:
        """Hear of a proposal for a mask table, before any frame is looked at."""

    @abstractmethod
    def prompts(
        self, rows: list[dict[str, Any]], pts_s: float, size: tuple[int, int]
    ) -> dict[str, Box]:
        """{track: box in 0 … 1} of one frame, from the proposals for it."""

    @abstractmethod
    def settle(self) -> None:
        """All of the clip has been seen: say what its new tracks are."""

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
            rows.append(noted(frame_index, pts_s, track, one, box))
        return rows

    def forget(self, pts_s: float) -> list[str]:
        """The tracks that have been out of sight for too long; they are tracked no more."""
        gone = [t for t, seen in self.seen_s.items() if pts_s - seen > FORGOTTEN_AFTER_S]
        for track in gone:
            del self.seen_s[track], self.boxes[track]
        return gone


class _PromptedSight(Sight):
    """Boxes that were found are prompts. interval: the one of `prompt_interval_s` that is on."""

    settings: Sam2Settings

    def __init__(self, settings: Sam2Settings, carried: Carried) -> None:
        super().__init__(settings, carried)
        self.interval: int = carried.get("interval", -1)

    def export(self) -> Carried:
        return super().export() | {"interval": self.interval}

    def name(self, row: dict[str, Any], table: str) -> None:
        """Take over what is said of a track; what was said first counts for the take."""
        said = {k: row.get(k) for k in ("label", "side", "is_wearer")}
        self.things.setdefault(row["track_id"], said | {"table": table})

    def settle(self) -> None:
        """Change nothing: proposals say what tracks are."""

    def prompts(
        self, rows: list[dict[str, Any]], pts_s: float, size: tuple[int, int]
    ) -> dict[str, Box]:
        """Of things that are new, or, when it is time, elsewhere."""
        interval = int(pts_s / self.settings.prompt_interval_s)
        is_due, self.interval = interval != self.interval, interval
        found: dict[str, Box] = {}
        for row in rows:
            track, box = row["track_id"], row["box"]
            if track in self.boxes:
                was = self.boxes[track]
                agrees = was is not None and box_iou(was, box) >= self.settings.min_agreement
                wanted = is_due and not agrees
            else:
                table = self.things[track]["table"]
                others = [
                    b for t, b in self.boxes.items() if b and self.things[t]["table"] == table
                ]
                wanted = bool((box_overlaps(others, [box]) < SAME_IOU).all())
            if wanted:
                height, width = size
                found[track] = [box[0] / width, box[1] / height, box[2] / width, box[3] / height]
                self.seen_s[track] = pts_s
        return found
