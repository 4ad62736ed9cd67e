"""`ego probes`: what the quality probes ask, and how often they are right.

Here: options, words, exit status. Not here: work.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from dagster_project.cli.terminal import JSON_OPTION, LAKE_OPTION, count_of, existing_lake, plain

if TYPE_CHECKING:
    from ego_assets.reviews.precision import ProbePrecision


@click.command()
@LAKE_OPTION
@click.option(
    "--against-reviews",
    is_flag=True,
    help="Compare each probe with what people said at the page /review of `ego up`.",
)
@JSON_OPTION
def probes(lake_root: str, against_reviews: bool, as_json: bool) -> None:
    """List the quality probes, or compare them with what people said of clips and episodes.

    With --against-reviews: of what a probe names and somebody judged, the share that was rejected
    (its precision, with the 95 % interval), and the share of what was rejected that it names (its
    recall). A probe that asks for one fault does not find others, so its recall may be low.
    """
    if not against_reviews:
        _list(as_json)
        return
    from ego_assets.reviews.precision import probes_against_reviews

    lake = existing_lake(lake_root)
    found = probes_against_reviews(lake)
    if as_json:
        about = {"lake": lake.location, "probes": [_as_json(each) for each in found]}
        click.echo(json.dumps(about))
        return
    if not found:
        click.echo(
            f"nobody has judged anything in {lake.location} that a probe looks at and that is "
            "unchanged since: `ego up` has a page, /review"
        )
        return
    _show(found, f"probes against reviews in {lake.location}")


def _list(as_json: bool) -> None:
    from ego_assets.catalog import all_probes

    found = all_probes()
    if as_json:
        names = ("table", "name", "severity", "describe")
        click.echo(json.dumps({"probes": [{n: getattr(p, n) for n in names} for p in found]}))
        return
    table = Table(title="quality probes")
    for name in ("table", "probe", "severity"):
        table.add_column(name, overflow="fold")
    for each in found:
        table.add_row(*map(plain, (each.table, each.name, each.severity)))
    Console().print(table)


def _show(found: list[ProbePrecision], title: str) -> None:
    table = Table(title=plain(title))
    table.add_column("probe", overflow="fold")
    for name in ("named", "rejected", "precision", "recall"):
        table.add_column(name, justify="right")
    naming = [each for each in found if each.named]
    for each in sorted(naming, key=lambda each: (-(each.precision or 0.0), -each.named)):
        low, high = each.precision_interval or (0.0, 1.0)
        precision = f"{each.precision or 0:.0%} ({low:.0%} to {high:.0%})".replace("%", " %")
        recall = "" if each.recall is None else f"{each.recall:.0%}".replace("%", " %")
        table.add_row(
            plain(f"{each.table}: {each.probe}"),
            f"{each.named:,}",
            f"{each.hits:,}",
            precision,
            recall,
        )
    if naming:
        Console().print(table)
    most = max(found, key=lambda each: each.judged)
    said = f"of {count_of(most.judged, 'verdict')} that count, {most.rejected:,} are rejections"
    click.echo(f"{said}: a probe that is any good names more of those than of the others")
    if silent := len(found) - len(naming):
        click.echo(f"{count_of(silent, 'probe')} named nothing of what was judged")


def _as_json(each: ProbePrecision) -> dict[str, Any]:
    derived = ("precision", "precision_interval", "recall")
    return asdict(each) | {name: getattr(each, name) for name in derived}
