"""Tables of videos and clips: columns, types, units, frames and ranges."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ego_assets.rows import (
    ClipRow,
    ConsentSaid,
    DeviceSaid,
    IntrinsicsSource,
    LicenseSaid,
    PersonSaid,
    Pixels,
    Seconds,
    SiteSaid,
    TaskSaid,
    VideoRow,
)
from resources.lake.table import (
    Bool,
    Float32,
    Floats,
    Int32,
    Int64,
    MayBeAbsent,
    Plausible,
    Stretches,
    Text,
    Unit,
)


class VideoManifest(VideoRow):
    """One row per raw file: what it is and whether it is taken in."""

    table: ClassVar[str] = "video_manifest"
    key: ClassVar[tuple[str, ...]] = ("uri",)
    item_column: ClassVar[str] = "uri"

    uri: Text = Field(description="where the raw file lies")
    byte_size: Annotated[Int64, Unit("bytes")] = Field(ge=0, description="size of the file")
    sha256: Text = Field(
        description="of the file's bytes, hex; empty for a rejected file that was not read, whose "
        "video_id is made from its uri"
    )
    accepted: Bool = Field(description="whether the video goes through the graph")
    reject_reason: Text | None = Field(description="why not: a code of RejectReason")
    reject_detail: Text | None = Field(description="the sentence behind the code")
    container: Text | None = Field(description="demuxer name")
    video_codec: Text | None = Field(description="codec of the chosen video stream")
    pixel_format: Text | None = Field(description="pixel format of the chosen video stream")
    width_px: Annotated[Int32, Unit("pixels"), Plausible(64, 8192)] | None = Field(
        description="upright picture width"
    )
    height_px: Annotated[Int32, Unit("pixels"), Plausible(64, 8192)] | None = Field(
        description="upright picture height"
    )
    rotation_deg: Annotated[Int32, Unit("degrees")] | None = Field(
        description="clockwise turn applied to make the stored picture upright: 0, 90, 180, 270"
    )
    sample_aspect_ratio: Float32 | None = Field(description="width of a pixel over its height")
    color_transfer: Annotated[Text, MayBeAbsent()] | None = Field(
        default=None,
        description="transfer characteristics as FFmpeg names them: bt709, smpte2084 (PQ), "
        "arib-std-b67 (HLG) …; null: the stream does not say",
    )
    color_primaries: Annotated[Text, MayBeAbsent()] | None = Field(
        default=None, description="primaries as FFmpeg names them; null: the stream does not say"
    )
    color_matrix: Annotated[Text, MayBeAbsent()] | None = Field(
        default=None,
        description="matrix from RGB as FFmpeg names it (its color_space); null: the stream does "
        "not say. Then BT.2020 is assumed for HDR and BT.2020 primaries; otherwise BT.709 from "
        "720 pixels on the shorter side, or 1280 on the longer, and BT.601 below",
    )
    color_range: Annotated[Literal["limited", "full"], MayBeAbsent()] | None = Field(
        default=None,
        description="of the samples; null: the stream does not say, and limited is assumed for "
        "luma and chroma, full for RGB",
    )
    bit_depth: Annotated[Int32, Unit("bits"), MayBeAbsent()] | None = Field(
        default=None, description="of a sample of the chosen video stream"
    )
    field_order: (
        Annotated[Literal["progressive", "tt", "bb", "tb", "bt", "interlaced"], MayBeAbsent()]
        | None
    ) = Field(
        default=None,
        description="as ffprobe has it: which field is stored first, and which is shown first; "
        "interlaced: in an order that only the pictures tell; null: not known. It is that of the "
        "beginning, and may change later",
    )
    video_stream_index: Annotated[Int32, MayBeAbsent()] | None = Field(
        default=None,
        description="index of the chosen video stream in the file: that of the setting "
        "`video_stream`, else the largest, except cover pictures, thumbnails and single pictures "
        "if there is another",
    )
    video_stream_count: Annotated[Int32, MayBeAbsent()] | None = Field(
        default=None,
        description="video streams in the file that have a decoder, without cover pictures",
    )
    frame_count: Int32 | None = Field(description="frames in the chosen stream")
    promised_frame_count: Annotated[Int32, MayBeAbsent()] | None = Field(
        default=None,
        description="frames that a cut-off file says it has; null: it is whole, or does not say",
    )
    missing_s: Annotated[Seconds, MayBeAbsent()] | None = Field(
        default=None,
        description="seconds that a cut-off file says it has and has not; null: it is whole, or "
        "does not say",
    )
    damaged_frames: Annotated[Stretches, Unit("frame index"), MayBeAbsent()] | None = Field(
        default=None,
        description="stretches of frames, [first, one past the last], that are not to be trusted: "
        "their packets are damaged, or refer to such. They keep their indices and times, and no "
        "table has a row of them. As far as the packets show without decoding the whole file: "
        "clips have what decoding found; null: none",
    )
    average_rate_fps: (
        Annotated[Float32, Unit("frames per second"), Plausible(5.0, 240.0)] | None
    ) = Field(description="frames over duration")
    is_variable_rate: Bool | None = Field(description="frame intervals differ by more than 10 %")
    duration_s: Annotated[Seconds, Plausible(0.0, 3600.0)] | None = Field(
        description="end of the last frame since the first"
    )
    start_pts_s: Seconds | None = Field(description="container time stamp of the first frame")
    audio_codec: Text | None = Field(description="codec of the chosen audio stream")
    audio_rate_hz: Annotated[Int32, Unit("hertz"), MayBeAbsent()] | None = Field(
        description="sample rate"
    )
    audio_channels: Annotated[Int32, MayBeAbsent()] | None = Field(
        description="channels of the chosen audio stream"
    )
    audio_start_s: Annotated[Seconds, MayBeAbsent()] | None = Field(
        default=None,
        description="when a player begins the audio, since the first picture: negative if it is "
        "heard before; edit lists and the encoder's delay are taken into account",
    )
    recording_id: Annotated[Text, MayBeAbsent()] | None = Field(
        default=None,
        description="shared by the files that a camera has made of one recording (its chapters); "
        "null: the file is not known to be a chapter",
    )
    chapter_index: Annotated[Int32, MayBeAbsent()] | None = Field(
        default=None, ge=0, description="order of the file in its recording, from 0"
    )
    recording_start_s: Annotated[Seconds, MayBeAbsent()] | None = Field(
        default=None,
        description="time of the first picture since that of the recording: the durations of the "
        "chapters before. Null: one of these is not there",
    )
    camera_model: Text | None = Field(description="PINHOLE, OPENCV or OPENCV_FISHEYE")
    fx_px: Annotated[Pixels, Plausible(50.0, 20000.0)] | None = Field(description="focal length, x")
    fy_px: Annotated[Pixels, Plausible(50.0, 20000.0)] | None = Field(description="focal length, y")
    cx_px: Pixels | None = Field(description="principal point, x")
    cy_px: Pixels | None = Field(description="principal point, y")
    distortion: Annotated[Floats, MayBeAbsent()] | None = Field(
        description="k1 k2 p1 p2, or k1 k2 k3 k4 for fisheye"
    )
    intrinsics_source: IntrinsicsSource | None = Field(description="where the intrinsics come from")
    person: PersonSaid
    consent: ConsentSaid
    license: LicenseSaid
    site: SiteSaid
    device: DeviceSaid
    task: TaskSaid


class Clip(ClipRow):
    """One row per clip: the atomic unit of work."""

    table: ClassVar[str] = "clips"
    key: ClassVar[tuple[str, ...]] = ("clip_id",)
    item_column: ClassVar[str] = "video_id"

    clip_index: Int32 = Field(ge=0, description="index of the clip in its video")
    take_id: Text = Field(description="{video_id}-t{take index:03d}: clips with no cut between")
    index_in_take: Int32 = Field(ge=0, description="0 for the first clip of the take")
    start_frame: Int32 = Field(ge=0, description="first frame, context included")
    end_frame: Int32 = Field(ge=1, description="one past the last frame")
    start_pts_s: Seconds = Field(description="time of the first frame")
    end_pts_s: Seconds = Field(description="end of the last frame")
    context_frames: Int32 = Field(
        ge=0, description="leading frames shared with the clip before it in the take"
    )
    recording_id: Annotated[Text, MayBeAbsent()] | None = Field(
        default=None, description="as in video_manifest"
    )
    recording_start_s: Annotated[Seconds, MayBeAbsent()] | None = Field(
        default=None, description="time of the first frame since that of the recording"
    )
    split_reason: Literal["start", "chapter", "cut", "transition", "damage", "length"] = Field(
        description="what made this clip begin here; chapter: the file, whose recording began in "
        "the file before it, so that what is seen goes on from there; frames of a transition, or "
        "of damage that is longer than the overlap of clips, belong to no clip"
    )
    damaged_frames: Annotated[Stretches, Unit("frame index"), MayBeAbsent()] | None = Field(
        default=None,
        description="stretches of the clip's frames, [first, one past the last], that are not to "
        "be trusted, as decoding found them (`search: fast` decodes only in part): no table has a "
        "row of them; null: none",
    )
    estimated_cost: Float32 = Field(ge=0, description="megapixels to decode: for scheduling")
