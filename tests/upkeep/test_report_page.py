"""The pages of a report hold what they are given, and nothing in them runs or breaks out."""

from __future__ import annotations

from html.parser import HTMLParser

from ego_assets.upkeep.reports.page import PageTable, Report, html_page, markdown_page

HOSTILE = (
    '<script>alert("x")</script>',
    "![](http://evil.example/x.png)",
    "[click](javascript:alert(1))",
    "a | b\n\n# heading",
    "`code` *bold* _it_ ~~gone~~ <img src=x onerror=alert(1)>",
    "\x1b[31mred\x00\u202egnp.4pm",
    "broken \udcff name",
    '" onload="alert(1)',
)
PNG = b"\x89PNG not really"


def report() -> Report:
    rows = [(text, 12_345, 0.5) for text in HOSTILE]
    facts = {text: text for text in HOSTILE}
    tables = [
        PageTable(HOSTILE[0], ("what", "n", "x"), rows),
        PageTable("none", ("a",), [], "Empty."),
    ]
    return Report(HOSTILE[0], facts, tables, {HOSTILE[-1]: PNG})


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def tags_of(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    return tags


def test_the_html_is_whole_and_runs_nothing() -> None:
    page = html_page(report())
    tags = tags_of(page)
    names = {name for name, _ in tags.found}
    assert not names & {"script", "link", "iframe", "a", "form", "object"}
    pictures = [a for name, a in tags.found if name == "img"]
    assert [set(a) for a in pictures] == [{"alt", "src"}]
    assert str(pictures[0]["src"]).startswith("data:image/png;base64,")
    assert "default-src 'none'" in page
    assert HOSTILE[0] in tags.text
    assert "12,345" in tags.text
    assert "\x1b" not in page
    page.encode()  # no lone surrogate is left


def test_the_markdown_shows_hostile_text_as_text() -> None:
    from markdown_it import MarkdownIt

    page = markdown_page(report())
    page.encode()
    rendered = tags_of(MarkdownIt("commonmark", {"html": True}).enable("table").render(page))
    names = [name for name, _ in rendered.found]
    assert not set(names) & {"script", "a", "em", "strongcode", "del"}
    assert names.count("img") == 1  # the report's own
    assert names.count("h1") == 1
    assert names.count("tr") == 1 + len(HOSTILE)
    assert HOSTILE[0] in rendered.text
    assert HOSTILE[1] in rendered.text
