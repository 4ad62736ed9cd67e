"""The pages of `docs/` in a browser, for links from the UI to what a check means.

Here: reading, rendering and anchors. Not here: serving (`beside`), what the pages say.
"""

from __future__ import annotations

import re
import sysconfig
from pathlib import Path

from starlette.responses import HTMLResponse, RedirectResponse, Response

from dagster_project.home import ROOT
from dagster_project.web.beside import HEADERS, Answer
from ego_assets.graph.metadata import GUIDE_URL

INSTALLED = "share/doc/ego-assets"
"""Where a wheel puts them, below the environment."""
_NAME = re.compile(r"(adr/)?[a-z0-9][a-z0-9_-]*(\.md)?")
_PICTURE = re.compile(r"pictures/([a-z0-9_-]+)\.(png|jpg|webp)")
_HEADING = re.compile(r"<(h[1-6])>(.*?)</\1>")
_FIRST_CELL = re.compile(r"<tr>\n<td(.*?)</td>", re.DOTALL)
_IDENTIFIER = re.compile(r"<code>([a-z][a-z0-9_]*)</code>")
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 16px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em }}
table {{ border-collapse: collapse }} img {{ max-width: 100% }}
td, th {{ border: 1px solid #ccc; padding: 4px 8px; text-align: left; vertical-align: top }}
code, pre {{ background: #f3f3f3 }} pre {{ padding: 8px; overflow: auto }}
:target {{ background: #fff3bf }}
</style>
{body}</html>
"""


def docs_folder() -> Path | None:
    """The folder of the pages: of a checkout, or of an environment with the wheel."""
    places = (ROOT / "docs", Path(sysconfig.get_path("data")) / INSTALLED)
    return next((place for place in places if (place / "probes.md").is_file()), None)


def guide_of(folder: Path | None) -> Answer:
    """The pages of a folder by name, with or without `.md`, and their pictures."""

    def answer(below: str) -> Response | None:
        if folder is None:
            return None
        if not below:
            return RedirectResponse(f"{GUIDE_URL}/index")  # so that relative links work
        if found := _PICTURE.fullmatch(below):
            return _picture(folder / below, found[2])
        page = folder / f"{below.removesuffix('.md')}.md"
        if not (_NAME.fullmatch(below) and page.is_file()):
            return None
        return HTMLResponse(render(page.read_text(encoding="utf-8")), headers=HEADERS)

    return answer


def _picture(path: Path, extension: str) -> Response | None:
    media = f"image/{'jpeg' if extension == 'jpg' else extension}"
    return Response(path.read_bytes(), 200, HEADERS, media) if path.is_file() else None


def render(markdown: str) -> str:
    """A page as HTML. Headings have anchors, and so have rows of tables that begin with a name."""
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark").enable("table").render(markdown)
    taken: set[str] = set()

    def anchored(name: str) -> str:
        if not name or name in taken:
            return ""
        taken.add(name)
        return f' id="{name}"'

    def heading(found: re.Match[str]) -> str:
        words = re.sub(r"<[^>]*>", "", found[2]).lower()
        name = re.sub(r"[^\w-]", "", words.strip().replace(" ", "-"))
        return f"<{found[1]}{anchored(name)}>{found[2]}</{found[1]}>"

    def row(found: re.Match[str]) -> str:
        name = _IDENTIFIER.search(found[1])
        return f"<tr{anchored(name[1] if name else '')}>\n<td{found[1]}</td>"

    body = _FIRST_CELL.sub(row, _HEADING.sub(heading, body))
    title = re.sub(r"^#\s*", "", markdown.partition("\n")[0])
    return _PAGE.format(title=title, body=body)
