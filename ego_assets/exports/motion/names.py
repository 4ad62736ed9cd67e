"""Names of files that formats are written to."""

from __future__ import annotations

import re

from ego_assets.exports.episode import ExportEpisode
from ego_assets.exports.grid import ExportError


def task_name(task: str) -> str:
    """The folder, or the name, of a task: its words in lower case, joined by underscores."""
    words = re.findall(r"[^\W_]+", task.lower())
    return "_".join(words)[:80].strip("_") or "task"


def check_file_name(episode: ExportEpisode) -> None:
    """Raise ExportError unless files can be called as the episode is."""
    if not re.fullmatch(r"[\w-][\w.-]*", episode.episode_id):
        raise ExportError(f"episode {episode.episode_id}: its name is no name of a file: rename it")
