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
    """What is known of an episode.

    uri, stream_index: where its pictures are; start_frame, end_frame, start_pts_s, end_pts_s: which
    of them (`ego_assets.reading.read_frames` reads them); objects: labels of what is held or
    touched, the longest first; is_moved: whether any of it changes its place; sides: of the hands
    that are seen; task: what a person says is done in the video.
    """

    video_id: str
    uri: str
    stream_index: int
    start_frame: int
    end_frame: int
    start_pts_s: float
    end_pts_s: float
    objects: Sequence[str]
    is_moved: bool
    sides: Sequence[str]
    task: str | None = None


EPISODE_PLACE = ("video_id", "start_frame", "end_frame", "start_pts_s", "end_pts_s")
"""Facts that are columns of `episodes`."""
PLACES = ("verb", "Verb", "objects", "hands")
"""What a template may name, in braces."""
Captioner = Callable[[EpisodeFacts], str]


@dataclass(frozen=True)
class Instruction:
    """The words of an episode, and what they are made from."""

    text: str
    source: str


def instruction(
    facts: EpisodeFacts, with_objects: str, without: str, captioner: str = ""
) -> Instruction:
    """Take what a person says, else ask a captioner, else fill in a template. Raises BadInputError
    for a captioner that is not installed or says nothing."""
    if facts.task:
        return Instruction(facts.task, "sidecar")
    if captioner:
        text = find_captioner(captioner)(facts).strip()
        if not text:
            raise BadInputError(f"captioner {captioner!r} says nothing of {facts}")
        return Instruction(text, captioner)
    template = with_objects if facts.objects else without
    verb = "move" if facts.is_moved else "hold"
    listed = _listed([_plain(name) for name in facts.objects])
    said = (verb, verb.capitalize(), listed, _hands(facts.sides))
    values = dict(zip(PLACES, said, strict=True))
    return Instruction(
        template.format_map(values), "object_movements" if facts.objects else "hand_poses"
    )


def check_template(template: str) -> str:
    """A template as it is. Raises ValueError if it says nothing, cannot be read, or has anything in
    braces but the name of a place."""
    try:
        fields = [
            (name, spec, conversion) for _, name, spec, conversion in Formatter().parse(template)
        ]
    except ValueError as error:
        raise ValueError(f"{template!r} is no template: {error}") from error
    named = [field for field in fields if field[0] is not None]
    if unknown := sorted({str(name) for name, *_ in named} - set(PLACES)):
        raise ValueError(
            f"{template!r} names {', '.join(map(repr, unknown))}; there are {', '.join(PLACES)}"
        )
    if any(spec or conversion for _, spec, conversion in named):
        raise ValueError(f"{template!r}: a place is a name in braces, and nothing else")
    if not template.strip():
        raise ValueError("the template says nothing")
    return template


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


def version_of(captioner: str) -> str:
    """The package that brings a captioner, and its version; empty if it is not installed."""
    points = metadata.entry_points(group=CAPTIONERS_GROUP, name=captioner)
    packages = [point.dist for point in points if point.dist is not None]
    return " ".join(f"{p.name} {p.version}" for p in packages)


def _plain(label: str) -> str:
    return label.replace("_", " ")


def _hands(sides: Sequence[str]) -> str:
    return f"{sides[0]} hand" if len(sides) == 1 else "hands"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
