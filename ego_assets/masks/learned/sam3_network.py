"""SAM 3's detector: pictures to what words find in them, and to features for the tracker.

Here: transformers' Sam3VideoModel without its processor, which needs torchvision. Not here: what is
followed through a take (`sam3`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ego_assets.masks.association import keepers, mask_overlaps
from ego_assets.masks.learned.detections import DetectedBox, table_of
from ego_assets.masks.learned.sam2 import SAME_IOU
from ego_assets.masks.settings import Sam3Settings
from ego_assets.models.device import autocast, pick_device
from ego_assets.models.memory import ElasticBatch
from ego_assets.models.pretrained import load_pretrained, text_tokens
from ego_assets.operator import Frame

BATCH = 4
"""Frames at once, where neither the settings nor a measurement say."""
TEXT_LENGTH = 32
"""Tokens that the text encoder was trained with, begin and end included."""


@dataclass
class MaskDetection(DetectedBox):
    """A detection with its mask.

    mask: (h, w) bool, of the network's small size; logits: the same on the device.
    """

    mask: np.ndarray = field(default_factory=lambda: np.zeros((1, 1), bool))
    logits: Any = None


class Sam3Network:
    """Pictures to detections by words, and to features for the tracker.

    A frame's results do not depend on the other frames: it always has the same place in a batch of
    the same size, whose empty places are filled up with black.
    """

    def __init__(self, folder: Path, settings: Sam3Settings) -> None:
        self.device = pick_device()
        self.settings = settings
        self.model = load_model(folder).to(self.device)
        config = self.model.config.detector_config
        self.side: int = config.image_size
        self.words = list(settings.vocabulary)
        tokens, is_text = text_tokens(
            folder,
            self.words,
            min(TEXT_LENGTH, config.text_config.max_position_embeddings),
            config.text_config.vocab_size,
        )
        self.frames = settings.frames_per_batch or BATCH
        self.images = ElasticBatch(self.see, self.frames)
        self.prompts = ElasticBatch(self._find, settings.prompts_per_batch)
        read = ElasticBatch(self._read, settings.prompts_per_batch)
        self.texts = read(list(zip(tokens, is_text, strict=True)))

    def _read(self, texts: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
        """(features (L, C), mask (L,)) of each text: its tokens, and where there are any."""
        import torch

        tokens, is_text = (torch.stack(t).to(self.device) for t in zip(*texts, strict=True))
        encoder = self.model.detector_model
        with torch.inference_mode(), autocast(self.device):
            seen = encoder.get_text_features(input_ids=tokens, attention_mask=is_text)
        return list(zip(seen.pooler_output, is_text, strict=True))

    def encode(self, frames: Iterator[Frame]) -> Iterator[tuple[Frame, Any]]:
        """Each frame and its features (`Sam3VisionEncoderOutput` of a batch of one)."""
        held: dict[int, Frame] = {}
        size = self.frames
        for frame in frames:
            if held and frame.index // size != next(iter(held.values())).index // size:
                yield from self._encode(held)
                held = {}
            held[frame.index % size] = frame
        yield from self._encode(held)

    def _encode(self, held: Mapping[int, Frame]) -> Iterator[tuple[Frame, Any]]:
        places = list(range(self.frames)) if held else []
        while places:
            # Of what is encoded at once all features are held: no more than memory allows.
            part = places[: self.images.limit]
            del places[: len(part)]
            if held.keys() & set(part):
                seen = self.images([held.get(place) for place in part])
                yield from ((held[p], s) for p, s in zip(part, seen, strict=True) if p in held)

    def see(self, frames: list[Frame | None]) -> list[Any]:
        """Features of each frame, `Sam3VisionEncoderOutput` of a batch of one. None: black."""
        import torch

        pixels = torch.zeros((len(frames), 3, self.side, self.side), device=self.device)
        for place, frame in enumerate(frames):
            if frame is not None:
                pixels[place] = self._pixels(frame.image)
        with torch.inference_mode(), autocast(self.device):
            seen = self.model.detector_model.get_vision_features(pixel_values=pixels)
        return [_expanded(seen, place, 1) for place in range(len(frames))]

    def _pixels(self, image: np.ndarray) -> Any:
        """(3, S, S): squeezed to a square and brought to -1 … 1, as in training, on the device."""
        import torch
        import torch.nn.functional as F

        pixels = torch.from_numpy(image).to(self.device, non_blocking=True)
        pixels = pixels.permute(2, 0, 1)[None].float() / 127.5 - 1
        return F.interpolate(pixels, (self.side, self.side), mode="bilinear", antialias=True)[0]

    def detect(self, features: Any) -> list[MaskDetection]:
        """What the vocabulary finds in a frame, doubles removed."""
        area = self.settings.min_area_share
        found = [
            d
            for of_words in self.prompts([(features, i) for i in range(len(self.words))])
            for d in of_words
            if d.mask.mean() >= area and d.box[0] < d.box[2] and d.box[1] < d.box[3]
        ]
        return distinct(found, self.settings)

    def _find(self, asked: list[tuple[Any, int]]) -> list[list[MaskDetection]]:
        """What each entry of the vocabulary finds in the one frame that they are asked of."""
        import torch
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        text, is_text = (
            torch.stack(t) for t in zip(*(self.texts[i] for _, i in asked), strict=True)
        )
        with torch.inference_mode(), autocast(self.device):
            seen = self.model.detector_model(
                vision_embeds=_expanded(asked[0][0], 0, len(asked)),
                text_embeds=BaseModelOutputWithPooling(pooler_output=text),
                attention_mask=is_text,
            )
            scores = seen.pred_logits.float().sigmoid() * seen.presence_logits.float().sigmoid()
            rows, queries = torch.nonzero(scores >= self.settings.min_score, as_tuple=True)
            logits = seen.pred_masks[rows, queries].float()
            masks = (logits > 0).cpu().numpy()
            boxes = seen.pred_boxes[rows, queries].float().clamp(0, 1).tolist()
            sure = scores[rows, queries].tolist()
        found: list[list[MaskDetection]] = [[] for _ in asked]
        for index, row in enumerate(rows.tolist()):
            mask = {"mask": masks[index], "logits": logits[index]}
            one = MaskDetection(self.words[asked[row][1]], sure[index], boxes[index], **mask)
            found[row].append(one)
        return found

    def tracker_features(self, features: Any) -> dict[str, Any]:
        """What the tracker looks at in a frame."""
        maps, places = self.model.get_vision_features_for_tracker(features)
        return {"vision_feats": maps, "vision_pos_embeds": places}


def _expanded(seen: Any, place: int, size: int) -> Any:
    """One frame of a batch of features, as a batch of so many; a view."""
    from transformers.models.sam3.modeling_sam3 import Sam3VisionEncoderOutput

    def pick(values: Any) -> Any:
        return tuple(v[place : place + 1].expand(size, -1, -1, -1) for v in values)

    return Sam3VisionEncoderOutput(
        last_hidden_state=seen.last_hidden_state[place : place + 1],
        fpn_hidden_states=pick(seen.fpn_hidden_states),
        fpn_position_encoding=pick(seen.fpn_position_encoding),
    )


def distinct(found: Sequence[MaskDetection], settings: Sam3Settings) -> list[MaskDetection]:
    """Without doubles, the best first: of the same words, of several words for one thing.

    The words that lose still vote.
    """
    if not found:
        return []
    scores = np.array([d.score for d in found])
    overlaps = mask_overlaps(np.stack([d.mask for d in found]), np.stack([d.mask for d in found]))
    words = np.array([d.words for d in found])
    kept = keepers(scores, overlaps * (words[:, None] == words), settings.max_overlap)
    left = np.flatnonzero(kept == np.arange(len(found)))
    kinds = np.array([table_of(settings, w) for w in words[left]])
    alike = overlaps[np.ix_(left, left)] * (kinds[:, None] == kinds)
    best = left[keepers(scores[left], alike, SAME_IOU)]
    for index, winner in zip(left.tolist(), best.tolist(), strict=True):
        found[winner].votes[found[index].words] = found[index].score
    return [found[i] for i in sorted(set(best.tolist()), key=lambda i: (-scores[i], i))]


def load_model(folder: Path) -> Any:
    """The network of a `save_pretrained` folder, on the CPU. Raises WeightsError."""
    return load_pretrained(folder, "sam3_video", "Sam3VideoModel", "SAM 3")
