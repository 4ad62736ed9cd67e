"""Exports the episodes of a lake: one function a format, for the command and the asset alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from ego_assets.exports.coco.lake import CocoEpisodes
from ego_assets.exports.coco.settings import CocoContent, CocoSettings
from ego_assets.exports.coco.writer import write_coco
from ego_assets.exports.egodex.lake import EgoDexEpisodes
from ego_assets.exports.egodex.settings import EgoDexContent, EgoDexSettings
from ego_assets.exports.egodex.writer import write_egodex
from ego_assets.exports.egoverse.settings import EgoVerseContent, EgoVerseSettings
from ego_assets.exports.egoverse.writer import write_egoverse
from ego_assets.exports.faces.blur import check_faces
from ego_assets.exports.folder import ExportReport
from ego_assets.exports.grid import ExportError
from ego_assets.exports.lake_episodes import LakeEpisodes
from ego_assets.exports.lerobot.settings import LeRobotFiles, LeRobotSettings
from ego_assets.exports.lerobot.writer import write_dataset
from ego_assets.exports.mcap.settings import McapContent, McapSettings
from ego_assets.exports.mcap.writer import write_mcap
from ego_assets.exports.motion.lake import MotionEpisodes
from ego_assets.exports.motion.settings import PlacedContent
from ego_assets.exports.recordings.lake import ShownEpisodes
from ego_assets.exports.recordings.settings import RerunSettings
from ego_assets.exports.recordings.writer import write_rerun
from ego_assets.exports.s3.local_copy import SCHEME, local_copy
from ego_assets.exports.settings import (
    ContentSettings,
    FacesSettings,
    NumbersSettings,
    WhoseFootage,
)
from ego_assets.exports.vitra.lake import VitraEpisodes
from ego_assets.exports.vitra.settings import VitraSettings
from ego_assets.exports.vitra.writer import write_vitra
from ego_assets.exports.webdataset.settings import WebDatasetSettings
from ego_assets.exports.webdataset.writer import write_shards
from ego_assets.reading import LakeReader
from ego_assets.reviews.standing import why_left_out
from ego_assets.settings import Settings
from resources.lake import Lake
from resources.lake.provenance import code_version

Tell = Callable[[int, int], None]
"""Called with the number of episodes that are done, and of all."""


class Chosen(Protocol):
    """Episodes of a lake. skipped: {episode: why it is left out}, filled by iterating."""

    @property
    def skipped(self) -> dict[str, str]: ...

    def __len__(self) -> int: ...
    def __iter__(self) -> Any: ...


@dataclass(frozen=True)
class LakeExport:
    """What an export did. skipped: {episode: why it was left out}."""

    out: str
    report: ExportReport
    skipped: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        return {"out": self.out, **asdict(self.report), "skipped": self.skipped}


Judged = Callable[[str], str | None]
"""Why people leave an episode out, by its id."""


@dataclass(frozen=True)
class Format:
    """A format that the episodes of a lake are written in.

    content, form: classes of its settings, of what is exported and of how it is written; choose:
    the episodes; write: what makes a folder of them, or brings it up to date.
    """

    name: str
    what: str
    content: type[Settings]
    form: type[Settings]
    choose: Callable[[Lake, Any, Any, Judged], Chosen]
    write: Callable[..., ExportReport]


def _on_grid(lake: Lake, content: ContentSettings, form: Any, judged: Judged) -> Chosen:
    return LakeEpisodes(LakeReader(lake), content, form.max_side_px, judged)


def _of_mcap(lake: Lake, content: McapContent, form: McapSettings, judged: Judged) -> Chosen:
    chosen = ContentSettings(
        split=content.split,
        faces=content.faces,
        **content.wanted,
        hand="both" if content.robot_joints else "human",
        robot=content.robot,
        method=content.method,
        undistorted=content.undistorted,
    )
    return MotionEpisodes(
        LakeReader(lake),
        chosen,
        form.max_side_px,
        judged,
        every_frame=True,
        with_objects=content.objects,
    )


def _of_egoverse(
    lake: Lake, content: EgoVerseContent, form: EgoVerseSettings, judged: Judged
) -> Chosen:
    chosen = ContentSettings(
        split=content.split,
        frame="world",
        fps=int(content.fps),
        faces=content.faces,
        **content.wanted,
    )
    return MotionEpisodes(LakeReader(lake), chosen, form.max_side_px, judged)


FORMATS = {
    made.name: made
    for made in (
        Format(
            "lerobot",
            "a LeRobot data set (version 3)",
            ContentSettings,
            LeRobotFiles,
            _on_grid,
            write_dataset,
        ),
        Format(
            "webdataset",
            "WebDataset shards",
            ContentSettings,
            WebDatasetSettings,
            _on_grid,
            write_shards,
        ),
        Format(
            "egodex",
            "HDF5 files and videos in the layout of EgoDex",
            EgoDexContent,
            EgoDexSettings,
            lambda lake, content, form, judged: EgoDexEpisodes(
                LakeReader(lake), content, form.max_side_px, judged
            ),
            write_egodex,
        ),
        Format(
            "coco",
            "pictures, masks and keypoints as COCO does",
            CocoContent,
            CocoSettings,
            lambda lake, content, form, judged: CocoEpisodes(LakeReader(lake), content, judged),
            write_coco,
        ),
        Format(
            "mcap",
            "MCAP files with Foxglove's schemas",
            McapContent,
            McapSettings,
            _of_mcap,
            write_mcap,
        ),
        Format(
            "rerun",
            "Rerun recordings",
            NumbersSettings,
            RerunSettings,
            lambda lake, content, form, judged: ShownEpisodes(
                lake, content, form.max_side_px, judged
            ),
            write_rerun,
        ),
        Format(
            "egoverse",
            "Zarr stores in the layout of EgoVerse",
            EgoVerseContent,
            EgoVerseSettings,
            _of_egoverse,
            write_egoverse,
        ),
        Format(
            "vitra",
            "annotations and videos in the layout of VITRA",
            PlacedContent,
            VitraSettings,
            lambda lake, content, form, judged: VitraEpisodes(
                LakeReader(lake), content, form.max_side_px, judged
            ),
            write_vitra,
        ),
    )
}
"""By name, as in `ego export NAME` and the asset `NAME_dataset`."""


def export_episodes(
    name: str, lake: Lake, out: Path | str, content: Any, form: Any, tell: Tell | None = None
) -> LakeExport:
    """Write the episodes of a lake in the format of that name, or bring a folder of them up to
    date.

    out: a folder, or s3://bucket/prefix; content, form: settings of the classes that the format
    names. Raises ExportError where there is no episode that fits, or they do not fit together.
    """
    check_faces(content.faces if isinstance(content, FacesSettings) else None, lake)
    if str(out).startswith(SCHEME):
        with local_copy(str(out)) as folder:
            done = export_episodes(name, lake, folder, content, form, tell)
        return replace(done, out=str(out))
    found = FORMATS[name]
    episodes = found.choose(lake, content, form, why_left_out(lake, content))
    if name == "lerobot":  # whose split has the name of the episodes' split, also if that is `all`
        form = LeRobotSettings.model_validate(form.model_dump() | {"split": content.split})
    return _export(lake, Path(out), episodes, content, form, found.write, tell)


def _export(
    lake: Lake,
    out: Path,
    episodes: Chosen,
    content: WhoseFootage,
    form: Any,
    write: Callable[..., ExportReport],
    tell: Tell | None,
) -> LakeExport:
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
    # A place without a manifest is no lake, or is away: it says nothing of what is wanted.
    if not total and not (out.is_dir() and LakeReader(lake).shards("video_manifest")):
        raise ExportError(_no_episodes(lake, content))
    try:
        report = write(
            out, episodes if total else (), form, provenance=provenance, progress=progress
        )
    except ExportError as error:
        if not total:
            raise ExportError(f"{_no_episodes(lake, content)} ({error})") from error
        if not episodes.skipped or len(episodes.skipped) < total:
            raise
        first, why = next(iter(sorted(episodes.skipped.items())))
        raise ExportError(
            f"none of the {total} episodes can be exported; the first: {first}: {why} ({error})"
        ) from error
    if tell is not None and told < total:
        tell(total, total)
    return LakeExport(str(out), report, episodes.skipped | report.skipped)


def _no_episodes(lake: Lake, content: WhoseFootage) -> str:
    return (
        f"{lake.location} has no episodes of the split {content.model_dump()['split']}"
        f"{content.words}: `ego yield` tells what became of the footage"
    )
