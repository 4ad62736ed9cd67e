"""Settings of every stage, with units in the names. Plain pydantic: Dagster wraps them.

Each class is one stage's launchpad form; each field says what it does. Changing a value changes
the stage's fingerprint, so clips done under other settings are done again.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

RUNTIME: dict[str, Any] = {"runtime": True}
"""Extra of a field that says how a result is computed, not what it is."""
MAX_OVERLAP_S = 5.0
"""Neighbouring clips share no more: so long must operators remember what they said."""


COMPILE_MODES = ("reduce-overhead", "max-autotune")
"""Of torch.compile, those that record CUDA graphs."""


def _compile_mode(value: Any) -> Any:
    if isinstance(value, bool) or value in COMPILE_MODES:
        return value
    modes = " or ".join(f'"{m}"' for m in COMPILE_MODES)
    raise ValueError(f"{value!r} is no way to compile: give false, true, {modes} (CUDA graphs)")


CompileMode = Annotated[
    bool | Literal["reduce-overhead", "max-autotune"], BeforeValidator(_compile_mode)
]
"""Whether a network goes through torch.compile, and in which mode."""


class Settings(BaseModel):
    """Base: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")

    @classmethod
    def runtime_fields(cls) -> set[str]:
        """Fields that are not part of a clip's fingerprint: results agree to rounding."""
        return {n for n, f in cls.model_fields.items() if f.json_schema_extra == RUNTIME}


class ManifestSettings(Settings):
    """video_manifest: what is taken in."""

    max_file_gigabytes: float = Field(
        default=64.0,
        gt=0,
        le=100_000,
        description="larger files are rejected before a byte of them is read or fetched",
    )
    max_duration_s: float = Field(
        default=3600.0, gt=0, le=604_800, description="longer videos are rejected"
    )
    min_duration_s: float = Field(default=0.0, ge=0, description="shorter videos are rejected")
    max_pixels: int = Field(
        default=8192 * 4320,
        gt=0,
        le=16384 * 8640,
        description="larger pictures are rejected (decoder bombs)",
    )
    max_decoded_gigabytes: float = Field(
        default=20_000.0,
        gt=0,
        description="videos with more bytes of RGB pictures are rejected (an hour of 4K at 60 "
        "frames/s has 5,400)",
    )
    assumed_horizontal_fov_deg: float = Field(
        default=70.0,
        gt=10,
        lt=170,
        description="field of view along the longer side of a video without a calibration file",
    )
    max_stall_s: float = Field(
        default=300.0,
        gt=0,
        le=86_400,
        description="a worker that does not come further with a file for this long is killed",
        json_schema_extra=RUNTIME,
    )
    min_read_megabytes_per_s: float = Field(
        default=1.0,
        ge=0,
        le=100_000,
        description="where files are read slower, the step warns; 0: never",
        json_schema_extra=RUNTIME,
    )


class ClipSettings(Settings):
    """clips: cuts, and the split of long scenes into takes of clips."""

    detector: Literal["content", "adaptive"] = Field(
        default="content", description="PySceneDetect's detector"
    )
    threshold: float | None = Field(
        default=None, description="detector's threshold; empty: 20 (content) or 3 (adaptive)"
    )
    search: Literal["exact", "fast", "pyscenedetect"] = Field(
        default="exact",
        description="exact: every frame is decoded; fast: only where the stream hints at a cut; "
        "pyscenedetect: by the library itself, for comparison (as exact, and slower)",
    )
    min_histogram_distance: float = Field(
        default=0.4,
        ge=0,
        le=1,
        description="share of the colours that a cut must change; 0 takes all that is proposed",
    )
    min_scene_s: float = Field(default=0.5, ge=0, description="shorter scenes join the next")
    max_clip_s: float = Field(default=20.0, gt=1, description="longer scenes are split")
    overlap_s: float = Field(
        default=1.5, ge=0, le=MAX_OVERLAP_S, description="context shared by neighbours"
    )


class SegmentSettings(Settings):
    """detections, object_masks, hand_masks."""

    work_side_px: int = Field(
        default=480, ge=64, le=4096, description="longer side of the pictures that are looked at"
    )
    motion_gap_s: float = Field(
        default=0.1, gt=0, le=2, description="time between the pictures that motion is seen in"
    )
    min_area_share: float = Field(
        default=0.001, gt=0, lt=1, description="smaller parts of the picture are no hand or object"
    )
    min_hand_score: float = Field(
        default=0.3, ge=0, le=1, description="tracks with less evidence for a hand are dropped"
    )
    max_objects: int = Field(default=6, ge=0, le=64, description="objects followed in a clip")


class Sam2TrackerSettings(Settings):
    """Masks followed by SAM 2.1, whoever prompts it."""

    checkpoint: str = Field(
        default="sam2.1-hiera-small", description="folder of the model, below that of all weights"
    )
    min_agreement: float = Field(
        default=0.3, ge=0, le=1, description="overlap (IoU) of boxes below which it prompts anew"
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
    """detections, object_masks, hand_masks by SAM 2.1; those of the baseline are its prompts'."""

    prompt_interval_s: float = Field(
        default=2.0, gt=0, description="how often tracks are held against the baseline's"
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
        default=0.5, ge=0, le=1, description="overlap (IoU) of masks below which it begins anew"
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


class HandPoseSettings(Settings):
    """hand_poses."""

    hand_length_m: float = Field(
        default=0.183, gt=0.1, lt=0.3, description="wrist to the tip of the middle finger"
    )
    rounds: int = Field(default=8, ge=1, le=100, description="steps of a fit at most")
    smoothing_frames: float = Field(
        default=1.5, ge=0, le=30, description="standard deviation of the smoothing over time"
    )


class HamerSettings(Settings):
    """hand_poses by HaMeR."""

    checkpoint: str = Field(
        default="hamer", description="folder of the release, below that of all weights"
    )
    crops_per_batch: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="hands looked at at once; empty: what was measured for this device, else 32",
        json_schema_extra=RUNTIME,
    )
    compile: CompileMode = Field(
        default=False,
        description="compile the network (torch.compile): false, true, or a mode with CUDA graphs, "
        "reduce-overhead or max-autotune",
        json_schema_extra=RUNTIME,
    )
    smoothing_s: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="standard deviation of the smoothing over time of rotations, and of the "
        "wrist's place in the picture; 0: none",
    )
    depth_smoothing_s: float = Field(
        default=0.15, ge=0, le=1, description="the same of the wrist's distance"
    )


class ReconstructSettings(Settings):
    """scene_reconstruction."""

    mapper: Literal["incremental", "global"] = Field(
        default="incremental", description="COLMAP's incremental mapper, or GLOMAP"
    )
    work_side_px: int = Field(
        default=640, ge=64, le=4096, description="longer side of the pictures that are tracked"
    )
    max_tracks: int = Field(default=500, ge=50, le=5000, description="points tracked at a time")
    mask_margin_px: int = Field(
        default=8, ge=0, le=100, description="hands and objects are grown by this much, work px"
    )
    max_keyframes: int = Field(default=40, ge=4, le=200, description="pictures in the map")
    keyframe_motion: float = Field(
        default=0.05, gt=0, lt=1, description="median motion between keyframes over the diagonal"
    )
    min_keyframes: int = Field(default=4, ge=2, le=50, description="fewer: no reconstruction")
    min_calibration_keyframes: int = Field(
        default=8, ge=3, description="fewer: a guessed focal length is kept as it is"
    )
    min_texture_tracks: int = Field(
        default=40, ge=8, description="fewer points tracked in the median frame: too little texture"
    )
    min_parallax_px: float = Field(
        default=1.5, ge=0, description="median motion, work px, that no pure rotation explains"
    )
    max_still_share: float = Field(
        default=0.25, gt=0, le=1, description="more points always in place: the camera is still"
    )
    min_triangulation_angle_deg: float = Field(
        default=1.0, ge=0, le=30, description="smaller median angle of the points: no parallax"
    )
    min_inliers: int = Field(default=12, ge=6, description="points that a frame's pose needs")
    min_inlier_share: float = Field(
        default=0.5, ge=0, le=1, description="inliers over matches that a frame's pose needs"
    )
    min_registered_share: float = Field(
        default=0.3, ge=0, le=1, description="a map that fewer of the clip's frames fit is dropped"
    )
    max_reprojection_error_px: float = Field(
        default=2.5, gt=0, description="a point further off, in work px, is an outlier"
    )
    max_mapping_s: int = Field(default=120, ge=1, description="the mapper stops after this time")
    carry_s: float = Field(
        default=3.0, ge=0, le=30, description="end of a clip handed to the next one of the take"
    )
    seed: int = Field(default=0, ge=0, description="of every random choice")


class DepthScaleSettings(ReconstructSettings):
    """scene_reconstruction in metres, by a network that sees depth."""

    checkpoint: str = Field(description="folder of the network, below that of all weights")
    depth_frames: int = Field(
        default=8, ge=1, le=100, description="pictures of a take that the network looks at"
    )
    min_scale_samples: int = Field(
        default=50, ge=1, description="mapped points in those pictures that a scale needs"
    )
    max_scale_spread: float = Field(
        default=0.4, gt=0, description="robust deviation of the points' scales: wider is no scale"
    )
    frames_per_batch: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="pictures looked at at once; empty: what was measured for this device, else 4",
        json_schema_extra=RUNTIME,
    )
    compile: CompileMode = Field(
        default=False,
        description="compile the network (torch.compile): false, true, or a mode with CUDA graphs, "
        "reduce-overhead or max-autotune",
        json_schema_extra=RUNTIME,
    )


class DepthProSettings(DepthScaleSettings):
    """scene_reconstruction in metres, by DepthPro."""

    checkpoint: str = Field(
        default="DepthPro-hf", description="folder of the network, below that of all weights"
    )


class DepthAnythingSettings(DepthScaleSettings):
    """scene_reconstruction in metres, by a metric Depth Anything V2."""

    checkpoint: str = Field(
        default="Depth-Anything-V2-Metric-Indoor-Small-hf",
        description="folder of the network, below that of all weights",
    )


class ObjectPoseSettings(Settings):
    """object_poses."""

    work_side_px: int = Field(
        default=960, ge=64, le=4096, description="longer side of the pictures that are tracked"
    )
    max_reprojection_error_px: float = Field(
        default=1.5, gt=0, le=20, description="a feature further off, in work px, is an outlier"
    )
    min_inlier_share: float = Field(
        default=0.3, gt=0, le=1, description="inliers over known features that a pose needs"
    )


class FoundationPoseSettings(ObjectPoseSettings):
    """object_poses by FoundationPose; those of the baseline are for objects without a mesh."""

    checkpoint: str = Field(
        default="FoundationPose", description="folder of the checkout, below that of all weights"
    )
    python: str = Field(
        default="", description="interpreter of the checkout's environment; empty: this one"
    )
    meshes: str = Field(
        default="object_meshes",
        description="folder of meshes named after labels, below that of all weights",
    )
    mesh_scale: float = Field(
        default=1.0, gt=0, description="metres a unit of the meshes: 0.001 for millimetres"
    )
    depth: str = Field(
        default="", description="metric depth of pictures: package.module:Class of a MetricDepth"
    )
    depth_settings: dict[str, str | int | float | bool] = Field(
        default={}, description="what the source of depth is given"
    )
    register_iterations: int = Field(
        default=5, ge=1, le=100, description="refinements of a pose that is found without another"
    )
    track_iterations: int = Field(
        default=2, ge=1, le=100, description="refinements of the pose of the frame before"
    )
    min_mask_overlap: float = Field(
        default=0.4,
        ge=0,
        le=1,
        description="overlap (IoU) of the projected mesh and the mask under which a pose is lost",
    )
    max_gap_s: float = Field(
        default=0.5, ge=0, le=10, description="unseen for longer, an object is found anew"
    )
    retry_s: float = Field(
        default=0.5, ge=0, le=60, description="time between tries to find a lost object"
    )
    carry_s: float = Field(
        default=3.0, ge=0, le=30, description="end of a clip whose poses go to the next one"
    )
    load_timeout_s: float = Field(
        default=300.0, gt=0, description="the checkout must have loaded its networks by then"
    )
    answer_timeout_s: float = Field(
        default=60.0, gt=0, description="a frame, or a mesh, must be done by then"
    )


class MovementSettings(Settings):
    """object_movements."""

    touch_share: float = Field(
        default=0.12, gt=0, le=1, description="gap that still is a touch, in sizes of the object"
    )
    min_speed_sizes_per_s: float = Field(
        default=0.35, gt=0, description="slower is still, in sizes of the object a second"
    )
    min_speed_path_share_per_s: float = Field(
        default=0.1, gt=0, description="slower is still, in extents of its path a second"
    )
    min_interval_s: float = Field(
        default=0.25, ge=0, le=10, description="shorter states and touches do not count"
    )


class RetargetSettings(Settings):
    """robot_mappings."""

    robots: list[str] = Field(
        default=["ego_hand"], min_length=1, description="robot hands, by name"
    )
    method: Literal["vector", "position", "dexpilot"] = Field(
        default="vector", description="objective of the solver"
    )
    robots_dir: str | None = Field(
        default=None, description="folder of further robot hands, one folder with a URDF each"
    )
    hand_scale: float = Field(
        default=1.0,
        gt=0.1,
        lt=10,
        description="fingertip targets over the human hand brought to the robot's length",
    )
    low_pass_alpha: float = Field(
        default=0.8, gt=0, le=1, description="share of the new frame in the joints; 1: no filter"
    )
    regularisation: float = Field(
        default=3e-4, ge=0, le=1, description="pull to the frame before, loss a squared radian"
    )
    max_evaluations: int = Field(
        default=100, ge=5, le=10000, description="the solver stops after as many evaluations"
    )
    carry_s: float = Field(
        default=3.0, ge=0, le=30, description="end of a clip whose states go to the next one"
    )
