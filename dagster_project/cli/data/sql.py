"""`ego sql`: prints an answer as a table, CSV or JSON. Not here: what may be asked."""

from __future__ import annotations

import atexit
import csv
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Any, TextIO

import click
import pyarrow as pa
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from dagster_project.cli.terminal import LAKE_OPTION, existing_lake, plain
from resources.processes.machine import bounded_growth

if TYPE_CHECKING:
    from resources.lake.catalog import Catalog

TABLE_ROWS = 100
COLUMN_WIDTH = 24
"""Of a column in a table that does not fit the terminal; what is longer is cut."""
_GAP = 3


@click.command()
@click.argument("query")
@LAKE_OPTION
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help=f"Rows at most. [default: {TABLE_ROWS} in a table, all with --json or --csv]",
)
@click.option("--csv", "as_csv", is_flag=True, help="Comma-separated values on stdout.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0),
    default=60,
    show_default=True,
    help="Seconds that it may compute; 0: no limit.",
)
@click.option(
    "--memory-gb",
    type=click.FloatRange(min=0.5),
    default=2,
    show_default=True,
    help="Memory that it may take.",
)
@click.option("--json", "as_json", is_flag=True, help="A JSON array on stdout, a row an object.")
def sql(
    query: str,
    lake_root: str,
    limit: int | None,
    as_csv: bool,
    timeout_s: float,
    memory_gb: float,
    as_json: bool,
) -> None:
    """Run one SELECT over the tables of a lake (DuckDB).

    DESCRIBE, SUMMARIZE, SHOW TABLES and EXPLAIN work, too. Nothing can be written, and nothing but
    the tables can be read. An answer is printed while it is computed.
    """
    from ego_assets.intake.links import records
    from resources.lake.catalog import Catalog
    from resources.lake.statements import QueryError

    if as_csv and as_json:
        raise click.UsageError("choose one of --csv and --json")
    lake = existing_lake(lake_root)
    memory, status = round(memory_gb * 1e9), 0
    limits: Any = {"memory_limit": f"{memory_gb:g}GB", "timeout_s": timeout_s or None}
    beside = {records.TABLE: (records.SCHEMA, records.LinkFiles(lake).table)}
    with bounded_growth(memory), Catalog(lake, beside=beside, **limits) as catalog:
        try:
            answer = catalog.stream(query)
            if as_json:
                write_json(answer, limit, sys.stdout)
            elif as_csv:
                write_csv(answer, limit, sys.stdout)
            else:
                print_table(answer, limit or TABLE_ROWS, Console())
        except (QueryError, MemoryError) as error:
            words = str(error) or f"the answer needs more than the {memory_gb:g} GB it may use"
            click.echo(f"Error: {words}", err=True)
            status = 1
        except KeyboardInterrupt:
            click.echo("Aborted!", err=True)
            status = 130
    if catalog.is_busy:
        atexit.register(_leave, catalog, status)
    sys.exit(status)


def _leave(catalog: Catalog, status: int) -> None:
    """End the process where DuckDB did not stop: its threads would not bear that Python ends."""
    if catalog.is_busy:
        sys.stdout.flush()
        os._exit(status)


def write_json(answer: pa.RecordBatchReader, limit: int | None, out: TextIO) -> None:
    """Write an array of objects, a row a line, as it is computed."""
    names = _unique(answer.schema.names)
    out.write("[")
    for number, row in enumerate(islice(_rows(answer), limit)):
        out.write(",\n" if number else "")
        out.write(_json(dict(zip(names, row, strict=True))))
    out.write("]\n")


def write_csv(answer: pa.RecordBatchReader, limit: int | None, out: TextIO) -> None:
    """Write a line of names and a line for each row; lists are JSON, and null is empty."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(answer.schema.names)
    for row in islice(_rows(answer), limit):
        writer.writerow(["" if v is None else v if isinstance(v, str) else _json(v) for v in row])


def print_table(answer: pa.RecordBatchReader, limit: int, console: Console) -> None:
    """Print the first rows, and the columns that fit the terminal, and say what is left out."""
    names = answer.schema.names
    rows = list(islice(_rows(answer), limit + 1))
    if names == ["explain_key", "explain_value"]:
        for row in rows:
            console.print(plain(row[1]), soft_wrap=True)
        return
    cells = [[_short(value) for value in row] for row in rows[:limit]]
    widths = [
        max(cell_len(text) for text in column)
        for column in zip(*[[plain(n).plain for n in names], *cells], strict=True)
    ]
    if sum(widths) + _GAP * len(widths) > console.width:
        widths = [min(width, COLUMN_WIDTH) for width in widths]
    shown = _fitting(widths, console.width)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False)
    for name, width, kind in zip(names[:shown], widths, answer.schema.types, strict=False):
        is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
        table.add_column(
            plain(name),
            justify="right" if is_number or pa.types.is_decimal(kind) else "left",
            width=min(width, console.width),
            no_wrap=True,
            overflow="ellipsis",
        )
    for cell_row in cells:
        table.add_row(*map(plain, cell_row[:shown]))
    console.print(table)
    if len(rows) > limit:
        console.print(plain(f"the first {limit} rows: --limit shows more, --csv and --json all"))
    if shown < len(names):
        hidden = ", ".join(names[shown:])
        words = f"{shown} of {len(names)} columns: select those you want, or use --csv or --json"
        console.print(plain(f"{words}; not shown: {hidden}"))


def _fitting(widths: list[int], room: int) -> int:
    """How many of the first columns fit; one does, however wide."""
    taken = 0
    for number, width in enumerate(widths):
        taken += width + _GAP
        if taken > room and number:
            return number
    return len(widths)


def _rows(answer: Iterable[pa.RecordBatch]) -> Iterator[tuple[Any, ...]]:
    for batch in answer:
        yield from zip(*map(_values, batch.columns), strict=True)


def _values(column: pa.Array) -> list[Any]:
    """A column as Python's objects; vectors of numbers far faster than `to_pylist` makes them."""
    kind, sizes, flat = column.type, [], column
    while pa.types.is_fixed_size_list(kind):
        sizes.append(kind.list_size)
        kind, flat = kind.value_type, flat.flatten()  # leaves out what is null
    present = len(column) - column.null_count
    is_number = pa.types.is_floating(kind) or pa.types.is_integer(kind)
    if not sizes or not is_number or flat.null_count or len(flat) != present * math.prod(sizes):
        plain: list[Any] = column.to_pylist()
        return plain
    vectors = iter(flat.to_numpy().reshape(present, *sizes).tolist())
    return [next(vectors) if valid else None for valid in column.is_valid().to_pylist()]


def _unique(names: list[str]) -> list[str]:
    """Names of columns as keys of an object: the second `x` is `x_1`."""
    found: list[str] = []
    for name in names:
        number, key = 0, name
        while key in found:
            number += 1
            key = f"{name}_{number}"
        found.append(key)
    return found


def _json(value: Any) -> str:
    try:
        return json.dumps(value, default=_number_or_text, allow_nan=False)
    except ValueError:  # JSON has no word for infinity, nor for what is no number
        return json.dumps(_without_nan(value), default=_number_or_text)


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: _without_nan(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    return value


def _number_or_text(value: Any) -> Any:
    """What JSON has no word for; a sum of integers comes as a Decimal."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value.hex() if isinstance(value, bytes) else str(value)


def _short(value: Any) -> str:
    """A value in a cell: floats with few digits, on one line."""
    if value is None:
        return "NULL"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str):
        text = value
    elif isinstance(value, list | tuple):
        text = f"[{', '.join(_short(v) for v in value[:COLUMN_WIDTH])}"
        text += "]" if len(value) <= COLUMN_WIDTH else ", …]"
    elif isinstance(value, dict):
        text = f"{{{', '.join(f'{k}: {_short(v)}' for k, v in value.items())}}}"
    else:
        text = str(_number_or_text(value))
    text = plain(text).plain.replace("\n", "\\n").replace("\t", "\\t")
    return text if len(text) <= 200 else f"{text[:199]}…"
