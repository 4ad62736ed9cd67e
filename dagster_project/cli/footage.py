"""Commands on footage that goes, or goes elsewhere: forget and relocate.

Here: options, words, exit status. Not here: work.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from dagster_project.cli.names import UnknownNameError
from dagster_project.cli.terminal import (
    JSON_OPTION,
    LAKE_OPTION,
    count_of,
    existing_lake,
    ledger_of,
    plain,
)

if TYPE_CHECKING:
    from ego_assets.intake.relocation import Relocation
    from ego_assets.upkeep.erasure.erase import Erased
    from ego_assets.upkeep.erasure.survey import Survey


@click.command()
@click.argument("videos", nargs=-1, required=True, metavar="VIDEO...")
@LAKE_OPTION
@click.option("--reason", default="", help="Why, for the tombstone; name no person here.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@JSON_OPTION
def forget(videos: tuple[str, ...], lake_root: str, reason: str, yes: bool, as_json: bool) -> None:
    """Erase VIDEOs (ids, or raw files) from the lake and the ledger, for good.

    Rows, arrays, pictures and earlier versions go, and so does what names them. A tombstone stays
    (hash, time, reason), so that the content is never taken in again, whatever it is called. The
    raw file is yours to delete: it is never touched. A video is all files with the same bytes.

    Says what it would erase and asks, unless --yes is given. Interrupted, it goes on when it is
    called again, as `ego verify --repair` does. Exit status: 0 if all is erased, 1 if something is
    left to do, or nothing was done; 2 if there is no such video.
    """
    from ego_assets.upkeep.erasure import erase
    from ego_assets.upkeep.erasure.survey import UnknownVideoError, find_videos, survey

    lake = existing_lake(lake_root)
    ledger = ledger_of(lake)
    try:
        found = [survey(lake, ledger, each) for each in find_videos(lake, ledger, videos)]
    except UnknownVideoError as error:
        raise UnknownNameError(str(error)) from error
    if not as_json:
        for each in found:
            click.echo(plain(_told(each)).plain)
        click.echo("The raw files are not touched.")
    if not yes:
        if as_json:
            click.echo(json.dumps({"erased": [], "would_erase": [asdict(f) for f in found]}))
            sys.exit(1)
        click.confirm("This cannot be taken back. Erase?", abort=True)
    try:
        done = erase_with_dagster(
            lake.location,
            lambda beyond: erase.forget(lake, ledger, found, beyond, reason),
            {shard for each in found for shard in each.left.shards},
        )
    except erase.ForgetError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        content = [
            asdict(each.tombstone)
            | {"shards": each.shards, "counts": dict(each.counts), "warnings": each.warnings}
            for each in done
        ]
        click.echo(json.dumps({"erased": content}))
    else:
        for erased in done:
            click.echo(_done(erased))
        click.echo("Exports that hold it: the same `ego export` again takes it out.")
        for words in sorted({words for each in done for words in each.warnings}):
            click.echo(plain(f"left to do: {words}").plain)
    sys.exit(1 if any(each.warnings for each in done) else 0)


def erase_with_dagster(location: str, erase: Any, shards: set[str]) -> list[Erased]:
    """Erase while no run of these shards is under way, and have Dagster forget, too."""
    from dagster_project.home import erase_in_home, open_instance, runs_under_way
    from ego_assets.upkeep.erasure.erase import ForgetError

    with open_instance(location) as instance:
        for run, of in runs_under_way(instance, shards).items():
            raise ForgetError(
                f"run {run} of shard {of} is under way: wait for it, or terminate it, and forget "
                "again"
            )
        done: list[Erased] = erase(lambda words, of: erase_in_home(instance, words, of))
        return done


def _told(found: Survey) -> str:
    """What would be erased."""
    video, shards = found.tombstone.video_id, sorted(found.left.shards)
    if not shards:
        return f"{video}: the lake holds nothing of it; it will not be taken in"
    counts = ", ".join(count_of(n, what) for what, n in found.counts.items() if n)
    files = "".join(f"\n  {uri}" for uri in found.left.uris)
    shown = count_of(len(shards), "shard")
    return f"{video}: {counts} in {shown}, and all else that is kept of it{files}"


def _done(done: Erased) -> str:
    counts = ", ".join(f"{n:,} {what}" for what, n in done.counts.items() if n)
    where = f" from {count_of(len(done.shards), 'shard')}" if done.shards else ""
    return f"{done.tombstone.video_id} is forgotten: {counts or 'nothing was there'} erased{where}"


@click.command()
@click.argument("old")
@click.argument("new")
@LAKE_OPTION
@click.option("--check-bytes", is_flag=True, help="Read all files, and compare their SHA-256.")
@click.option("--partial", is_flag=True, help="Mend what is there, though some of it is missing.")
@JSON_OPTION
def relocate(
    old: str, new: str, lake_root: str, check_bytes: bool, partial: bool, as_json: bool
) -> None:
    """Say that the raw files below OLD are below NEW now: folders, or s3://bucket/prefix.

    Their rows, and all that was made of them, stay; nothing is computed again. Each file must be
    there, with its calibration and the same size (--check-bytes: the same bytes); else what is
    missing is listed, and nothing is changed. Files are neither moved nor copied. Interrupted, it
    goes on when it is called again.

    Exit status: 0 if all places are mended, 1 if a file is missing or another one, 2 if no file is
    below OLD.
    """
    from ego_assets.intake.relocation import RelocationError
    from ego_assets.intake.relocation import relocate as mend

    lake = existing_lake(lake_root)
    try:
        found = mend(lake, ledger_of(lake), old, new, check_bytes=check_bytes, partial=partial)
    except RelocationError as error:
        raise click.UsageError(str(error)) from error
    if as_json:
        click.echo(json.dumps(asdict(found)))
    else:
        for uri, why in {**found.missing, **found.other}.items():
            click.echo(plain(f"{uri}: {why}").plain)
        click.echo(plain(_relocated(found, new)).plain)
    sys.exit(1 if found.missing or found.other else 0)


def _relocated(found: Relocation, new: str) -> str:
    bad = len(found.missing) + len(found.other)
    if not found.is_done:
        return (
            f"nothing was changed: {count_of(bad, 'file')} of {bad + len(found.found):,} cannot be "
            "found there; copy what is missing, or mend the rest with --partial"
        )
    words = f"{count_of(len(found.found), 'file')} found at {new}, the same videos as before"
    if found.already:
        words += f"; {found.already:,} were there already"
    if bad:
        words += f"; {count_of(bad, 'file')} left as they were"
    if waiting := sum(found.waiting.values()):
        words += f"; {count_of(waiting, 'unit')} waited for them: `ego retry` does them"
    return words


FOOTAGE = (forget, relocate)
