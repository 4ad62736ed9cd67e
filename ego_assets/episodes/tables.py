"""Tables of episodes: columns, types, units, frames and ranges."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ego_assets.rows import (
    ConsentSaid,
    DeviceSaid,
    LicenseSaid,
    PersonSaid,
    ScaleKind,
    Score,
    Seconds,
    Side,
    SiteSaid,
    TaskSaid,
    VideoRow,
)
from resources.lake.table import (
    Float32,
    Int32,
    Joints3D,
    MayBeAbsent,
    Plausible,
    Quaternion,
    Text,
    Texts,
    Unit,
    Vec3,
)

Bin = Literal[
    "kept",
    "rejected",
    "no consent",
    "license",
    "between clips",
    "not processed",
    "damaged",
    "failed check",
    "head motion",
    "no hands",
    "few valid hands",
    "few valid cameras",
    "idle",
    "too short",
]
"""What becomes of footage. A frame that several rules would drop counts for the first of them."""
Origin = Literal["measured", "smoothed", "filled"]
ORIGIN = (
    "measured: as the row it is made from has it; smoothed: with the frames around; filled: from "
    "the frames around, because nothing valid was measured in this one"
)


class FootageStretch(VideoRow):
    """One row per stretch of raw footage: it is kept, or dropped by one rule."""

    table: ClassVar[str] = "footage"
    key: ClassVar[tuple[str, ...]] = ("video_id", "bin", "start_frame")

    bin: Bin = Field(description="kept: in an episode; else the first rule that drops it")
    start_frame: Int32 = Field(ge=0, description="first frame of the stretch")
    end_frame: Int32 = Field(ge=0, description="one past the last; 0 of a rejected file")
    start_pts_s: Seconds = Field(description="start of the stretch")
    end_pts_s: Seconds = Field(
        description="end of the stretch: the stretches of an accepted video add up to its "
        "duration; files of one content that are rejected are one row, with the sum of theirs"
    )
    take_id: Text | None = Field(description="its take; null between clips and of rejected files")
    episode_id: Text | None = Field(description="the episode that it is kept in")
    detail: Text | None = Field(
        description="which check failed, why the file was rejected, its consent or its license"
    )


class EpisodeRow(VideoRow):
    """Columns of all tables of episodes."""

    episode_id: Text = Field(description="{take_id}-e{start frame:06d}")


class Episode(EpisodeRow):
    """One row per episode: a stretch of a take that is worth training on."""

    table: ClassVar[str] = "episodes"
    key: ClassVar[tuple[str, ...]] = ("episode_id",)

    take_id: Text = Field(description="the take that it is a stretch of")
    start_frame: Int32 = Field(ge=0, description="first frame")
    end_frame: Int32 = Field(ge=1, description="one past the last frame")
    start_pts_s: Seconds = Field(description="time of the first frame")
    end_pts_s: Seconds = Field(description="end of the last frame")
    recording_id: Annotated[Text, MayBeAbsent()] | None = Field(
        default=None, description="as in video_manifest"
    )
    recording_start_s: Annotated[Seconds, MayBeAbsent()] | None = Field(
        default=None, description="time of the first frame since that of the recording"
    )
    split: Literal["train", "validation", "test"] = Field(
        description="by wearer where they are known, else by recording, so that none is in two; it "
        "stays when footage is added"
    )
    instruction: Text = Field(description="what is done, in words")
    instruction_source: Text = Field(
        description="where the words come from: sidecar (`task`), object_movements, hand_poses, or "
        "the name of a captioner"
    )
    objects: Texts = Field(description="labels of what hands hold or touch, without repetitions")
    left_hand_share: Score = Field(description="frames with a left hand of the wearer, cleaned")
    right_hand_share: Score = Field(description="the same of the right hand")
    valid_hand_share: Score = Field(
        description="frames in which the hands that must be there have valid poses"
    )
    valid_camera_share: Score = Field(description="frames with a valid camera")
    filled_hand_share: Score = Field(description="rows of episode_hands that are filled")
    rejected_hand_rows: Int32 = Field(
        ge=0, description="valid hand poses that were taken for outliers, and replaced"
    )
    jitter_before_mm: Annotated[Float32, Unit("mm/frame²"), Plausible(0.0, 100.0)] | None = Field(
        ge=0, description="mean second difference of the wrists before cleaning; null: no hands"
    )
    jitter_after_mm: Annotated[Float32, Unit("mm/frame²"), Plausible(0.0, 100.0)] | None = Field(
        ge=0, description="the same after cleaning"
    )
    world_id: Text | None = Field(description="world frame, as in scene_reconstruction")
    scale_kind: ScaleKind = Field(
        description="of the world; arbitrary: positions in the world are null"
    )
    person: PersonSaid
    consent: ConsentSaid
    license: LicenseSaid
    site: SiteSaid
    device: DeviceSaid
    task: TaskSaid


class EpisodeFrame(EpisodeRow):
    """One row per frame of an episode: its time and its camera."""

    table: ClassVar[str] = "episode_frames"
    key: ClassVar[tuple[str, ...]] = ("episode_id", "frame_index")

    frame_index: Int32 = Field(ge=0, description="index in the video's presentation order")
    pts_s: Seconds = Field(description="presentation time since the video's first frame")
    world_from_camera_m: Annotated[Vec3, Unit("metres")] | None = Field(
        description="camera centre in the world; null: not known, or not in metres"
    )
    world_from_camera_xyzw: Quaternion | None = Field(description="camera rotation in the world")
    camera_origin: Literal["measured", "filled"] | None = Field(
        description="filled: between valid cameras"
    )


class EpisodeHand(EpisodeRow):
    """One row per wearer's hand per frame of an episode, cleaned: 21 joints in MANO order."""

    table: ClassVar[str] = "episode_hands"
    key: ClassVar[tuple[str, ...]] = ("episode_id", "frame_index", "side")

    frame_index: Int32 = Field(ge=0, description="index in the video's presentation order")
    pts_s: Seconds = Field(description="presentation time since the video's first frame")
    side: Side = Field(description="from the wearer's view")
    origin: Origin = Field(description=ORIGIN)
    clip_id: Text | None = Field(description="clip of the hand_poses row; null of a filled one")
    track_id: Text | None = Field(description="track of the hand_poses row; null of a filled one")
    joints_camera_m: Annotated[Joints3D, Unit("metres, camera frame"), Plausible(-3.0, 3.0)] = (
        Field(description="wrist, then 4 per finger from palm to tip")
    )
    camera_from_hand_m: Annotated[Vec3, Unit("metres"), Plausible(-3.0, 3.0)] = Field(
        description="the wrist"
    )
    camera_from_hand_xyzw: Quaternion = Field(description="the hand frame of hand_poses")
    joints_world_m: Annotated[Joints3D, Unit("metres, world frame")] | None = Field(
        description="the joints in the world; null: the camera is not known there in metres"
    )
    world_from_hand_m: Annotated[Vec3, Unit("metres")] | None = Field(
        description="the wrist in the world"
    )
    world_from_hand_xyzw: Quaternion | None = Field(description="the hand frame in the world")
