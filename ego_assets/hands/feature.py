"""Hand poses: 21 joints per hand, in pixels and in metres."""

from ego_assets.feature import (
    OF_A_CLIP,
    BackendEntry,
    Feature,
    Needs,
    Stage,
    TableInfo,
)
from ego_assets.hands.settings import (
    HamerSettings,
    HandPoseSettings,
    HandProbeSettings,
)
from ego_assets.hands.tables import HandPose
from ego_assets.models.packaged.declaration import HAND_NETS

HANDS = Feature(
    "hands",
    tables=(
        TableInfo(
            HandPose,
            preview="ego_assets.hands.preview:hands_sheet",
            drift="ego_assets.hands.drift:HAND_POSES",
            lineage=OF_A_CLIP
            | dict.fromkeys(
                ("track_id", "side", "frame_index", "pts_s", "is_context"), "hand_masks"
            ),
            seam="ego_assets.hands.seam:HANDS",
        ),
    ),
    stages=(
        Stage(
            "hand_poses",
            operator="hand_estimator",
            item="clip",
            tables=("hand_poses",),
            settings=HandPoseSettings,
            inputs=("hand_masks",),
            needs=Needs(gpus=0.5, gpu_memory_gb=8, cpus=1, degrades=True),
        ),
    ),
    backends=(
        BackendEntry(
            "hand_estimator",
            "landmarks",
            "ego_assets.hands.landmarks.estimator:LandmarksHandEstimator",
            HandPoseSettings,
            "Apache-2.0 (MediaPipe's hand nets)",
            weights=HAND_NETS.paths,
            source="`ego weights fetch hand-nets`",
        ),
        BackendEntry(
            "hand_estimator",
            "hamer",
            "ego_assets.hands.hamer.estimator:HamerEstimator",
            HamerSettings,
            "MIT (HaMeR, code and weights); MANO: its own, non-commercial",
            weights=(
                "{checkpoint}/hamer_ckpts/checkpoints/hamer.ckpt",
                "{checkpoint}/hamer_ckpts/model_config.yaml",
                "{checkpoint}/data/mano/MANO_RIGHT.pkl",
            ),
            source="https://github.com/geopavlakos/hamer (its fetch_demo_data.sh) and "
            "https://mano.is.tue.mpg.de",
            gpu_memory_gb=8,
            batch="crops_per_batch",
            max_batch=256,
        ),
    ),
    probes="ego_assets.hands.probes:PROBES",
    probe_settings=HandProbeSettings,
)
