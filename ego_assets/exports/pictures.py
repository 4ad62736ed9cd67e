"""The pictures of an episode at the size of an export, counted, as video or as JPEG."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ego_assets.exports import video
from ego_assets.exports.episode import ExportEpisode
from ego_assets.exports.grid import ExportError
from ego_assets.exports.settings import VideoSettings


def pictures_of(
    episode: ExportEpisode, key: str, max_side_px: int
) -> tuple[video.Size, Iterator[np.ndarray]]:
    """Returns the size of a camera's pictures, and one picture a tick.

    Reading them raises ExportError if there are more or fewer than ticks.
    """
    incoming = episode.show(key)
    first = next(incoming, None)
    if first is None:
        raise ExportError(f"episode {episode.episode_id}: {key} has no pictures")
    height, width = first.shape[:2]
    size = video.target_size((width, height), max_side_px)
    resized = video.resized(itertools.chain([first], incoming), size, letterbox=False)
    return size, _counted(resized, episode, key)


def write_video(
    episode: ExportEpisode, key: str, path: Path, settings: VideoSettings
) -> video.Size:
    """Write the pictures of a camera as an MP4 of its own. Returns their size."""
    size, pictures = pictures_of(episode, key, settings.max_side_px)
    video.encode(pictures, path, size, episode.grid.fps, settings, index_first=True)
    return size


def jpeg(picture: np.ndarray, quality: int) -> bytes:
    """The bytes of a JPEG, the same for the same picture and version of Pillow."""
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(picture).save(data, "JPEG", quality=quality)
    return data.getvalue()


def _counted(
    pictures: Iterator[np.ndarray], episode: ExportEpisode, key: str
) -> Iterator[np.ndarray]:
    count = 0
    for picture in pictures:
        count += 1
        if count > len(episode):
            break
        yield picture
    if count != len(episode):
        more = "more than " if count > len(episode) else ""
        raise ExportError(
            f"episode {episode.episode_id}: {key} has {more}{min(count, len(episode))} pictures, "
            f"and the grid {len(episode)} ticks"
        )
