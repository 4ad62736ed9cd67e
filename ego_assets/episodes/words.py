"""Says in words what is done in an episode.

Here: the template, and captioners of other packages. Not here: which stretch is an episode.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from string import Formatter

from ego_assets.operator import BadInputError

CAPTIONERS_GROUP = "ego_assets.captioners"


@dataclass(frozen=True)
class EpisodeFacts:
    """What the tables know: labels of what is held or touched, the longest first; whether any of it
    changes its place; sides of the hands that are seen."""

    video_id: str
    start_pts_s: float
    end_pts_s: float
    objects: Sequence[str]
    is_moved: bool
    sides: Sequence[str]


Captioner = Callable[[EpisodeFacts], str]


@dataclass(frozen=True)
class Words:
    """The words of an episode, and what they are made from."""

    text: str
    source: str


def instruction(facts: EpisodeFacts, with_objects: str, without: str, captioner: str = "") -> Words:
    """Fill in a template, or ask a captioner. Raises BadInputError for a template that cannot be
    filled in, and a captioner that is not installed or says nothing."""
    if captioner:
        text = find_captioner(captioner)(facts).strip()
        if not text:
            raise BadInputError(f"captioner {captioner!r} says nothing of {facts}")
        return Words(text, captioner)
    template = with_objects if facts.objects else without
    verb = "move" if facts.is_moved else "hold"
    values = {
        "verb": verb,
        "Verb": verb.capitalize(),
        "objects": _listed([_plain(name) for name in facts.objects]),
        "hands": _hands(facts.sides),
    }
    try:
        unknown = {name for _, name, _, _ in Formatter().parse(template) if name is not None}
        unknown -= set(values)
    except ValueError as error:
        raise BadInputError(f"the template {template!r} cannot be read: {error}") from error
    if unknown:
        raise BadInputError(
            f"the template {template!r} names {sorted(unknown)}; there are {sorted(values)}"
        )
    text = template.format_map(values)
    return Words(text, "object_movements" if facts.objects else "hand_poses")


def find_captioner(name: str) -> Captioner:
    """An installed captioner. Raises BadInputError, which lists those that there are."""
    points = {p.name: p for p in metadata.entry_points(group=CAPTIONERS_GROUP)}
    if name not in points:
        known = ", ".join(sorted(points)) or "none"
        raise BadInputError(
            f"no installed package brings a captioner {name!r} (entry points of "
            f"{CAPTIONERS_GROUP}); there are: {known}"
        )
    found: Captioner = points[name].load()
    return found


def _plain(label: str) -> str:
    return label.replace("_", " ")


def _hands(sides: Sequence[str]) -> str:
    return f"{sides[0]} hand" if len(sides) == 1 else "hands"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
