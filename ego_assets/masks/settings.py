"""Settings of segmentation, a class per stage or backend."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from ego_assets.quality.settings import ProbeSettings, Share
from ego_assets.settings import RUNTIME, CompileMode, Settings


class SegmentSettings(Settings):
    """detections, object_masks, hand_masks: hands by landmarks, objects by what hands hold."""

    hand_side_px: int = Field(
        default=1920,
        ge=192,
        le=8192,
        description="longer side of the pictures that hands are looked for in",
    )
    scan_interval_s: float = Field(
        default=0.3, ge=0, le=10, description="how often the palm net looks for new hands"
    )
    work_side_px: int = Field(
        default=480,
        ge=64,
        le=4096,
        description="longer side of the pictures that objects are looked for in",
    )
    motion_gap_s: float = Field(
        default=0.1, gt=0, le=2, description="time between the pictures that motion is seen in"
    )
    min_area_share: float = Field(
        default=0.001, gt=0, lt=1, description="smaller parts of the picture are no object"
    )
    max_objects: int = Field(default=6, ge=0, le=64, description="objects followed in a clip")


class Sam2TrackerSettings(Settings):
    """Masks followed by SAM 2.1, whoever prompts it."""

    checkpoint: str = Field(
        default="sam2.1-hiera-small", description="folder of the model, below that of all weights"
    )
    min_agreement: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="overlap (IoU) of boxes below which it is prompted again",
    )
    compile: CompileMode = Field(
        default=False,
        description="compile the image encoder (torch.compile): false, true, or a mode with CUDA "
        "graphs, reduce-overhead or max-autotune",
        json_schema_extra=RUNTIME,
    )
    objects_per_batch: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="tracks whose masks are enlarged and remembered at once; empty: what was "
        "measured for this device, else 16",
        json_schema_extra=RUNTIME,
    )


class Sam2Settings(Sam2TrackerSettings, SegmentSettings):
    """detections, object_masks, hand_masks by SAM 2.1; those of landmarks are its prompts."""

    prompt_interval_s: float = Field(
        default=2.0, gt=0, description="how often tracks are held against its prompts"
    )


class VocabularySettings(Settings):
    """What a detector that reads text looks for."""

    vocabulary: dict[str, Literal["left", "right", "hand", "object"]] = Field(
        default={
            "left hand": "left",
            "right hand": "right",
            "robot arm": "object",
            "handheld object": "object",
        },
        min_length=1,
        max_length=64,
        description="words that are looked for, and what they mean: a left or right hand, a hand "
        "of either side, or an object, which is then labelled by the words",
    )
    detection_interval_s: float = Field(
        default=0.2, ge=0, le=60, description="how often it looks; 0: in every frame"
    )
    frames_per_batch: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="frames that go through the image encoder at once; empty: what was measured "
        "for this device, else 4",
        json_schema_extra=RUNTIME,
    )

    @field_validator("vocabulary")
    @classmethod
    def _are_words(cls, vocabulary: dict[str, str]) -> dict[str, str]:
        folded = [" ".join(words.lower().split()) for words in vocabulary]
        if "" in folded or len(set(folded)) < len(folded):
            raise ValueError("every entry of the vocabulary needs words of its own")
        return vocabulary


class Owlv2Sam2Settings(VocabularySettings, Sam2TrackerSettings):
    """detections by OWLv2; object_masks and hand_masks by SAM 2.1, prompted with them."""

    max_objects: int = Field(default=6, ge=0, le=64, description="objects followed at a time")
    detector: str = Field(
        default="owlv2-base-patch16-ensemble",
        description="folder of the detector, below that of all weights",
    )
    min_score: float = Field(
        default=0.2, ge=0, le=1, description="detections with less confidence are dropped"
    )
    max_overlap: float = Field(
        default=0.5, ge=0, le=1, description="overlap (IoU) of boxes above which two are one thing"
    )


class Sam3Settings(VocabularySettings):
    """detections, object_masks, hand_masks by SAM 3."""

    checkpoint: str = Field(
        default="sam3", description="folder of the model, below that of all weights"
    )
    min_area_share: float = Field(
        default=0.001, gt=0, lt=1, description="smaller parts of the picture are no hand or object"
    )
    max_objects: int = Field(default=6, ge=0, le=64, description="objects followed at a time")
    min_score: float = Field(
        default=0.5, ge=0, le=1, description="detections with less confidence are dropped"
    )
    min_new_score: float = Field(
        default=0.7, ge=0, le=1, description="confidence that a new track begins with"
    )
    max_overlap: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="overlap (IoU) of masks above which two of the same words are one thing",
    )
    prompt_interval_s: float = Field(
        default=2.0, gt=0, description="how often tracks are held against what is detected"
    )
    min_agreement: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="overlap (IoU) of masks below which a track starts over",
    )
    prompts_per_batch: int = Field(
        default=4,
        ge=1,
        le=64,
        description="entries of the vocabulary looked for at once",
        json_schema_extra=RUNTIME,
    )
    objects_per_batch: int = Field(
        default=16,
        ge=1,
        le=64,
        description="tracks whose masks are enlarged and remembered at once",
        json_schema_extra=RUNTIME,
    )


class MaskProbeSettings(ProbeSettings):
    """Thresholds of the probes of masks."""

    max_empty_frame_share: Share = Field(
        default=0.95, ge=0, le=1, description="frames of a clip without any mask"
    )
    max_empty_clip_share: Share = Field(
        default=0.5, ge=0, le=1, description="clips with more empty frames than that"
    )
    min_area_share: Share = Field(
        default=0.0001, ge=0, le=1, description="smaller masks are specks, share of the picture"
    )
    max_area_share: Share = Field(
        default=0.5, ge=0, le=1, description="larger masks are background, share of the picture"
    )
    max_odd_area_share: Share = Field(
        default=0.1, ge=0, le=1, description="masks of a track that are specks or background"
    )
    flicker_area_ratio: float = Field(
        default=1.5, gt=1, description="area between neighbouring frames, larger over smaller"
    )
    flicker_box_iou: Share = Field(
        default=0.3, ge=0, le=1, description="boxes of neighbouring frames that overlap less jump"
    )
    flicker_gap_s: float = Field(
        default=0.2, ge=0, description="a track that is away for a shorter time flickers"
    )
    max_flicker_share: Share = Field(
        default=0.1, ge=0, le=1, description="frames of a track that flicker"
    )
    max_tracks_per_thing: float = Field(
        default=4.0, ge=1, description="tracks of a clip over those in its fullest frame"
    )
    max_hand_tracks_at_once: int = Field(
        default=6, ge=1, description="hands in one frame: the wearer's and two other people's"
    )
    max_object_tracks_at_once: int = Field(default=64, ge=1, description="objects in one frame")
    border_sides: int = Field(
        default=3, ge=1, le=4, description="a mask that touches as many sides hugs the border"
    )
    max_hugging_share: Share = Field(
        default=0.3, ge=0, le=1, description="masks of a track that hug the border"
    )
    max_mask_seam: Share = Field(default=0.4, ge=0, le=1, description="1 - IoU, mean of a seam")
