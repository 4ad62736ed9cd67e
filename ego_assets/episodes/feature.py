"""Episodes: stretches of takes worth training on, and what becomes of all other footage."""

from ego_assets.episodes.settings import EpisodeProbeSettings, EpisodeSettings
from ego_assets.episodes.tables import Episode, EpisodeFrame, EpisodeHand, FootageStretch
from ego_assets.feature import OUR_LICENCE, BackendEntry, Feature, Stage, TableInfo

_OF_A_VIDEO = {"video_id": "clips"}

EPISODES = Feature(
    "episodes",
    tables=(
        TableInfo(
            FootageStretch,
            preview="ego_assets.episodes.preview:waterfall_plot",
            drift="ego_assets.episodes.comparison.drift:FOOTAGE",
            lineage={"video_id": "video_manifest", "take_id": "clips"},
        ),
        TableInfo(
            Episode,
            preview="ego_assets.episodes.preview:episodes_sheet",
            drift="ego_assets.episodes.comparison.drift:EPISODES",
            lineage=_OF_A_VIDEO | {"take_id": "clips"},
        ),
        TableInfo(
            EpisodeFrame,
            preview="ego_assets.episodes.preview:cameras_plot",
            drift=None,
            lineage=_OF_A_VIDEO | dict.fromkeys(("frame_index", "pts_s"), "scene_reconstruction"),
        ),
        TableInfo(
            EpisodeHand,
            preview="ego_assets.episodes.preview:trajectories_plot",
            drift="ego_assets.episodes.comparison.drift:EPISODE_HANDS",
            lineage=_OF_A_VIDEO
            | dict.fromkeys(("clip_id", "track_id", "side", "frame_index"), "hand_poses"),
        ),
    ),
    stages=(
        Stage(
            "episodes",
            operator="episode_cutter",
            item="shard",
            tables=("footage", "episodes", "episode_frames", "episode_hands"),
            settings=EpisodeSettings,
            inputs=(
                "video_manifest",
                "clips",
                "scene_reconstruction",
                "hand_poses",
                "object_masks",
                "object_movements",
            ),
        ),
    ),
    backends=(
        BackendEntry(
            "episode_cutter",
            "rules",
            "ego_assets.episodes.cutter:EpisodeCutter",
            EpisodeSettings,
            OUR_LICENCE,
        ),
    ),
    probes="ego_assets.episodes.probes:PROBES",
    probe_settings=EpisodeProbeSettings,
)
