"""Exports the episodes of a lake: one function a format, for the command and the asset alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ego_assets.exports.grid import ExportError
from ego_assets.exports.lake_episodes import ContentSettings, LakeEpisodes
from ego_assets.exports.lerobot.settings import LeRobotFiles, LeRobotSettings
from ego_assets.exports.lerobot.writer import ExportReport, write_dataset
from ego_assets.reading import LakeReader
from resources.lake import Lake
from resources.lake.provenance import code_version

Tell = Callable[[int, int], None]
"""Called with the number of episodes that are done, and of all."""


@dataclass(frozen=True)
class LakeExport:
    """What an export did. skipped: {episode: why it was left out}."""

    out: str
    report: ExportReport
    skipped: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        return {"out": self.out, **asdict(self.report), "skipped": self.skipped}


def export_lerobot(
    lake: Lake,
    out: Path,
    content: ContentSettings,
    form: LeRobotFiles,
    tell: Tell | None = None,
) -> LakeExport:
    """Write the episodes of a lake as a LeRobot data set, or bring one up to date.

    The split of the data set has the name of the episodes' split, also if that is `all`. Raises
    ExportError where there is no episode that fits, or they do not fit together.
    """
    episodes = LakeEpisodes(LakeReader(lake), content, form.max_side_px)
    total, done, told = len(episodes), 0, 0

    def progress(what: str, frames: int) -> None:
        nonlocal done, told
        if what in ("kept", "encoded", "resumed", "skipped"):
            done += 1
            told = done + len(episodes.skipped)
            if tell is not None:
                tell(told, total)

    provenance = {
        "lake": lake.location,
        "code_version": code_version(),
        "content": content.model_dump(),
    }
    try:
        settings = LeRobotSettings.model_validate(form.model_dump() | {"split": content.split})
        report = write_dataset(out, episodes, settings, provenance=provenance, progress=progress)
    except ExportError as error:
        if not episodes.skipped or len(episodes.skipped) < total:
            raise
        first, why = next(iter(sorted(episodes.skipped.items())))
        raise ExportError(
            f"none of the {total} episodes can be exported; the first: {first}: {why}"
        ) from error
    if tell is not None and told < total:
        tell(total, total)
    return LakeExport(str(out), report, episodes.skipped | report.skipped)
