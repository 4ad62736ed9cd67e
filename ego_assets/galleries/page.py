"""Writes the page of a shard's gallery: plain HTML without scripts, with relative links.

Not here: what is told of a clip (`gallery`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from ego_assets.viewing.states import ABSENT, INVALID, KINDS, STATE_COLORS, VALID
from ego_assets.vision import draw


@dataclass(frozen=True)
class Trouble:
    """Something that is wrong. severity: `error` or `warn`."""

    severity: str
    words: str


@dataclass
class Card:
    """What is told of a clip. stem: of the names of its video and poster; empty without; fault:
    why there is no video."""

    clip: str
    facts: Sequence[tuple[str, str]]
    troubles: tuple[Trouble, ...]
    stem: str = ""
    fault: str = ""

    @property
    def fails(self) -> bool:
        return bool(self.troubles)

    @property
    def order(self) -> tuple[int, str]:
        """Errors first, then warnings, then by name."""
        severities = {trouble.severity for trouble in self.troubles}
        return 0 if "error" in severities else 1 if severities else 2, self.clip


_LATER = "<!-- later -->"
_STYLE = """
body { font: 15px/1.45 sans-serif; margin: 0 auto; max-width: 1400px; padding: 0 16px;
  background: #181a1d; color: #e6e6e6 }
h1 { font-size: 22px } h2 { font-size: 15px; margin: 8px 0; overflow-wrap: anywhere }
a { color: #8cc8ff } ul { margin: 6px 0; padding-left: 20px }
.legend span { display: inline-block; margin-right: 16px }
.legend i { display: inline-block; width: 13px; height: 13px; margin-right: 6px;
  vertical-align: -2px }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(420px, 100%), 1fr));
  gap: 16px }
.card { background: #24272b; padding: 10px; border-top: 4px solid #5a6068 }
.card.error { border-top-color: #d55e00 } .card.warn { border-top-color: #e69f00 }
video { width: 100%; background: black } dl { margin: 8px 0 0; font-size: 13px }
dt { float: left; clear: left; width: 90px; color: #a9b0b8 } dd { margin-left: 96px }
.trouble { font-size: 14px; overflow-wrap: anywhere }
.trouble li::marker { content: "▲ " } .trouble .error { color: #ff9a4d }
.trouble .warn { color: #ffc85a }
.none, .later { color: #a9b0b8 }
"""


def gallery_page(shard: str, cards: Sequence[Card], general: Sequence[Trouble]) -> str:
    """The page. general: what is wrong with the shard, and of no clip that has a card."""
    ordered = sorted(cards, key=lambda card: card.order)
    failing = sum(card.fails for card in cards)
    title = f"Clips of shard {shard}"
    told = "the clips with failures come first" if failing else "none with failures"
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        f"<p>{len(cards)} clip{'s' * (len(cards) != 1)}, {failing} with failures: {told}.</p>"
        if cards
        else "<p>The shard has no clips.</p>",
        *_troubles(general),
        f'{_LATER}<p class="later">What is made after this page, as episodes are, is not in it. '
        "<code>ego up</code> shows it with those failures, <code>ego status</code> lists them.</p>",
        '<p class="legend">',
        *_legend(),
        '</p><div class="cards">',
        *(_card(card) for card in ordered),
        "</div></body></html>\n",
    ]
    return "\n".join(parts)


def with_later(page: str, troubles: Iterable[Trouble]) -> str:
    """A page with what went wrong after it was made, in place of the words where to look."""
    before, mark, after = page.partition(_LATER)
    if not mark:
        return page  # of an older release
    new = [each for each in troubles if f">{escape(each.words)}</li>" not in before]
    return "\n".join([before, *_troubles(new), after.partition("</p>")[2]])


def _legend() -> Iterator[str]:
    for color, words in draw.SIDES:
        yield _patch(color, words)
    yield _patch(draw.WHITE, "joints")
    for axis, color in draw.AXES.items():
        yield _patch(color, f"{axis} axis of an object")
    yield "<span>an object has a colour of its own, and its name at its box</span><br>"
    yield f"<span>lanes below a picture, from above: {', '.join(KINDS)}:</span>"
    yield _patch(STATE_COLORS[VALID], VALID)
    yield _patch(STATE_COLORS[INVALID], f"{INVALID}; the picture has a frame of this colour, too")
    yield _patch(STATE_COLORS[ABSENT], ABSENT)


def _patch(color: Sequence[int], words: str) -> str:
    return f'<span><i style="background: rgb{tuple(color)}"></i>{escape(words)}</span>'


def _troubles(troubles: Sequence[Trouble]) -> Iterator[str]:
    if troubles:
        lines = (f'<li class="{_level(t)}">{escape(t.words)}</li>' for t in troubles)
        yield f'<ul class="trouble">{"".join(lines)}</ul>'


def _level(trouble: Trouble) -> str:
    return "error" if trouble.severity == "error" else "warn"


def _card(card: Card) -> str:
    level = _level(min(card.troubles, key=lambda t: t.severity)) if card.troubles else ""
    if card.stem:
        stem = escape(card.stem)
        shown = (
            f'<video controls muted loop playsinline preload="none" poster="{stem}.jpg" '
            f'src="{stem}.mp4"></video>'
        )
    else:
        shown = (
            f'<p class="none">{escape(f"no video: {card.fault}" if card.fault else "no video")}</p>'
        )
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(said)}</dd>" for name, said in card.facts)
    return "\n".join(
        [
            f'<div class="card {level}" id="{escape(card.clip)}">',
            f"<h2>{escape(card.clip)}</h2>{shown}",
            *_troubles(card.troubles),
            f"<dl>{facts}</dl></div>",
        ]
    )
