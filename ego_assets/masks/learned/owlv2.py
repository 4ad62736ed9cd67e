"""OWLv2, a detector that reads text (Minderer et al., "Scaling Open-Vocabulary Object Detection",
2023), and the segmenter that prompts SAM 2.1 with what it finds.

Here: pictures to boxes (transformers' Owlv2ForObjectDetection, without its processor, which needs
torchvision), boxes to prompts. Not here: masks and the memory of tracks (`sam2`), the network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ego_assets.masks.association import assign, box_overlaps, keepers
from ego_assets.masks.learned import sam2
from ego_assets.masks.learned.detections import (
    HANDS,
    OBJECTS,
    Cast,
    DetectedBox,
    detection_rows,
    noted_detections,
    same_table,
    table_of,
)
from ego_assets.masks.learned.track_memory import shown_again
from ego_assets.masks.settings import Owlv2Sam2Settings
from ego_assets.masks.sides import LOW, MAX_HANDS
from ego_assets.models.device import autocast, pick_device, to_host
from ego_assets.models.memory import ElasticBatch
from ego_assets.models.pretrained import load_pretrained, text_tokens
from ego_assets.operator import Carried, ClipInput, ClipOutput, Frame

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Of CLIP's training pictures, as the image encoder was trained."""
BATCH = 4
"""Pictures at once, where neither the settings nor a measurement say."""
GREY = 0.5
"""What makes a picture square, as in training. (The processor of transformers 5.23 takes black.)"""
MAX_DETECTIONS = 300
"""The best of a frame; a network that takes every patch for something would cost hours."""

Box = Sequence[float]


class Owlv2Detector:
    """Pictures to boxes of the things that a vocabulary names."""

    name = "owlv2"

    def __init__(self, settings: Owlv2Sam2Settings, weights: Path) -> None:
        import torch

        folder = weights / settings.detector
        self.settings = settings
        self.device = pick_device()
        self.model = load_model(folder).to(self.device)
        vision, text = self.model.config.vision_config, self.model.config.text_config
        self.side: int = vision.image_size
        self.words = list(settings.vocabulary)
        tokens = text_tokens(folder, self.words, text.max_position_embeddings, text.vocab_size)
        read = ElasticBatch(self._read, len(self.words))
        self.texts = torch.stack(read(list(zip(*tokens, strict=True))))
        self.look = ElasticBatch(self._see, settings.frames_per_batch or BATCH)

    def _read(self, texts: list[tuple[Any, Any]]) -> list[Any]:
        """(C,) features of each text: its tokens, and where there are any."""
        import torch

        tokens, is_text = (torch.stack(t).to(self.device) for t in zip(*texts, strict=True))
        with torch.inference_mode(), autocast(self.device):
            seen = self.model.owlv2.get_text_features(input_ids=tokens, attention_mask=is_text)
            return list(seen.pooler_output)

    def detect(self, images: Sequence[np.ndarray]) -> list[list[DetectedBox]]:
        """What is found in each picture, (H, W, 3) uint8 RGB, the best first, doubles removed."""
        return [self._distinct(*seen) for seen in self.look(images)]

    def _see(self, images: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """(scores (N, P), boxes (N, 4)) of the patches of each picture.

        A batch that is not full is filled up with black, so that a picture's result does not depend
        on how many come with it.
        """
        import torch

        pixels = torch.zeros((self.look.limit, 3, self.side, self.side), device=self.device)
        for place, image in enumerate(images):
            pixels[place] = self._pixels(image)
        with torch.inference_mode(), autocast(self.device):
            maps, _ = self.model.image_embedder(pixels)
            patches = maps.flatten(1, 2)
            texts = self.texts[None].expand(len(patches), -1, -1)
            logits, _ = self.model.class_predictor(patches, texts)
            boxes = self.model.box_predictor(patches, maps).float()
        found = []
        # Black ones have no picture: `zip` leaves them out.
        for image, score, box in zip(images, *to_host(logits.float().sigmoid(), boxes)):  # noqa: B905
            height, width, _ = image.shape
            # Boxes are shares of the square; the picture lies in its upper left corner.
            scale = max(height, width) / np.array([width, height])
            low, high = ((box[:, :2] + s * box[:, 2:] / 2) * scale for s in (-1, 1))
            found.append((score, np.clip(np.concatenate([low, high], axis=1), 0, 1)))
        return found

    def _pixels(self, image: np.ndarray) -> Any:
        """(3, S, S): made square with grey below or to the right, normalised, on the device."""
        import torch
        import torch.nn.functional as F

        height, width, _ = image.shape
        side = max(height, width)
        pixels = torch.from_numpy(image).to(self.device, non_blocking=True)
        pixels = pixels.permute(2, 0, 1)[None].float() / 255
        pixels = F.pad(pixels, (0, side - width, 0, side - height), value=GREY)
        pixels = F.interpolate(pixels, (self.side, self.side), mode="bilinear", antialias=True)
        mean, std = (torch.tensor(v, device=self.device)[:, None, None] for v in (MEAN, STD))
        return ((pixels - mean) / std)[0]

    def _distinct(self, scores: np.ndarray, boxes: np.ndarray) -> list[DetectedBox]:
        """Of (N, P) scores and (N, 4) boxes: each patch is what it is likeliest; no doubles."""
        best = scores.argmax(axis=1)
        sure = scores.max(axis=1)
        wanted = (sure >= self.settings.min_score) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        chosen = np.flatnonzero(wanted)
        chosen = chosen[np.argsort(-sure[chosen], kind="stable")][:MAX_DETECTIONS]
        kinds = np.array([table_of(self.settings, self.words[best[i]]) for i in chosen])
        alike = box_overlaps(boxes[chosen], boxes[chosen]) * (kinds[:, None] == kinds)
        kept = keepers(sure[chosen], alike, self.settings.max_overlap)
        return [
            DetectedBox(
                self.words[best[i]],
                float(sure[i]),
                boxes[i].tolist(),
                {w: float(s) for w, s in zip(self.words, scores[i], strict=True)},
            )
            for place, i in enumerate(chosen)
            if kept[place] == place
        ]


def load_model(folder: Path) -> Any:
    """The network of a `save_pretrained` folder, on the CPU. Raises WeightsError."""
    return load_pretrained(folder, "owlv2", "Owlv2ForObjectDetection", "OWLv2")


class Owlv2Prompter:
    """`detections` at intervals, and what they propose for the two mask tables.

    Frames that a clip shares with the one before are not looked at again: they have its rows.
    """

    name = "owlv2"
    version = "2"
    quality_tier = "reference"
    weights_hash = ""

    def __init__(self, settings: Owlv2Sam2Settings, weights: Path) -> None:
        self.settings = settings
        self.detector = Owlv2Detector(settings, weights)

    def process(self, clip: ClipInput, carried: Carried | None) -> ClipOutput:
        """Rows of the mask tables are proposals: words, votes, score and box in a frame."""
        carried = carried or {}
        start, end = clip.clip["start_frame"], clip.clip["end_frame"]
        first = max(start, carried.get("next_due", start))
        indices = range(first, end, self._stride(clip))
        size = (clip.frames.height, clip.frames.width)
        seen = [r for r in carried.get("seen", []) if r["frame_index"] >= start]
        tables: dict[str, list[dict[str, Any]]] = {HANDS: [], OBJECTS: []}
        shown = clip.frames.read(max_side_px=2 * self.detector.side, indices=indices)
        for frame, found in self._detect(shown if indices else iter(())):
            seen.extend(noted_detections(self.settings, frame, found, size))
            for one in found:
                box = [v * s for v, s in zip(one.box, size[::-1] * 2, strict=True)]
                row = {"frame_index": frame.index, "box": box, "score": one.score}
                row |= {"words": one.words, "votes": one.votes, "low": one.box[3] > LOW}
                tables[table_of(self.settings, one.words)].append(row)
        rows = detection_rows(clip, seen, self.name)
        due = indices[-1] + indices.step if indices else first
        state = {"seen": shown_again(clip, seen), "next_due": due}
        return ClipOutput(tables | {"detections": rows}, carried=state)

    def _stride(self, clip: ClipInput) -> int:
        """Frames from one look to the next."""
        frames = clip.clip["end_frame"] - clip.clip["start_frame"]
        seconds = clip.clip["end_pts_s"] - clip.clip["start_pts_s"]
        rate = frames / seconds if seconds > 0 else 30.0
        return max(1, round(self.settings.detection_interval_s * rate))

    def _detect(self, frames: Iterator[Frame]) -> Iterator[tuple[Frame, list[DetectedBox]]]:
        held: list[Frame] = []
        size = self.settings.frames_per_batch or BATCH
        for frame in frames:
            held.append(frame)
            if len(held) == size:
                yield from zip(held, self.detector.detect([f.image for f in held]), strict=True)
                held = []
        if held:
            yield from zip(held, self.detector.detect([f.image for f in held]), strict=True)


class _Sight(sam2.Sight):
    """Proposals have no names: which one is which track is decided here."""

    settings: Owlv2Sam2Settings

    def __init__(self, settings: Owlv2Sam2Settings, clip: ClipInput, carried: Carried) -> None:
        super().__init__(settings, carried)
        self.cast = Cast(settings, settings.max_objects, clip, carried)
        self.things = self.cast.things

    def export(self) -> Carried:
        return super().export() | {"counts": self.cast.counts}

    def name(self, row: dict[str, Any], table: str) -> None:
        """Proposals have no names yet."""
        row["table"] = table

    def settle(self) -> None:
        self.cast.settle()

    def prompts(
        self, rows: list[dict[str, Any]], pts_s: float, size: tuple[int, int]
    ) -> dict[str, Box]:
        """{track: box in 0 … 1} of one frame: of things that are new, lost, or elsewhere."""
        if not rows:
            return {}
        tracks, tables = list(self.boxes), self.cast.tables(self.boxes)
        places = [self.boxes[t] or (0.0, 0.0, 0.0, 0.0) for t in tracks]
        overlaps = box_overlaps(np.array(places), np.array([r["box"] for r in rows]))
        alike = overlaps * same_table(tables, [r["table"] for r in rows])
        free = dict.fromkeys(tracks)
        unmatched = dict(enumerate(rows))
        for index, column in assign(alike, self.settings.min_agreement):
            del free[tracks[index]]
            self._hear(tracks[index], unmatched.pop(column), size)
        found: dict[str, Box] = {}
        for column, row in unmatched.items():
            if len(tracks) and alike[:, column].max() >= sam2.SAME_IOU:
                continue
            again = [t for t in free if self._may_be(t, row)]
            track = again[0] if again else self.cast.begin(row["table"], {*tracks, *found})
            if track:
                free.pop(track, None)
                self._hear(track, row, size)
                found[track] = [v / s for v, s in zip(row["box"], size[::-1] * 2, strict=True)]
                self.seen_s[track] = pts_s
        return found

    def _may_be(self, track: str, row: dict[str, Any]) -> bool:
        """Whether a track that is nowhere near may be what was found: an object that is out of
        sight, or a hand, of which there is one a side."""
        same_words = self.cast.words_of(track) == row["words"]
        is_there = self.boxes[track] is not None
        return same_words and (not is_there or row["table"] == HANDS)

    def _hear(self, track: str, row: dict[str, Any], size: tuple[int, int]) -> None:
        middle = (row["box"][0] + row["box"][2]) / 2 / size[1]
        self.cast.hear(track, row["frame_index"], row["votes"], middle, row["low"])


class Owlv2Sam2Segmenter(sam2.Sam2Segmenter):
    """`detections` by OWLv2 at intervals; their boxes prompt SAM 2.1, which makes the masks."""

    name = "owlv2_sam2"
    version = f"{sam2.Sam2Segmenter.version}.2"
    settings: Owlv2Sam2Settings  # type: ignore[assignment]

    def __init__(self, settings: Owlv2Sam2Settings, weights: Path) -> None:
        self.settings = settings
        self.tracker = sam2.Sam2Tracker(
            weights / settings.checkpoint, settings.compile, settings.objects_per_batch
        )
        self.prompter = prompter = Owlv2Prompter(settings, weights)
        detector = prompter.detector
        most = MAX_HANDS + settings.max_objects

        def try_batch(count: int) -> None:
            """Look at so many black pictures, and follow all that may be."""
            detector.look.limit = count
            detector.detect([np.zeros((1080, 1920, 3), np.uint8)] * count)
            self.tracker.try_batch(most)

        self.try_batch = try_batch

    @staticmethod
    def check(settings: Owlv2Sam2Settings, weights: Path) -> str:  # type: ignore[override]
        """What the weights hold, for people. Raises WeightsError."""
        folder = weights / settings.detector
        model = load_model(folder)
        text = model.config.text_config
        text_tokens(
            folder, list(settings.vocabulary), text.max_position_embeddings, text.vocab_size
        )
        size = sum(p.numel() for p in model.parameters()) / 1e6
        masks = sam2.Sam2Segmenter.check(settings, weights)
        return f"OWLv2 of {size:.1f} M parameters, {masks}"

    def sight(self, clip: ClipInput, carried: Carried) -> sam2.Sight:
        return _Sight(self.settings, clip, carried)
