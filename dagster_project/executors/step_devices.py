"""Which steps of a run need no device, whatever their tags say: those of stages whose backends, as
the run and its shards choose them, compute on the CPU.

A tag is the same for every run; the backend is not: it is named in the launchpad, in the file of
EGO_BACKENDS, or was chosen for a shard before. Here: what is chosen. Not here: what a step takes
(`step_needs`), who gets a device (`device_queue`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import dagster as dg

from ego_assets.catalog import STAGES
from ego_assets.engine.choices import Choice, Choices
from ego_assets.feature import Stage
from ego_assets.graph.backends import Backends
from ego_assets.graph.partitions import shards_of_run
from ego_assets.graph.spec import as_launched, form_of
from ego_assets.graph.stage import BACKENDS, choice_of_run, needs_device
from resources.compute import Compute
from resources.storage import Storage

RESOURCES = ("storage", "compute", BACKENDS)


def steps_without_device(
    job: dg.JobDefinition, run: dg.DagsterRun, instance: dg.DagsterInstance, keys: Iterable[str]
) -> dict[str, str]:
    """Return {step: names of its backends} of those that need no device.

    Raises whatever is wrong with what is chosen.
    """
    stages = {key: STAGES[key] for key in keys if key in STAGES}
    if not stages or not all(name in job.resource_defs for name in RESOURCES):
        return {}
    given: Any = run.run_config.get("resources") or {}
    config = {name: given[name] for name in RESOURCES if name in given}
    definitions = {name: job.resource_defs[name] for name in RESOURCES}
    with dg.build_resources(definitions, instance=instance, resource_config=config) as made:
        look = _Look(job, run, instance, made.storage, made.compute, getattr(made, BACKENDS))
        found = {key: look.backends(stage) for key, stage in stages.items()}
        return {
            key: ", ".join(sorted(names))
            for key, names in found.items()
            if not any(needs_device(stages[key].operator, n, made.compute) for n in names)
        }


class _Look:
    def __init__(
        self,
        job: dg.JobDefinition,
        run: dg.DagsterRun,
        instance: dg.DagsterInstance,
        storage: Storage,
        compute: Compute,
        backends: Backends,
    ) -> None:
        self.resource_defs: Mapping[str, Any] = job.resource_defs
        self.run = run
        self.chosen = backends
        self.choices = Choices(storage.lake())
        self.shards = shards_of_run(instance, run.tags)

    def backends(self, stage: Stage) -> set[str]:
        """Names of the backends that a step makes the shards of its run with."""
        ops: Any = self.run.run_config.get("ops") or {}
        form = form_of(stage)(**((ops.get(stage.name) or {}).get("config") or {}))
        config = as_launched(self.run.run_config, stage, form)
        said = choice_of_run(self.run.run_config, self.resource_defs, stage, config, self.chosen)
        if said is not None:
            return {self.chosen.chosen(stage.operator)}
        return {
            self.chosen.with_choice(choice.backends).chosen(stage.operator)
            for choice in self._choices(stage)
        }

    def _choices(self, stage: Stage) -> Iterator[Choice]:
        """What the takes of the shards are made with; nothing is chosen for most."""
        yield Choice()
        for shard in self.shards:
            yield from self.choices.of(stage.operator, shard)
