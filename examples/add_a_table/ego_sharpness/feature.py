"""What the platform is told. Nothing else is to be written, anywhere."""

from ego_assets.feature import OF_A_CLIP, OUR_LICENCE, BackendEntry, Feature, Stage, TableInfo
from ego_sharpness.settings import SharpnessProbeSettings, SharpnessSettings
from ego_sharpness.tables import ClipSharpness

SHARPNESS = Feature(
    "sharpness",
    tables=(
        TableInfo(
            ClipSharpness,
            preview="ego_sharpness.preview:sheet",
            drift="ego_sharpness.probes:DRIFT",
            lineage=OF_A_CLIP,
        ),
    ),
    stages=(
        Stage(
            "clip_sharpness",
            operator="sharpness_meter",
            item="clip",
            tables=("clip_sharpness",),
            settings=SharpnessSettings,
        ),
    ),
    backends=(
        BackendEntry(
            "sharpness_meter",
            "laplacian",
            "ego_sharpness.operator:LaplacianSharpness",
            SharpnessSettings,
            OUR_LICENCE,
        ),
    ),
    probes="ego_sharpness.probes:PROBES",
    probe_settings=SharpnessProbeSettings,
)
