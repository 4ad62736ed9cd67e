"""Writes a Rerun recording an episode: what `ego view` shows of it, and its numbers as curves.

Rerun numbers what it writes by the clock, so a recording that is made again has other bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ego_assets.exports.episode import ExportEpisode
from ego_assets.exports.folder import (
    EpisodeFiles,
    ExportFolder,
    ExportReport,
    Progress,
    digest_of,
    write_episodes,
)
from ego_assets.exports.grid import ExportError
from ego_assets.exports.motion.names import check_file_name
from ego_assets.exports.recordings.lake import ShownEpisode
from ego_assets.exports.recordings.settings import RerunSettings
from ego_assets.operator import BadInputError
from ego_assets.viewing.footage import ClipRows
from ego_assets.viewing.recording import AddMore, write_recording
from ego_assets.viewing.tape import Tape
from resources.raw.presence import RawAwayError

VERSION = "1"
"""Raised when the same episode would be written otherwise."""
NUMBERS, INSTRUCTION, PROVENANCE = "/episode", "/instruction", "/provenance"


def write_rerun(
    out: Path,
    episodes: Iterable[ShownEpisode],
    settings: RerunSettings | None = None,
    *,
    provenance: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> ExportReport:
    """Make `out` the recordings of exactly these episodes, which are taken one at a time.

    Raises ExportError for episodes that cannot be written, and OSError with the path of a file that
    cannot be.
    """
    settings = settings or RerunSettings()
    rerun = _rerun()
    under = settings.model_dump() | {"version": VERSION, "by": f"rerun-sdk {rerun.__version__}"}
    with ExportFolder.opened(out, "rerun") as folder:
        return write_episodes(
            folder,
            episodes,
            lambda shown: _files_of(shown, under),
            under,
            provenance or {},
            progress or (lambda what, frames: None),
        )


def _files_of(shown: ShownEpisode, under: Mapping[str, Any]) -> EpisodeFiles:
    episode = shown.episode
    episode.check()
    check_file_name(episode)

    def make(folder: Path) -> None:
        try:
            write_recording(shown.footage(), folder / "episode.rrd", add_more=_numbers_of(episode))
        except RawAwayError:
            raise
        except (BadInputError, FileNotFoundError) as error:
            raise ExportError(str(error)) from error

    return EpisodeFiles(
        episode.episode_id,
        digest_of(episode.digest(), shown.shown, under),
        len(episode),
        make,
        lambda _: f"{episode.episode_id}.rrd",
    )


def _numbers_of(episode: ExportEpisode) -> AddMore:
    """What adds the columns of an episode, a value of all its numbers a frame."""

    def add(tape: Tape, clip: ClipRows) -> None:
        import rerun as rr

        text = rr.TextDocument(
            json.dumps(episode.provenance, sort_keys=True), media_type="text/plain"
        )
        tape.static(PROVENANCE, text)
        tape.static(INSTRUCTION, rr.TextDocument(episode.task, media_type="text/plain"))
        frames = episode.grid.frames
        here = np.isin(frames, clip.frames)
        for name, column in episode.columns.items():
            path = f"{NUMBERS}/{rr.escape_entity_path_part(name)}"
            if column.names:
                tape.static(path, rr.SeriesLines.from_fields(names=list(column.names)))
            values = column.values[here].astype(np.float64)
            tape.at(path, clip, frames[here], rr.Scalars.columns(scalars=values))

    return add


def _rerun() -> Any:
    try:
        import rerun
    except ImportError as error:
        raise ExportError("rerun-sdk is not installed: pip install 'ego-assets[view]'") from error
    return rerun
