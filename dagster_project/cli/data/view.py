"""`ego view`: shows a clip, an episode or a video. Not here: what is shown (`viewing`)."""

from __future__ import annotations

import signal
import webbrowser
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dagster_project.cli.names import find_clips
from dagster_project.cli.terminal import LAKE_OPTION, existing_lake, plain

if TYPE_CHECKING:
    from ego_assets.viewing.footage import ShownClips

NEEDS_RERUN = (
    "`ego view` needs rerun-sdk: pip install 'ego-assets[view]' (or make a plain video: --mp4 FILE)"
)


def _in_a_folder(_: click.Context, __: click.Parameter, given: Path | None) -> Path | None:
    if given is not None and not given.absolute().parent.is_dir():
        raise click.BadParameter(f"there is no folder {given.absolute().parent}")
    return given


@click.command()
@click.argument("name", metavar="CLIP|EPISODE|VIDEO")
@LAKE_OPTION
@click.option(
    "--save",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_in_a_folder,
    help="Write the recording to this file (.rrd), and open nothing.",
)
@click.option(
    "--mp4",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_in_a_folder,
    help="Write a plain video with everything drawn into it (needs no Rerun), and open nothing.",
)
@click.option(
    "--max-side-px",
    type=click.IntRange(64, 8192),
    help="Pictures are shrunk to this. [default: 640 in a recording, 1280 in a video]",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    help="Port of the viewer on this machine. [default: a free one]",
)
@click.option("--no-open", is_flag=True, help="Only print the address: open no browser.")
def view(
    name: str,
    lake_root: str,
    save: Path | None,
    mp4: Path | None,
    max_side_px: int | None,
    port: int,
    no_open: bool,
) -> None:
    """Show a clip, an episode or a whole video: what every table says of it, frame by frame.

    Opens Rerun's viewer in the browser; Ctrl-C ends it. It is served to this machine only, and
    nothing is asked of other servers. CLIP is an id of the table `clips`, EPISODE of
    `episodes`; VIDEO is an id of `video_manifest`, or the name of the raw file.
    """
    from ego_assets.reading import open_lake
    from ego_assets.viewing.footage import ShownClips

    if (save or not mp4) and find_spec("rerun") is None:
        raise click.ClickException(NEEDS_RERUN)
    lake = open_lake(existing_lake(lake_root).location)
    clips = find_clips(lake, name)

    def footage(side: int) -> ShownClips:
        return ShownClips.of(lake, name, clips, max_side_px or side)

    try:
        if mp4:
            from ego_assets.viewing.overlay import write_overlay

            count = write_overlay(footage(1280), mp4, _tell)
            _tell(f"{mp4}: {count:,} frames")
        if save:
            _record(footage(640), save)
            _tell(f"{save}: open it with `rerun {save}`")
        if not (mp4 or save):
            _show(footage(640), port, None if no_open else webbrowser.open)
    except (ValueError, OSError) as error:
        raise click.ClickException(_explained(error, name)) from error


def _explained(error: Exception, name: str) -> str:
    if isinstance(error, FileNotFoundError):
        return (
            f"{name}: its raw video cannot be read: {error}. Put it back, or say where it is now: "
            "`ego run` over its new place"
        )
    return f"{name}: {error}"


def _record(footage: ShownClips, path: Path) -> None:
    from ego_assets.viewing.recording import write_recording

    write_recording(footage, path, _tell)


def _show(footage: ShownClips, port: int, browse: Callable[[str], object] | None) -> None:
    """Serve the recording until Ctrl-C or SIGTERM."""
    from dagster_project.web.viewer import ViewerMissingError, ViewerServer
    from resources.processes.owned_folders import temporary_folder

    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with temporary_folder() as folder:
        recording = folder / "recording.rrd"
        try:
            _record(footage, recording)
            with ViewerServer(recording, folder, port) as server:
                click.echo(f"{footage.name}: {server.url} (Ctrl-C ends it)")
                if browse:
                    browse(server.url)
                server.serve()
        except ViewerMissingError as error:
            raise click.ClickException(
                f"{error}; use --save, and open the file elsewhere"
            ) from error
        except KeyboardInterrupt:
            click.echo("", err=True)


def _tell(words: str) -> None:
    click.echo(plain(words).plain, err=True)
