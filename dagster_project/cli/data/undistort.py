"""`ego undistort`: videos as a pinhole camera would have taken them. Not here: work."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dagster_project.cli.names import UnknownNameError, find_video
from dagster_project.cli.terminal import JSON_OPTION, LAKE_OPTION, count_of, existing_lake, plain

if TYPE_CHECKING:
    from ego_assets.videos.calibration.undistorting import UndistortedVideo


@click.command()
@click.argument("videos", nargs=-1, required=True, metavar="VIDEO...")
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the new videos.",
)
@click.option(
    "--max-fov-deg",
    type=click.FloatRange(1, 178),
    default=100.0,
    show_default=True,
    help="Widest angle that is kept, across and down.",
)
@LAKE_OPTION
@JSON_OPTION
def undistort(
    videos: tuple[str, ...], out: Path, max_fov_deg: float, lake_root: str, as_json: bool
) -> None:
    """Write VIDEOs as a pinhole camera would have taken them: straight lines are straight.

    A VIDEO is a file (or s3://bucket/key) with its calibration beside it, or else the name or id of
    a video of the lake. Into --out go NAME.mp4, H.264 in BT.709 with the times of its pictures and
    its sound, NAME.camera.json, so that `ego run` over that folder knows the new camera, and
    NAME.footage.json if something is said of whose footage it is; what has no consent is not
    copied. Files that are there are not written over; originals are never touched.

    Exit status: 0 if all were written, 1 if one was not, 2 if the lake has no such video.
    """
    from ego_assets.videos.calibration.undistorting import undistort as write

    done: list[UndistortedVideo] = []
    failed: dict[str, str] = {}
    for name, source in [(name, _source(name, lake_root)) for name in videos]:
        try:
            done.append(source(out, max_fov_deg, write))
        except (ValueError, OSError) as error:
            failed[name] = str(error)
            if not as_json:
                click.echo(plain(f"not written: {error}").plain, err=True)
        else:
            if not as_json:
                click.echo(plain(_told(done[-1])).plain)
    if as_json:
        click.echo(json.dumps({"written": [asdict(each) for each in done], "failed": failed}))
    sys.exit(1 if failed else 0)


_Write = Callable[..., "UndistortedVideo"]


def _source(name: str, lake_root: str) -> Callable[[Path, float, _Write], UndistortedVideo]:
    """What writes a video that is a file, or else a name in the lake."""
    from ego_assets.consent import NO_CONSENTS, SAID
    from ego_assets.operator import BadInputError
    from ego_assets.videos.calibration.undistorting import calibrated_camera, camera_of_row
    from ego_assets.videos.footage.sidecar import footage_columns
    from resources.raw.reader import RawReader, is_remote, uri_of
    from resources.raw.sidecars import read_footage_sidecars

    if is_remote(name) or os.path.lexists(name):
        uri, row = name if is_remote(name) else uri_of(Path(name).absolute()), None
    else:
        try:
            row = find_video(existing_lake(lake_root), name)
        except UnknownNameError:
            raise
        except click.ClickException as error:
            raise UnknownNameError(f"there is no file {name}, and {error.message}") from error
        uri = row["uri"]

    def undistorted(out: Path, max_fov_deg: float, write: _Write) -> UndistortedVideo:
        stream = row["video_stream_index"] if row else None
        said = footage_columns(read_footage_sidecars(uri))
        if row:
            if row.get("consent") in NO_CONSENTS:
                raise BadInputError(
                    f"{uri}: its consent is {row['consent']} in the lake, so it is not copied"
                )
            said = {k: row.get(k) if said[k] is None else said[k] for k in SAID}
        with RawReader().hold(uri, row["sha256"] if row else None) as path:
            camera = camera_of_row(row) if row else calibrated_camera(path)
            return write(
                path,
                out,
                camera,
                name=Path(uri).stem,
                stream_index=stream,
                max_fov_deg=max_fov_deg,
                footage=said,
            )

    return undistorted


def _told(done: UndistortedVideo) -> str:
    across, down = done.field_of_view_deg
    words = [
        f"{done.video}: {count_of(done.frames, 'frame')}, {done.lens} to a pinhole of "
        f"fx {done.fx:.1f}, fy {done.fy:.1f} px ({across:.0f} x {down:.0f} degrees)"
    ]
    if done.seen_share < 0.9995:
        words.append(f"{100 * (1 - done.seen_share):.1f} % black, which the lens did not see")
    if done.left_out:
        words.append(f"{count_of(done.left_out, 'frame')} left out that do not decode")
    return "; ".join([*words, done.sound])
