"""The videos themselves: what is in the raw lake, and the clips that the rest works on."""

from ego_assets.feature import (
    OUR_LICENCE,
    BackendEntry,
    ExternalAsset,
    Feature,
    Needs,
    Stage,
    TableInfo,
)
from ego_assets.models.packaged.declaration import TRANSNET
from ego_assets.videos.settings import ClipSettings, ManifestSettings
from ego_assets.videos.tables import Clip, VideoManifest

VIDEOS = Feature(
    "videos",
    tables=(
        TableInfo(
            VideoManifest,
            preview="ego_assets.videos.preview:manifest_sheet",
            drift="ego_assets.videos.drift:MANIFEST",
        ),
        TableInfo(
            Clip,
            preview="ego_assets.videos.preview:clips_sheet",
            drift="ego_assets.videos.drift:CLIPS",
            lineage={"video_id": "video_manifest"},
        ),
    ),
    stages=(
        Stage(
            "video_manifest",
            operator="probe",
            item="file",
            tables=("video_manifest",),
            settings=ManifestSettings,
            deps=("raw_videos",),
        ),
        Stage(
            "clips",
            operator="split",
            item="video",
            tables=("clips",),
            settings=ClipSettings,
            inputs=("video_manifest",),
            deps=("video_manifest",),
            needs=Needs(cpus=2),
        ),
    ),
    backends=(
        BackendEntry(
            "probe",
            "libav",
            "ego_assets.videos.inspection:FileInspector",
            ManifestSettings,
            OUR_LICENCE,
        ),
        BackendEntry(
            "split",
            "transnet",
            "ego_assets.videos.clips:ClipSplitter",
            ClipSettings,
            "BSD-3-Clause (PySceneDetect); TransNet V2: MIT, code and weights",
            weights=TRANSNET.paths,
            source="`ego weights fetch transnetv2`",
        ),
    ),
    probes="ego_assets.videos.probes:PROBES",
    external=(
        ExternalAsset(
            "raw_videos",
            "The raw lake: the read-only place of the original videos. Nothing writes there.",
            kinds=("video",),
        ),
    ),
)
