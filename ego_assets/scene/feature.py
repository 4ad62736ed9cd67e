"""The scene: a camera pose for every frame, and points."""

from ego_assets.feature import (
    OF_A_CLIP,
    SAVED_MODEL,
    BackendEntry,
    Feature,
    Needs,
    Stage,
    TableInfo,
)
from ego_assets.scene.settings import (
    CameraProbeSettings,
    DepthAnythingSettings,
    DepthProSettings,
    ReconstructSettings,
)
from ego_assets.scene.tables import SceneReconstruction

SCENE = Feature(
    "scene",
    tables=(
        TableInfo(
            SceneReconstruction,
            preview="ego_assets.scene.preview:reconstruction_plot",
            drift="ego_assets.scene.drift:SCENE_RECONSTRUCTION",
            lineage=OF_A_CLIP,
            seam="ego_assets.scene.seam:CAMERAS",
        ),
    ),
    stages=(
        Stage(
            "scene_reconstruction",
            operator="reconstructor",
            item="clip",
            tables=("scene_reconstruction",),
            settings=ReconstructSettings,
            inputs=("object_masks", "hand_masks"),
            needs=Needs(gpus=0.25, gpu_memory_gb=8, cpus=2),
        ),
    ),
    backends=(
        BackendEntry(
            "reconstructor",
            "pycolmap",
            "ego_assets.scene.colmap.reconstructor:PycolmapReconstructor",
            ReconstructSettings,
            "BSD-3-Clause (COLMAP)",
        ),
        BackendEntry(
            "reconstructor",
            "pycolmap_depth_pro",
            "ego_assets.scene.depth:DepthProReconstructor",
            DepthProSettings,
            "BSD-3-Clause (COLMAP); DepthPro's weights: apple-amlr, for research only",
            weights=SAVED_MODEL,
            source="https://huggingface.co/apple/DepthPro-hf",
            gpu_memory_gb=8,
            batch="frames_per_batch",
            max_batch=16,
        ),
        BackendEntry(
            "reconstructor",
            "pycolmap_depth_anything",
            "ego_assets.scene.depth:DepthAnythingReconstructor",
            DepthAnythingSettings,
            "BSD-3-Clause (COLMAP); Depth Anything V2's weights: Small Apache-2.0, Base and Large "
            "CC-BY-NC-4.0",
            weights=SAVED_MODEL,
            source="https://huggingface.co/depth-anything/Depth-Anything-V2-Metric-Indoor-Small-hf "
            "(or -Outdoor-, -Base-, -Large-)",
            gpu_memory_gb=4,
            batch="frames_per_batch",
            max_batch=64,
        ),
    ),
    probes="ego_assets.scene.probes:PROBES",
    probe_settings=CameraProbeSettings,
)
