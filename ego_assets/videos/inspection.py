"""What a raw file is, and whether it is taken in: the values of its row in `video_manifest`.

Here: facts from the headers, a look at the frames, the decision. Not here: the opening of media
files (`decode`), calibration files (`calibration`). What a row says of a rejected file quotes
nothing of its content.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from enum import StrEnum
from pathlib import Path
from typing import Any

import av
import numpy as np

from ego_assets.consent import SAID
from ego_assets.media import progress
from ego_assets.media.colour import unsupported_matrix
from ego_assets.media.containers import (
    choose_video_stream,
    libav_says,
    open_media,
    unless_of_storage,
    video_streams,
)
from ego_assets.media.damage.cut_off import is_cut_off, promise_of
from ego_assets.media.damage.spoilt import stretches
from ego_assets.media.damage.survey import damage_around, missing_of, true_steps
from ego_assets.media.decode import ClipFrames
from ego_assets.media.frame_index import FrameIndex, has_times_of_decoding, index_frames
from ego_assets.operator import BadInputError
from ego_assets.videos.audio import audio_columns, audio_start_s, choose_audio_stream
from ego_assets.videos.calibration.camera import CalibrationError
from ego_assets.videos.calibration.columns import camera_columns
from ego_assets.videos.footage.sidecar import FootageSidecarError, footage_columns
from ego_assets.videos.recordings.chapters import recording_columns
from ego_assets.videos.settings import ManifestSettings
from resources.raw.plain_files import NotAFileError, open_regular, read_blocks
from resources.raw.sidecars import FileBeside

VERSION = "7"
"""Of the rows: raise it when they change."""
STILL_CODECS = frozenset({"png", "mjpeg", "bmp", "gif", "webp", "tiff", "jpeg2000"})
VARIABLE_SHARE = 0.1
MIN_DECODED_SHARE = 0.5
"""A file of whose looked-at frames fewer decode is corrupt."""
LOOKED_AT = 5
MAX_DETAIL = 500
"""Characters of a sentence on why a file is rejected."""


class RejectReason(StrEnum):
    """Why a raw file is not taken in."""

    REFUSED = "refused"
    EMPTY = "empty"
    UNREADABLE = "unreadable"
    NOT_MEDIA = "not_media"
    TRUNCATED = "truncated"
    NO_VIDEO = "no_video"
    NO_SUCH_STREAM = "no_such_stream"
    STILL_IMAGE = "still_image"
    UNSUPPORTED_CODEC = "unsupported_codec"
    CORRUPT = "corrupt"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    TOO_LARGE = "too_large"
    NO_TIMES = "no_times"
    BAD_CALIBRATION = "bad_calibration"
    BAD_SIDECAR = "bad_sidecar"
    DUPLICATE = "duplicate"
    FORGOTTEN = "forgotten"


_SIGNATURES = (
    (0, b"\x89PNG", RejectReason.STILL_IMAGE, "a PNG picture"),
    (0, b"\xff\xd8\xff", RejectReason.STILL_IMAGE, "a JPEG picture"),
    (0, b"GIF8", RejectReason.STILL_IMAGE, "a GIF picture"),
    (8, b"WEBP", RejectReason.STILL_IMAGE, "a WebP picture"),
    (0, b"#EXTM3U", RejectReason.NOT_MEDIA, "a playlist: it may name files that are not yours"),
    (0, b"ffconcat", RejectReason.NOT_MEDIA, "a concat script: it may name any file"),
    (4, b"ftyp", RejectReason.TRUNCATED, "its index (moov) is missing: the recording was cut off"),
)
"""(offset, bytes, reason, words) that explain why a file did not open."""


class RejectedError(Exception):
    """Carries a reason and a sentence from where it is found to the row."""

    def __init__(self, reason: RejectReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class FileInspector:
    """A raw file → its row of `video_manifest`."""

    name = "libav"
    version = VERSION
    quality_tier = "baseline"
    weights_hash = ""

    def __init__(self, settings: ManifestSettings) -> None:
        self.settings = settings

    def inspect(self, path: Path) -> tuple[str, int, dict[str, Any]]:
        """As `probe_file`."""
        return probe_file(path, self.settings)

    def reject_by_size(self, byte_size: int) -> dict[str, Any] | None:
        """As the function of that name."""
        return reject_by_size(byte_size, self.settings)

    def recording(
        self, uri: str, path: Path, known_id: Callable[[Iterable[str]], str | None]
    ) -> dict[str, Any]:
        """As `recording_columns`."""
        return recording_columns(uri, path, known_id, self.settings.video_stream)

    def describe(self, columns: dict[str, Any], found: Iterable[FileBeside]) -> dict[str, Any]:
        """The columns of an accepted file with what the files beside it say, or rejected."""
        try:
            return columns | footage_columns(found)
        except FootageSidecarError as error:
            return columns | {"accepted": False} | _rejection(RejectReason.BAD_SIDECAR, str(error))

    def rejected(self, reason: str, detail: str) -> dict[str, Any]:
        """As `rejected_columns`."""
        return rejected_columns(RejectReason(reason), detail)


def probe_file(path: Path, settings: ManifestSettings) -> tuple[str, int, dict[str, Any]]:
    """(SHA-256 in hex, size in bytes, columns of `probe_video`) of a file.

    The first is empty if the file is too large to be read. Both read the file at the same time, so
    that storage is asked for each byte once: the one behind finds it in memory. Raises OSError if
    the file cannot be read, NotAFileError.
    """
    found = path.lstat()
    if (rejected := reject_by_size(found.st_size, settings, found.st_blocks * 512)) is not None:
        return "", found.st_size, rejected
    with ThreadPoolExecutor(max_workers=1) as pool:  # hashing releases the interpreter's lock
        hashing = pool.submit(copy_context().run, hash_file, path)
        columns = probe_video(path, settings)
        sha256, size = hashing.result()
    return sha256, size, columns


def hash_file(path: Path) -> tuple[str, int]:
    """(SHA-256 in hex, size in bytes) of a file, in one reading with bounded memory. Raises
    NotAFileError, OSError that names the file."""
    digest = hashlib.sha256()
    size = 0
    blocks = read_blocks(path)
    while True:
        began = time.monotonic()
        block = next(blocks, b"")
        progress.moved(len(block), time.monotonic() - began)
        if not block:
            return digest.hexdigest(), size
        digest.update(block)
        size += len(block)


def reject_by_size(
    byte_size: int, settings: ManifestSettings, stored_bytes: int | None = None
) -> dict[str, Any] | None:
    """Columns of `video_manifest` for a file that is too large to be read at all, else None.

    stored_bytes: what it takes on its disk, if that is known.
    """
    limit = settings.max_file_gigabytes
    if byte_size <= limit * 1e9:
        return None
    detail = f"{_gigabytes(byte_size)} is over the limit of {limit:g} GB: the file was not read"
    if stored_bytes is not None and stored_bytes < byte_size / 2:
        detail += f" (it is sparse: {_gigabytes(stored_bytes)} of it is on the disk)"
    return rejected_columns(RejectReason.TOO_LARGE, detail)


def _gigabytes(byte_count: int) -> str:
    size = byte_count / 1e9
    return f"{size:,.0f} GB" if size >= 100 else f"{size:.3g} GB"


def rejected_columns(reason: RejectReason, detail: str) -> dict[str, Any]:
    """Columns of `video_manifest` for a file of which nothing else is known."""
    return _blank() | _rejection(reason, detail)


def as_text(detail: str) -> str:
    """A sentence as a table and a terminal can hold it, whatever a file's name is made of."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in detail)
    return shown if len(shown) <= MAX_DETAIL else f"{shown[: MAX_DETAIL - 1]}…"


def probe_video(path: Path, settings: ManifestSettings) -> dict[str, Any]:
    """Columns of `video_manifest` from `accepted` on. Never raises for what is in the file; OSError
    if it is not there, or cannot be read.

    Damaged files are taken in as far as they decode: of five frames spread over the index half
    must decode (a truncated video with its index keeps what is there).
    """
    row = _blank()
    try:
        _fill(row, path, settings)
        row["accepted"] = True
    except RejectedError as rejected:
        row |= _rejection(rejected.reason, str(rejected))
    except NotAFileError as error:
        row |= _rejection(RejectReason.REFUSED, str(error))
    except BadInputError as error:  # our own words
        unless_of_storage(error, path)
        row |= _rejection(RejectReason.UNREADABLE, str(error))
    except (av.FFmpegError, PermissionError) as error:
        unless_of_storage(error, path)
        row |= _rejection(RejectReason.UNREADABLE, libav_says(error))
    except (ValueError, ArithmeticError, LookupError, TypeError, RecursionError) as error:
        detail = f"its headers make no sense ({type(error).__name__})"
        row |= _rejection(RejectReason.UNREADABLE, detail)
    return row


def _rejection(reason: RejectReason, detail: str) -> dict[str, str]:
    return {"reject_reason": reason.value, "reject_detail": as_text(detail)}


def _blank() -> dict[str, Any]:
    names = (
        "reject_reason reject_detail container video_codec pixel_format width_px height_px "
        "rotation_deg sample_aspect_ratio color_transfer color_primaries color_matrix color_range "
        "bit_depth field_order video_stream_index video_stream_count frame_count "
        "promised_frame_count missing_s damaged_frames average_rate_fps is_variable_rate "
        "duration_s start_pts_s audio_codec audio_rate_hz "
        "audio_channels audio_start_s recording_id chapter_index recording_start_s "
        "camera_model fx_px fy_px cx_px cy_px distortion intrinsics_source"
    )
    return {"accepted": False} | dict.fromkeys((*names.split(), *SAID))


def _fill(row: dict[str, Any], path: Path, settings: ManifestSettings) -> None:
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
    if size == 0:
        raise RejectedError(RejectReason.EMPTY, "the file is empty")
    with _open(path) as container:
        row["container"] = container.format.name
        sound = choose_audio_stream(container)
        row |= audio_columns(sound)
        sound_index = None if sound is None else sound.index
        stream = _choose_stream(container, settings.video_stream)
        _fill_stream(row, stream)
        row["video_stream_count"] = len(video_streams(container))
        _check_stream(stream, settings)
        promise = promise_of(container, stream)
    index = index_frames(path, settings.video_stream)
    cut_off = is_cut_off(path, row["container"])
    _fill_index(row, index, cut_off)
    if sound_index is not None:
        row["audio_start_s"] = audio_start_s(path, sound_index, row["start_pts_s"])
    if cut_off:
        row["promised_frame_count"], row["missing_s"] = missing_of(index, promise)
    _check_length(row, index, settings)
    _check_times(path, index)
    damaged = _check_decoding(path, index)
    damaged |= damage_around(path, index, damaged)
    if len(damaged) >= len(index):
        words = f"all of its {len(index)} pictures are damaged, or refer to damaged ones"
        raise RejectedError(RejectReason.CORRUPT, words)
    row["damaged_frames"] = [list(each) for each in stretches(damaged)] or None
    try:
        row |= camera_columns(path, index, settings)
    except CalibrationError as error:
        raise RejectedError(RejectReason.BAD_CALIBRATION, str(error)) from None


def _open(path: Path) -> Any:
    """Open, or say what the file is instead of a video."""
    try:
        return open_media(path)
    except BadInputError as error:
        with open_regular(path) as file:
            head = file.read(512)
        for offset, signature, reason, words in _SIGNATURES:
            if head[offset:].startswith(signature):
                raise RejectedError(reason, words) from error
        printable = sum(b in b"\t\r\n" or 32 <= b < 127 for b in head)
        if printable > 0.95 * len(head):
            raise RejectedError(RejectReason.NOT_MEDIA, "text, not a video") from error
        raise RejectedError(RejectReason.UNREADABLE, str(error)) from error


def _choose_stream(container: Any, wanted: int | None) -> Any:
    stream = choose_video_stream(container, wanted)
    if stream is not None:
        return stream
    there = [str(s.index) for s in video_streams(container)]
    if wanted is None or not there:
        raise RejectedError(RejectReason.NO_VIDEO, "no video stream in the file")
    raise RejectedError(
        RejectReason.NO_SUCH_STREAM,
        f"its stream {wanted} is no video that can be decoded, and the setting video_stream asks "
        f"for it; there is {', '.join(there)}: set one of these, or leave the setting empty for "
        "the largest",
    )


def _fill_stream(row: dict[str, Any], stream: Any) -> None:
    row["video_codec"] = stream.codec_context.codec.canonical_name
    row["pixel_format"] = stream.pix_fmt
    ratio = stream.sample_aspect_ratio
    row["sample_aspect_ratio"] = float(ratio) if ratio else 1.0
    row["video_stream_index"] = stream.index
    if stream.codec_context.format is not None:
        row["bit_depth"] = max(c.bits for c in stream.codec_context.format.components)


def _check_stream(stream: Any, settings: ManifestSettings) -> None:
    pixels = stream.width * stream.height
    if pixels > settings.max_pixels:
        size = f"{stream.width} x {stream.height}"
        detail = f"{size} is over the limit of {settings.max_pixels} pixels"
        raise RejectedError(RejectReason.TOO_LARGE, detail)
    if pixels == 0:
        raise RejectedError(RejectReason.CORRUPT, "the video stream has no size")


def _fill_index(row: dict[str, Any], index: FrameIndex, cut_off: bool) -> None:
    row["width_px"], row["height_px"] = index.width, index.height
    row["rotation_deg"] = index.rotation_deg
    row |= index.colours.names()
    row["field_order"] = index.field_order
    row["frame_count"] = len(index)
    row["duration_s"] = index.duration_s
    row["start_pts_s"] = float(index.pts[0] * index.time_base)
    row["average_rate_fps"] = len(index) / index.duration_s
    steps = true_steps(index, cut_off or index.ends_inside)
    tick = 1  # one unit of rounding in the time base is no variation
    row["is_variable_rate"] = bool(
        len(steps) > 1
        and np.abs(steps - np.median(steps)).max() > max(tick, VARIABLE_SHARE * np.median(steps))
    )


def _check_length(row: dict[str, Any], index: FrameIndex, settings: ManifestSettings) -> None:
    if len(index) == 1 and row["video_codec"] in STILL_CODECS:
        raise RejectedError(RejectReason.STILL_IMAGE, f"one {row['video_codec']} picture")
    if index.duration_s > settings.max_duration_s:
        detail = f"{index.duration_s:.0f} s is over the limit of {settings.max_duration_s:g} s"
        raise RejectedError(RejectReason.TOO_LONG, detail)
    decoded_gb = len(index) * index.width * index.height * 3 / 1e9
    if decoded_gb > settings.max_decoded_gigabytes:
        detail = (
            f"{len(index)} pictures of {index.width} x {index.height} are {decoded_gb:.0f} GB, the "
            f"limit is {settings.max_decoded_gigabytes:g}"
        )
        raise RejectedError(RejectReason.TOO_LARGE, detail)
    if index.duration_s < settings.min_duration_s:
        detail = f"{index.duration_s:.2f} s is under the limit of {settings.min_duration_s:g} s"
        raise RejectedError(RejectReason.TOO_SHORT, detail)


def _check_times(path: Path, index: FrameIndex) -> None:
    if has_times_of_decoding(path, index):
        raise RejectedError(
            RejectReason.NO_TIMES,
            "its pictures are stored in another order than they are shown in, and the file does "
            "not say which: `ffmpeg -fflags +genpts -i IN -c copy OUT.mp4` makes one that does",
        )


def _check_decoding(path: Path, index: FrameIndex) -> set[int]:
    """Decode a few frames, at and behind keyframes spread over the video. Returns damaged ones."""
    places = sorted({round(x) for x in np.linspace(0, len(index) - 1, LOOKED_AT)})
    good, damaged = 0, set()
    for place in places:
        source = ClipFrames(path, place, place + 1, stream_index=index.stream_index)
        try:
            good += sum(1 for _ in source.read(max_side_px=64))
        except (BadInputError, av.FFmpegError) as error:
            unless_of_storage(error, path)
            good += source.withheld > 0  # it decodes, and is not to be trusted
        finally:
            damaged.update(source.damaged)
            progress.moved()
    if good < MIN_DECODED_SHARE * len(places):
        if (words := unsupported_matrix(index.colours)) is not None:
            raise RejectedError(RejectReason.UNSUPPORTED_CODEC, words)
        words = f"{good} of {len(places)} frames spread over the video decode"
        raise RejectedError(RejectReason.CORRUPT, words)
    return damaged
