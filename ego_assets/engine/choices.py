"""Keeps the settings and backends that a person chose for a shard, as a profile with a name: it
holds for the shard until a run chooses otherwise, so that neither a retry nor a new version of an
operator makes it another way than it was meant.

    <lake>/_choices/{stage}/{shard}.json      only of shards for which something was chosen

Here: what was chosen, kept in the lake, and which takes of a shard it is for. Not here: what counts
as chosen, and what a stage is with it (`ego_assets.graph.spec`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter

from ego_assets.engine.plan import Group, ShardInputs, StageSpec, plan_from
from resources.lake import Lake

FOLDER = "_choices"


class ChoiceError(ValueError):
    """What was chosen for a shard cannot be had any more; the message says what to do."""


@dataclass(frozen=True)
class Choice:
    """What one run chose for a stage, where it is not the default.

    settings: of the launchpad's form; backends: fields of the resource of that name; items: the
    clips or videos that it was for; empty: the whole shard. run_id: of the run; made_at: when, as
    in a `Provenance`; profile: the name that the person gave it.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    backends: Mapping[str, Any] = field(default_factory=dict)
    items: Annotated[tuple[str, ...], Field(alias="units")] = ()
    run_id: str = ""
    made_at: str = ""
    profile: str = ""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    @property
    def is_default(self) -> bool:
        return not (self.settings or self.backends)

    @property
    def name(self) -> str:
        """Return the name of the profile: one without a name has that of its run."""
        if self.is_default:
            return ""
        return self.profile or f"run-{self.run_id[:8]}"

    def __str__(self) -> str:
        return json.dumps(dict(self.settings) | dict(self.backends), sort_keys=True)


_FILE = TypeAdapter(list[Choice])
"""All that was chosen, in its order, also what holds no more: a rollback may want it again."""
KEPT = 20
"""Of those that hold no more."""


class Choices:
    """What was chosen for the shards of a lake. `stage`: the name of its operator."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._known: dict[str, set[str]] = {}

    def of(self, stage: str, shard: str) -> list[Choice]:
        """In the order in which they were made: of a take the last one counts.

        Raises ChoiceError for a file that makes no sense.
        """
        key = _key(stage, shard)
        if stage not in self._known:
            self._known[stage] = set(self._lake.storage.list(f"{FOLDER}/{stage}"))
        if key not in self._known[stage]:
            return []
        return _holding(self._read(stage, shard))

    def shards(self, stage: str) -> list[str]:
        """Return the shards for which something was chosen, as they are listed now."""
        keys = self._lake.storage.list(f"{FOLDER}/{stage}")
        self._known[stage] = set(keys)
        return sorted(key.rpartition("/")[2].removesuffix(".json") for key in keys)

    def _read(self, stage: str, shard: str) -> list[Choice]:
        key = _key(stage, shard)
        try:
            return _FILE.validate_json(self._lake.storage.read(key))
        except FileNotFoundError:  # nothing was chosen, or a run has just gone back to the defaults
            return []
        except ValueError as error:
            uri = self._lake.storage.uri(key)
            raise ChoiceError(
                f"{uri} cannot be read ({error}): delete it, or launch shard "
                f"{shard} with the settings that are wanted"
            ) from error

    def keep(self, stage: str, shard: str, choice: Choice) -> None:
        """From now on this holds: for the whole shard, or for its items only."""
        key = _key(stage, shard)
        with self._lake.storage.lock(f"{FOLDER}.{stage}.{shard}"):
            try:
                made = [*self._read(stage, shard), choice]
            except ChoiceError:
                if choice.items:
                    raise
                made = [choice]
            self._write(key, made)
        self._known.pop(stage, None)

    def go_back(self, stage: str, shard: str, time: str) -> bool:
        """What held then holds again; whether that is something else. Raises ChoiceError."""
        key = _key(stage, shard)
        if not self._read(stage, shard):
            return False
        with self._lake.storage.lock(f"{FOLDER}.{stage}.{shard}"):
            made = self._read(stage, shard)
            before = [c for c in made if c.made_at <= time]
            if before != made:
                self._write(key, before)
        self._known.pop(stage, None)
        return _holding(before) != _holding(made)

    def _write(self, key: str, made: Sequence[Choice]) -> None:
        if all(c.is_default for c in made):
            self._lake.storage.delete(key)
            return
        holding = _holding(made)
        kept = [c for c in made[:-KEPT] if c in holding] + [*made[-KEPT:]]
        self._lake.storage.write(key, _FILE.dump_json(kept, by_alias=True))


@dataclass(frozen=True)
class Part:
    """A stage as takes of a shard are made: those of `items`; empty: all of them. form: the
    settings of its launchpad form; choice: why it is as it is."""

    spec: StageSpec
    items: tuple[str, ...] = ()
    form: Mapping[str, Any] = field(default_factory=dict)
    choice: Choice = Choice()


def share_out(parts: Sequence[Part], inputs: ShardInputs) -> list[tuple[Part, list[Group]]]:
    """Each part with its takes: of those that name a take, the last one has it."""
    found: dict[str, tuple[int, Group]] = {}
    for number, part in enumerate(parts):
        for group in plan_from(part.spec, inputs):
            if not part.items or group.has_any(part.items):
                found[group.items[0].item_id] = (number, group)
    return [(p, [g for n, g in found.values() if n == i]) for i, p in enumerate(parts)]


def _holding(made: Sequence[Choice]) -> list[Choice]:
    """What holds after all of these: what was for the whole shard ends all before it."""
    found: list[Choice] = []
    for choice in made:
        before = found if choice.items else []
        found = [c for c in before if not c.items or set(c.items) - set(choice.items)]
        found.append(choice)
    return [] if all(c.is_default for c in found) else found


def _key(stage: str, shard: str) -> str:
    return f"{FOLDER}/{stage}/{shard}.json"
