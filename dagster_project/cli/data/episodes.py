"""Commands that say what footage is good for: yield, reviews.

Here: options, words, exit status. Not here: work.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from dagster_project.cli.names import SHARDS_OPTION, check_shards
from dagster_project.cli.terminal import JSON_OPTION, LAKE_OPTION, count_of, existing_lake, plain

if TYPE_CHECKING:
    from ego_assets.episodes.waterfall import Waterfall


@click.command("yield")
@LAKE_OPTION
@SHARDS_OPTION
@JSON_OPTION
def yield_(lake_root: str, shards: tuple[str, ...], as_json: bool) -> None:
    """Show how much footage becomes episodes, and which rule drops the rest.

    Every second of footage counts once: it is kept, or the first rule that drops it has it.
    """
    from ego_assets.episodes.waterfall import waterfall_of
    from ego_assets.reviews.standing import Standing

    lake = existing_lake(lake_root)
    check_shards(lake, shards)
    found, made = waterfall_of(lake, shards)
    reviews = Standing(lake).counts("episode", made)
    if as_json:
        about = {"lake": lake.location, "shards": made, "reviews": asdict(reviews)}
        click.echo(json.dumps(about | found.as_json()))
        return
    if not made:
        click.echo(
            f"nothing has been made into episodes in {lake.location}: `ego run` does it, or a "
            "materialization of their group in the UI"
        )
        return
    show_waterfall(found, f"yield of {lake.location}", Console())
    if found.episodes:
        counts = [f"{reviews.judged:,} judged", f"{reviews.rejected:,} of them rejected"]
        if reviews.out_of_date:
            counts.append(f"{reviews.out_of_date:,} to judge again, because they have changed")
        click.echo(f"{', '.join(counts)} (`ego up` has a page for it: /review)")


def show_waterfall(found: Waterfall, title: str, console: Console) -> None:
    """Print what each rule drops, and what is kept."""
    table = Table(title=plain(title))
    table.add_column("")
    for name in ("time", "share", "left"):
        table.add_column(name, justify="right")
    left = found.total_s
    table.add_row("all footage", _span(left), "100.0 %", "")
    for name, lost in found.seconds.items():
        if lost and name != "kept":
            left -= lost
            table.add_row(name, f"-{_span(lost)}", _share(lost, found.total_s), _span(left))
    table.add_row("kept", _span(found.kept_s), _share(found.kept_s, found.total_s), "")
    console.print(table)
    console.print(f"{count_of(found.episodes, 'episode')} of {count_of(found.videos, 'video')}")
    if found.said:
        _show_said(found, console)


MOST_SHOWN = 10
"""Values of each column of what files beside videos say."""


def _show_said(found: Waterfall, console: Console) -> None:
    """Print time and kept time by person, site, consent and license."""
    table = Table()
    table.add_column("by")
    table.add_column("", overflow="fold")
    for name in ("time", "kept"):
        table.add_column(name, justify="right")
    for column, sums in found.said.items():
        table.add_section()
        shown = list(sums.items())[:MOST_SHOWN]
        for index, (value, (footage, kept)) in enumerate(shown):
            table.add_row("" if index else column, plain(value), _span(footage), _span(kept))
        if left := len(sums) - len(shown):
            table.add_row("", f"{left:,} others (`--json` has them)", "", "")
    console.print(table)


def _span(seconds: float) -> str:
    """Hours for what is long, seconds for what is not."""
    return f"{seconds / 3600:,.2f} h" if abs(seconds) >= 3600 else f"{seconds:,.1f} s"


def _share(part: float, whole: float) -> str:
    return f"{part / whole if whole else 0:.1%}".replace("%", " %")


@click.command()
@LAKE_OPTION
@JSON_OPTION
def reviews(lake_root: str, as_json: bool) -> None:
    """List what people said of episodes and clips at the page /review of `ego up`.

    A review is out of date once its episode or clip has other rows than those that were judged: it
    has no effect then. `gone`: there is no such episode or clip any more.
    """
    from ego_assets.reviews.standing import SWAPPED, reviews_table

    lake = existing_lake(lake_root)
    rows = reviews_table(lake).to_pylist()
    if as_json:
        click.echo(json.dumps({"lake": lake.location, "reviews": rows}))
        return
    if not rows:
        click.echo(f"nobody has judged anything in {lake.location}: `ego up` has a page, /review")
        return
    table = Table(title=plain(f"reviews in {lake.location}"))
    # A name that a person copies is whole.
    table.add_column("episode or clip", min_width=max(len(row["subject"]) for row in rows))
    for name in ("what was said", "when (UTC)"):
        table.add_column(name, overflow="fold")
    for row in rows:
        by = f" by {row['reviewer']}" if row["reviewer"] else ""
        swapped = SWAPPED if row["side_swap"] else ""
        said = f"{row['verdict']}ed{by}", row["reason"], swapped
        state = "" if row["state"] == "current" else f" ({row['state']})"
        when = row["time"][:16].replace("T", " ")
        words = f"{'; '.join(filter(None, said))}{state}"
        table.add_row(*map(plain, (row["subject"], words, when)))
    Console().print(table)


EPISODES = (yield_, reviews)
