"""Telemetry: what sensors beside the picture measured, and gravity from it."""

from ego_assets.feature import OUR_LICENCE, BackendEntry, Feature, Stage, TableInfo
from ego_assets.telemetry.settings import (
    GravitySettings,
    TelemetryProbeSettings,
    TelemetrySettings,
)
from ego_assets.telemetry.tables import Gravity, TelemetrySample, TelemetrySource

_OF_A_FRAME = ("clip_id", "frame_index", "pts_s", "is_context", "world_id")

TELEMETRY = Feature(
    "telemetry",
    tables=(
        TableInfo(
            TelemetrySample,
            preview="ego_assets.telemetry.preview:samples_plot",
            drift=None,
            lineage={"video_id": "video_manifest"},
        ),
        TableInfo(
            TelemetrySource,
            preview="ego_assets.telemetry.preview:sources_plot",
            drift=None,
            lineage={"video_id": "video_manifest"},
        ),
        TableInfo(
            Gravity,
            preview="ego_assets.telemetry.preview:gravity_plot",
            drift=None,
            lineage={"video_id": "telemetry", "source": "telemetry"}
            | dict.fromkeys(_OF_A_FRAME, "scene_reconstruction"),
        ),
    ),
    stages=(
        Stage(
            "telemetry",
            operator="telemetry_reader",
            item="video",
            tables=("telemetry", "telemetry_sources"),
            settings=TelemetrySettings,
            inputs=("video_manifest",),
            beside=(".telemetry.csv", ".telemetry.mcap"),
        ),
        Stage(
            "gravity",
            operator="gravity_finder",
            item="shard",
            tables=("gravity",),
            settings=GravitySettings,
            inputs=("telemetry", "scene_reconstruction"),
        ),
    ),
    backends=(
        BackendEntry(
            "telemetry_reader",
            "tracks",
            "ego_assets.telemetry.reader:TelemetryReader",
            TelemetrySettings,
            OUR_LICENCE,
        ),
        BackendEntry(
            "gravity_finder",
            "imu",
            "ego_assets.telemetry.gravity_rows:GravityFinder",
            GravitySettings,
            OUR_LICENCE,
        ),
    ),
    probes="ego_assets.telemetry.probes:PROBES",
    probe_settings=TelemetryProbeSettings,
)
