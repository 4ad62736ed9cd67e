"""Decoding on an NVIDIA GPU (NVDEC, through FFmpeg's `cuda` hardware contexts).

Here: whether this process may, and what keeps its frames equal to those of software. Not here:
opening and reading files (`containers`, `decode`).

Which decoder ran is no part of a clip's fingerprint, so it must not change a frame:
- only codecs whose standard defines every bit of a picture (with MPEG-2, MPEG-4 part 2 and MJPEG,
  decoders may round differently);
- planes are brought into the layout of software before anything is made of them;
- a stream that does not decode without an error goes back to software.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import av
import av.codec.hwaccel

from ego_assets.media.colour import convertible
from resources.environment import visible_devices

NAME = "NVDEC"
EXACT_CODECS = frozenset({"h264", "hevc", "vp8", "vp9", "av1"})
_PLANAR = {"nv12": "yuv420p", "p010le": "yuv420p10le"}
"""Layouts in which a GPU gives pictures away → those in which software does."""


class HardwareDecodingError(RuntimeError):
    """This stream does not decode on the device without an error."""


def find(codec: str) -> tuple[Any | None, str]:
    """What `open_media` takes to decode on this process's GPU, or None and why."""
    if codec not in EXACT_CODECS:
        return None, f"{codec} is not decoded by every device to the same bits"
    return _device(visible_devices())


@lru_cache(maxsize=2)
def _device(visible: str | None) -> tuple[Any | None, str]:
    """Looked for once: on a machine without a driver that takes longest."""
    if visible == "":
        return None, "this step has no GPU"
    if "cuda" not in av.codec.hwaccel.hwdevices_available():
        return None, "this FFmpeg was built without CUDA"
    device = av.codec.hwaccel.HWAccel("cuda", allow_software_fallback=True)
    try:
        device.create(av.Codec("h264", "r"))
    except (av.FFmpegError, OSError, NotImplementedError) as error:
        return None, f"no GPU that decodes ({error})"
    return device, ""


def as_software_has_it(picture: Any) -> Any:
    """The same picture, its planes as software lays them out.

    Raises HardwareDecodingError, also for a picture that libav made itself, since the device has
    not what the stream wants: it would do so in one thread.
    """
    if picture.is_corrupt:
        raise HardwareDecodingError("a picture is damaged")
    layout = _PLANAR.get(picture.format.name)
    if layout is None:
        raise HardwareDecodingError(f"the device makes no pictures of {picture.format.name}")
    return convertible(picture).reformat(format=layout)


@contextmanager
def errors_told() -> Iterator[None]:
    """Whatever goes wrong inside is HardwareDecodingError, but for the end of the stream."""
    try:
        yield
    except av.error.EOFError:
        return
    except MemoryError as error:
        raise HardwareDecodingError(f"no memory on the device: {error}") from error
    except (av.FFmpegError, OSError, ValueError) as error:
        raise HardwareDecodingError(f"{type(error).__name__}: {error}") from error
