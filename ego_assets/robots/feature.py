"""Robot hands: joint positions that mimic the human hand."""

from ego_assets.feature import OF_A_CLIP, OUR_LICENCE, BackendEntry, Feature, Stage, TableInfo
from ego_assets.robots.settings import RetargetSettings, RobotProbeSettings
from ego_assets.robots.tables import RobotMapping

ROBOTS = Feature(
    "robots",
    tables=(
        TableInfo(
            RobotMapping,
            preview="ego_assets.robots.preview:hands_plot",
            drift="ego_assets.robots.drift:ROBOT_MAPPINGS",
            lineage=OF_A_CLIP
            | dict.fromkeys(
                ("track_id", "side", "frame_index", "pts_s", "is_context"), "hand_poses"
            ),
            rows_of="hand_poses",
        ),
    ),
    stages=(
        Stage(
            "robot_mappings",
            operator="retargeter",
            item="clip",
            tables=("robot_mappings",),
            settings=RetargetSettings,
            inputs=("hand_poses",),
        ),
    ),
    backends=(
        BackendEntry(
            "retargeter",
            "gauss_newton",
            "ego_assets.robots.gauss_newton.retargeter:GaussNewtonRetargeter",
            RetargetSettings,
            OUR_LICENCE,
        ),
        BackendEntry(
            "retargeter",
            "dex_retargeting",
            "ego_assets.robots.retargeting:DexRetargeter",
            RetargetSettings,
            "MIT (dex-retargeting)",
        ),
    ),
    probes="ego_assets.robots.probes:PROBES",
    probe_settings=RobotProbeSettings,
)
