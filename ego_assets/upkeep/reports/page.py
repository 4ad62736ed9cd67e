"""The report of a day or a week: what it holds, and its pages in Markdown and HTML.

Here: plain records, and text made of them. Names of files and messages of errors may hold anything:
they are escaped. Not here: gathering (`ego_assets.upkeep.reports.gather`), drawing (`plots`).
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ego_assets.vision.plots import data_uri

CELL_CHARACTERS = 200


@dataclass(frozen=True)
class PageTable:
    """A table of a page; `note` is said where there are no rows."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[object]]
    note: str = "Nothing."


@dataclass(frozen=True)
class Report:
    """What a page says: a title, facts in a line each, tables, and pictures ({title: PNG})."""

    title: str
    facts: Mapping[str, str]
    tables: Sequence[PageTable]
    pictures: Mapping[str, bytes] = field(default_factory=dict)


def markdown_page(report: Report) -> str:
    """For the Dagster UI, and wherever Markdown is read; pictures are inside as data."""
    lines = [f"# {_md(report.title)}", ""]
    lines += [f"- {_md(name)}: **{_md(value)}**" for name, value in report.facts.items()]
    for table in report.tables:
        lines += ["", f"## {_md(table.title)}", ""]
        if not table.rows:
            lines.append(_md(table.note))
            continue
        lines += [f"| {' | '.join(_md(c) for c in table.columns)} |"]
        lines += [f"|{' --- |' * len(table.columns)}"]
        lines += [f"| {' | '.join(_md(_cell(c)) for c in row)} |" for row in table.rows]
    for title, picture in report.pictures.items():
        lines += ["", f"![{_md(title)}]({data_uri(picture)})"]
    return "\n".join(lines) + "\n"


def html_page(report: Report) -> str:
    """One file that needs nothing else and runs nothing."""
    facts = "".join(f"<li>{_h(n)}: <b>{_h(v)}</b></li>" for n, v in report.facts.items())
    parts = [f"<h1>{_h(report.title)}</h1><ul>{facts}</ul>"]
    for title, picture in report.pictures.items():
        source = data_uri(picture)
        parts.append(f'<p><img alt="{_h(title)}" src="{source}"></p>')
    for table in report.tables:
        parts.append(f"<h2>{_h(table.title)}</h2>")
        if not table.rows:
            parts.append(f"<p>{_h(table.note)}</p>")
            continue
        head = "".join(f"<th>{_h(c)}</th>" for c in table.columns)
        rows = "".join(
            "<tr>" + "".join(f"<td>{_h(_cell(c))}</td>" for c in row) + "</tr>"
            for row in table.rows
        )
        parts.append(f"<table><tr>{head}</tr>{rows}</table>")
    return _HTML.format(title=_h(report.title), body="\n".join(parts))


_HTML = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
body {{ font: 14px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 62em; padding: 0 1em }}
table {{ border-collapse: collapse }}
td, th {{ border-bottom: 1px solid #ccc; padding: .2em .8em .2em 0; text-align: left;
 vertical-align: top; overflow-wrap: break-word }}
img {{ max-width: 100% }}
</style></head><body>
{body}
</body></html>
"""


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.3g}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)


def _plain(text: str) -> str:
    """One line without control characters and lone surrogates (names of files may have them)."""
    text = text.encode("utf-8", "replace").decode()
    text = " ".join(
        re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", " ", text).split()
    )
    return text if len(text) <= CELL_CHARACTERS else f"{text[: CELL_CHARACTERS - 1]}…"


def _h(text: str) -> str:
    return html.escape(_plain(text))


def _md(text: str) -> str:
    # HTML first: Markdown lets it through.
    return re.sub(r"([\\`*_{}\[\]()#+!|~])", r"\\\1", html.escape(_plain(text), quote=False))
