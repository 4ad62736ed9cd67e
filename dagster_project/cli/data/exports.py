"""Commands that write data sets (`export` and a format), and `export check`.

Here: options, words, exit status. Not here: work.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from dagster_project.cli.data.options import given_settings, options_of
from dagster_project.cli.terminal import (
    JSON_OPTION,
    LAKE_OPTION,
    count_of,
    existing_lake,
)
from ego_assets.settings import Settings


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    """Show a bar on a terminal, and nothing elsewhere."""
    console = Console(stderr=True)
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("exporting", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@click.group()
def export() -> None:
    """Write data sets out of the episodes of a lake."""


@dataclass(frozen=True)
class _Format:
    """A format that episodes are written in. load: how to read what was written to a folder."""

    name: str
    what: str
    content: type[Settings]
    form: type[Settings]
    load: Callable[[Path], str]


def _place(context: click.Context, option: click.Parameter, given: str) -> Path | str:
    """Check where a data set is to lie: a folder, or a prefix of a bucket, which stays text."""
    if given.startswith("s3://"):
        return given
    path: Path = click.Path(file_okay=False, path_type=Path).convert(given, option, context)
    return path


def _command(of: _Format) -> click.Command:
    @click.command(
        of.name,
        help=f"Write episodes as {of.what}.\n\n"
        "The same command again brings the folder up to date, and goes on with an export that was "
        "stopped. Episodes that do not fit, or whose video cannot be read, are left out and listed "
        "with the reason (`skipped` in the JSON). Exit status: 0 if it was written, even without "
        "those; 1 if not.",
        short_help=f"Write episodes as {of.what}.",
    )
    @LAKE_OPTION
    @click.option(
        "--out",
        required=True,
        callback=_place,
        help="Folder of the data set, or s3://bucket/prefix; one that was written before is "
        "brought up to date.",
    )
    @options_of(of.content, of.form)
    @JSON_OPTION
    def command(lake_root: str, out: Path | str, as_json: bool, **options: Any) -> None:
        from ego_assets.exports.lake_export import export_episodes

        lake = existing_lake(lake_root)
        content = given_settings(of.content, options)
        form = given_settings(of.form, options)
        try:
            with _bar() as tell:
                done = export_episodes(of.name, lake, out, content, form, tell)
        except (ValueError, OSError) as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(1)
        if as_json:
            click.echo(json.dumps(done.as_json()))
            return
        report = done.report
        click.echo(
            f"{out}: {count_of(report.episodes, 'episode')}, {count_of(report.frames, 'frame')}; "
            f"{report.encoded:,} encoded now, {report.resumed:,} from an export that was stopped, "
            f"{report.kept:,} kept from before, {report.removed:,} removed; "
            f"{len(done.skipped):,} left out"
        )
        for episode, why in sorted(done.skipped.items()):
            click.echo(f"left out: {episode}: {why}")
        if isinstance(out, Path):
            click.echo(of.load(out))
        else:
            click.echo(f"copy it to load it: aws s3 cp --recursive {shlex.quote(out)} FOLDER")

    return command


def _formats() -> Iterator[_Format]:
    from ego_assets.exports.coco.settings import CocoContent, CocoSettings
    from ego_assets.exports.egodex.settings import EgoDexContent, EgoDexSettings
    from ego_assets.exports.egoverse.settings import EgoVerseContent, EgoVerseSettings
    from ego_assets.exports.lerobot.settings import LeRobotFiles
    from ego_assets.exports.mcap.settings import McapContent, McapSettings
    from ego_assets.exports.motion.settings import PlacedContent
    from ego_assets.exports.recordings.settings import RerunSettings
    from ego_assets.exports.settings import ContentSettings, NumbersSettings
    from ego_assets.exports.vitra.settings import VitraSettings
    from ego_assets.exports.webdataset.settings import WebDatasetSettings

    yield _Format(
        "lerobot",
        "a LeRobot data set (version 3)",
        ContentSettings,
        LeRobotFiles,
        lambda out: (
            "load it (`pip install 'lerobot[dataset]'`, Python 3.12):\n"
            "  from lerobot.datasets import LeRobotDataset\n"
            f'  data = LeRobotDataset("{out.name}", root="{out}")'
        ),
    )
    yield _Format(
        "webdataset",
        "WebDataset shards",
        ContentSettings,
        WebDatasetSettings,
        lambda out: (
            "load it (`pip install webdataset`):\n"
            "  import json, webdataset\n"
            f'  shards = list(json.load(open("{out}/sizes.json")))\n'
            f'  data = webdataset.WebDataset([f"{out}/{{name}}" for name in shards], '
            "shardshuffle=False)"
        ),
    )
    yield _Format(
        "egodex",
        "HDF5 files and videos in the layout of EgoDex",
        EgoDexContent,
        EgoDexSettings,
        lambda out: (
            "load it (`pip install h5py`):\n"
            "  import h5py\n"
            f'  hand = h5py.File("{out}/TASK/0.hdf5")["transforms/rightHand"]  # (N, 4, 4), metres'
        ),
    )
    yield _Format(
        "coco",
        "pictures, masks and keypoints as COCO does",
        CocoContent,
        CocoSettings,
        lambda out: (
            "load it (`pip install pycocotools`):\n"
            "  from pycocotools.coco import COCO\n"
            f'  data = COCO("{out}/annotations.json")'
        ),
    )
    yield _Format(
        "mcap",
        "MCAP files with Foxglove's schemas",
        McapContent,
        McapSettings,
        lambda out: (
            f"open a file of {out} in Foxglove, or load it (`pip install mcap-protobuf-support`):\n"
            "  from mcap_protobuf.reader import read_protobuf_messages\n"
            f'  messages = read_protobuf_messages("{out}/EPISODE.mcap", topics="/tf")'
        ),
    )
    yield _Format(
        "rerun",
        "Rerun recordings",
        NumbersSettings,
        RerunSettings,
        lambda out: f"open one: rerun {shlex.quote(str(out))}/EPISODE.rrd",
    )
    yield _Format(
        "egoverse",
        "Zarr stores in the layout of EgoVerse",
        EgoVerseContent,
        EgoVerseSettings,
        lambda out: (
            "load it (`pip install zarr`):\n"
            "  import zarr\n"
            f'  joints = zarr.open_group("{out}/TIME.zarr")["right.obs_keypoints"]  # (T, 63)'
        ),
    )
    yield _Format(
        "vitra",
        "annotations and videos in the layout of VITRA",
        PlacedContent,
        VitraSettings,
        lambda out: (
            "load it (the file is a pickle: only where you trust it):\n"
            "  import numpy as np\n"
            f'  episode = np.load("{out}/episodic_annotations/NAME.npy", allow_pickle=True).item()'
        ),
    )


for _format in _formats():
    export.add_command(_command(_format))


@export.command()
@click.argument("place", metavar="FOLDER", callback=_place)
@JSON_OPTION
def check(place: Path | str, as_json: bool) -> None:
    """Read every byte of an export, and compare it with its index.

    FOLDER is a folder, or s3://bucket/prefix.

    For exports with an `ego_export.json`: all formats but LeRobot. Exit status: 0 if all files are
    as they were written, 1 if some are not.
    """
    from ego_assets.exports.folder import damaged_files
    from ego_assets.exports.s3.local_copy import damaged_objects

    try:
        wrong = damaged_files(place) if isinstance(place, Path) else damaged_objects(place)
    except (ValueError, OSError) as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)
    if as_json:
        click.echo(json.dumps(wrong))
    else:
        for name, why in wrong.items():
            click.echo(f"{name} {why}")
        click.echo(
            f"{count_of(len(wrong), 'file')} to mend: delete them, and run the export again"
            if wrong
            else "all files are as they were written"
        )
    sys.exit(1 if wrong else 0)
