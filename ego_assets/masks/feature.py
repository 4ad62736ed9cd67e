"""Detections and masks of hands and objects: three tables from one pass over the frames."""

from ego_assets.feature import (
    OF_A_CLIP,
    SAVED_MODEL,
    BackendEntry,
    Feature,
    Needs,
    Stage,
    TableInfo,
)
from ego_assets.masks.settings import (
    MaskProbeSettings,
    Owlv2Sam2Settings,
    Sam2Settings,
    Sam3Settings,
    SegmentSettings,
)
from ego_assets.masks.tables import Detection, HandMask, ObjectMask
from ego_assets.models.packaged.declaration import HAND_NETS

_LEARNED = "ego_assets.masks.learned"

MASKS = Feature(
    "masks",
    tables=(
        TableInfo(
            Detection,
            preview="ego_assets.masks.preview:detections_sheet",
            drift="ego_assets.masks.drift:DETECTIONS",
            lineage=OF_A_CLIP,
        ),
        TableInfo(
            ObjectMask,
            preview="ego_assets.masks.preview:masks_sheet",
            drift="ego_assets.masks.drift:OBJECT_MASKS",
            lineage=OF_A_CLIP,
            seam="ego_assets.masks.seam:MASKS",
            expects_things=True,
        ),
        TableInfo(
            HandMask,
            preview="ego_assets.masks.preview:masks_sheet",
            drift="ego_assets.masks.drift:HAND_MASKS",
            lineage=OF_A_CLIP,
            seam="ego_assets.masks.seam:MASKS",
            expects_things=True,
        ),
    ),
    stages=(
        Stage(
            "segmentation",
            operator="segmenter",
            item="clip",
            tables=("detections", "object_masks", "hand_masks"),
            settings=SegmentSettings,
            needs=Needs(gpus=1, gpu_memory_gb=16, cpus=2, degrades=True),
        ),
    ),
    backends=(
        BackendEntry(
            "segmenter",
            "landmarks",
            "ego_assets.masks.landmarks.segmenter:LandmarksSegmenter",
            SegmentSettings,
            "Apache-2.0 (MediaPipe's hand nets)",
            weights=HAND_NETS.paths,
            source="`ego weights fetch hand-nets`",
        ),
        BackendEntry(
            "segmenter",
            "sam2",
            f"{_LEARNED}.sam2:Sam2Segmenter",
            Sam2Settings,
            "Apache-2.0 (SAM 2.1, code and weights; MediaPipe's hand nets)",
            weights=(*SAVED_MODEL, *HAND_NETS.paths),
            source="https://huggingface.co/facebook/sam2.1-hiera-small (or -tiny, -base-plus, "
            "-large), and `ego weights fetch hand-nets`",
            gpu_memory_gb=6,
            batch="objects_per_batch",
            max_batch=16,
            measured_on_cpu=False,
        ),
        BackendEntry(
            "segmenter",
            "sam3",
            f"{_LEARNED}.sam3:Sam3Segmenter",
            Sam3Settings,
            "SAM License (Meta; code and weights; not Apache: commercial use yes, with limits of "
            "use)",
            weights=(*SAVED_MODEL, "{checkpoint}/vocab.json", "{checkpoint}/merges.txt"),
            source="https://huggingface.co/facebook/sam3 (the licence is to be accepted there)",
            gpu_memory_gb=12,
            batch="frames_per_batch",
            max_batch=8,
            measured_on_cpu=False,
        ),
        BackendEntry(
            "segmenter",
            "owlv2_sam2",
            f"{_LEARNED}.owlv2:Owlv2Sam2Segmenter",
            Owlv2Sam2Settings,
            "Apache-2.0 (OWLv2 and SAM 2.1, code and weights)",
            weights=(
                *SAVED_MODEL,
                "{detector}/config.json",
                "{detector}/model.safetensors",
                "{detector}/vocab.json",
                "{detector}/merges.txt",
            ),
            source="https://huggingface.co/google/owlv2-base-patch16-ensemble (or "
            "-large-patch14-ensemble) and https://huggingface.co/facebook/sam2.1-hiera-small",
            gpu_memory_gb=8,
            batch="frames_per_batch",
            max_batch=16,
            measured_on_cpu=False,
        ),
    ),
    probes="ego_assets.masks.probes:PROBES",
    probe_settings=MaskProbeSettings,
)
