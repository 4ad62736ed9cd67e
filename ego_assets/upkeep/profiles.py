"""Lists the settings and backends that a person chose for shards, and that hold.

Here: reading them all, of which there may be one for each shard and stage. Not here: how they are
kept (`ego_assets.engine.choices`), words on a terminal.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from ego_assets.catalog import STAGES
from ego_assets.engine.choices import ChoiceError, Choices
from ego_assets.upkeep.overview import BUDGET_S, READERS
from resources.lake import Lake

Chosen = list[dict[str, Any]]


@dataclass(frozen=True)
class Profiles:
    """What was chosen for shards, by (stage, shard); empty where only defaults hold. not_read: of
    how many shards and stages there was no time to read it."""

    chosen: Mapping[tuple[str, str], Chosen] = field(default_factory=dict)
    not_read: int = 0

    @property
    def rows(self) -> Chosen:
        return [row for rows in self.chosen.values() for row in rows]


def read_profiles(lake: Lake, known: Profiles, budget_s: float = BUDGET_S) -> Profiles:
    """Read what was chosen for shards. Ends soon after `budget_s`, whatever is left to read.

    known: what was read before, and is not read again while its file is there.
    """
    until = time.monotonic() + budget_s
    choices = Choices(lake)

    def read(place: tuple[str, str]) -> Chosen | None:
        if place in known.chosen:
            return known.chosen[place]
        return None if time.monotonic() > until else _rows(choices, *place)

    stages = list(dict.fromkeys(stage.operator for stage in STAGES.values()))
    with ThreadPoolExecutor(READERS) as readers:
        listed = zip(stages, readers.map(choices.shards, stages), strict=True)
        places = [(stage, shard) for stage, shards in listed for shard in shards]
        found = dict(zip(places, readers.map(read, places), strict=True))
    chosen = {place: rows for place, rows in found.items() if rows is not None}
    return Profiles(chosen, len(found) - len(chosen))


def _rows(choices: Choices, stage: str, shard: str) -> Chosen:
    place = {"stage": stage, "shard": shard}
    try:
        held = choices.of(stage, shard)
    except ChoiceError as error:
        return [place | {"name": "unreadable", "settings": str(error)}]
    return [
        place
        | {
            "name": choice.name,
            "only": list(choice.items),
            "settings": dict(choice.settings) | dict(choice.backends),
            "run": choice.run_id,
        }
        for choice in held
        if not choice.is_default
    ]
