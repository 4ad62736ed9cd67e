"""What a run would make each table with, now, if nobody says otherwise: the order of the graph,
what was chosen for a shard, else the default settings of the launchpad forms and the backends of
the deployment.

Here: what staleness is judged by. Not here: the judging (`ego_assets.upkeep.staleness`).
"""

from __future__ import annotations

from ego_assets.catalog import STAGES_OF_A_SHARD
from ego_assets.engine import plan
from ego_assets.engine.choices import Choice, Choices, Part
from ego_assets.graph.backends import Backends
from ego_assets.graph.spec import parts_of
from resources.storage import Storage


class Recipes:
    """What a run would make the tables of a lake with that says nothing itself."""

    def __init__(self, storage: Storage, backends: Backends) -> None:
        """Raises WeightsError, UnknownBackendError for the defaults."""
        self._storage = storage
        self._backends = backends
        self._choices = Choices(storage.lake())
        self._made: dict[str, list[Part]] = {}
        self.default = [self._parts(name, []) for name in STAGES_OF_A_SHARD]

    def of(self, shard: str) -> list[list[Part]]:
        """Of each stage, in the order of the graph, its parts. Raises ChoiceError."""
        return [
            self._parts(name, self._choices.of(stage.operator, shard))
            for name, stage in STAGES_OF_A_SHARD.items()
        ]

    def _parts(self, name: str, choices: list[Choice]) -> list[Part]:
        key = plan.digest(name, [vars(c) for c in choices])
        if key not in self._made:
            self._made[key] = parts_of(
                STAGES_OF_A_SHARD[name], self._storage, self._backends, choices
            )
        return self._made[key]
