"""`ego ingest`: fetches links into the raw lake, and shows what came of them.

Here: options, words, exit status. Not here: work.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from dagster_project.cli.data.options import given_settings, options_of
from dagster_project.cli.terminal import (
    JSON_OPTION,
    LAKE_OPTION,
    RAW_OPTION,
    count_of,
    existing_lake,
    hanging,
    plain,
)
from ego_assets.intake.links.settings import IngestSettings
from resources.lake import Lake

STATES = ("done", "pending", "failed", "refused")


@click.command()
@click.argument("links", nargs=-1, metavar="[LIST|URL]...")
@RAW_OPTION
@LAKE_OPTION
@click.option("--status", "only_status", is_flag=True, help="Fetch nothing; show what came of all.")
@click.option("--failures", "shown", default=50, show_default=True, help="List at most this many.")
@click.option("--yt-dlp", "with_pages", is_flag=True, help="Links of web pages, too, with yt-dlp.")
@click.option(
    "--cookies",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File of cookies, in Netscape's format.",
)
@click.option("--allow-private", is_flag=True, help="Fetch from private addresses, too.")
@options_of(IngestSettings)
@JSON_OPTION
def ingest(
    links: tuple[str, ...],
    place: str,
    lake_root: str,
    only_status: bool,
    shown: int,
    with_pages: bool,
    cookies: Path | None,
    allow_private: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Fetch videos from links (http, https) into the raw lake, for `ego run` to take in.

    A LIST is a text file, a link a line, or CSV, JSONL or Parquet with a column url and, as you
    like, sha256, name, source, person, consent, license, site, device, task. What came of each link
    is the table `links` of `ego sql`.

    Stopped or killed, the same command goes on; what is there is not fetched again, what failed is
    tried again. Exit status: 0 if all videos are there, 1 if not, 2 if the command makes no sense.
    """
    from ego_assets.intake.links.ingest import Rules, ingest
    from ego_assets.intake.links.lists import ListError, read_links
    from ego_assets.intake.links.outcome import IngestError
    from ego_assets.intake.links.records import LinkFiles

    if only_status == bool(links):
        raise click.UsageError("give links, or lists of them; or --status alone")
    settings = given_settings(IngestSettings, options)
    faults, notes, asked, there = [], [], None, 0
    try:
        if only_status:
            lake = existing_lake(lake_root)
        else:
            lake, found = Lake(lake_root), read_links(links)
            faults, notes, asked = found.faults, found.notes, set(found.links)
            rules = Rules(settings, allow_private, with_pages, cookies)
            with _bar(len(found.links)) as tell:
                there = ingest(found.links.values(), place, lake, rules, tell).there
    except ListError as error:
        raise click.UsageError(str(error)) from error
    except (IngestError, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    rows = LinkFiles(lake).newest()
    told = [row for i, row in rows.items() if asked is None or i in asked]
    for note in notes:
        click.echo(plain(note).plain, err=True)
    counts = Counter[str](row.state for row in told)
    bad = [row for row in sorted(told, key=lambda r: r.url) if row.state in ("failed", "refused")]
    if as_json:
        listed = [asdict(row) for row in bad[:shown]]
        known = {state: counts[state] for state in STATES}
        click.echo(json.dumps(known | {"there_before": there, "faults": faults, "links": listed}))
    else:
        _show(counts, [asdict(row) for row in bad], shown, faults, there)
    sys.exit(1 if faults or sum(counts.values()) > counts["done"] else 0)


@contextmanager
def _bar(total: int) -> Iterator[Callable[[Any], None]]:
    """Show a bar on a terminal, and elsewhere nothing."""
    console = Console(stderr=True)
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("fetching", total=total)
        yield lambda row: bar.advance(task)


def _show(
    counts: Mapping[str, int],
    bad: list[dict[str, Any]],
    shown: int,
    faults: list[str],
    there: int,
) -> None:
    console = Console()
    words = ", ".join(f"{counts[s]:,} {s}" for s in STATES if counts.get(s))
    before = f" ({there:,} of them there before)" if there else ""
    console.print(plain(f"{count_of(sum(counts.values()), 'link')}: {words}{before}"))
    for fault in faults[:shown]:
        console.print(plain(hanging(f"left out: {fault}", 2, console.width)), soft_wrap=True)
    for row in bad[:shown]:
        console.print(plain(f"{row['state']}: {row['url']}"), soft_wrap=True)
        told = hanging(f"  {row['reason']}", 2, console.width)
        console.print(plain(f"{told}"), soft_wrap=True)
    if len(bad) > shown:
        console.print(plain(f"and {len(bad) - shown:,} more: --failures {len(bad)} lists all"))
    if counts.get("failed") or counts.get("pending"):
        console.print(plain("Run `ego ingest` with the same list to go on with them."))
    elif counts.get("done"):
        console.print(plain("Run `ego run RAW` to take them in."))
