"""What decides a stage's results: its launchpad form, its backend, and what was chosen before.

Here: from a form and the resources to a `StageSpec`; which of it a run said itself. Not here:
running a stage (`stage`), what is stale (`ego_assets.upkeep.staleness`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import dagster as dg
from pydantic import Field

from ego_assets.engine.choices import Choice, ChoiceError, Part
from ego_assets.engine.plan import StageSpec
from ego_assets.feature import Stage
from ego_assets.graph.backends import Backends
from ego_assets.models import registry
from resources.storage import Storage


class RunConfig(dg.Config):
    """What a person may say of one run; it is not part of a result's fingerprint."""

    force: bool = Field(default=False, description="do again what is done and what is quarantined")
    only: list[str] = Field(
        default=[], description="ids of the clips or videos to run; empty: all of the shard"
    )
    redo_stale: bool = Field(
        default=True,
        description="do again what is done by another version, config or weights; false: only "
        "what failed, waits or was released",
    )
    keep_choices: bool = Field(
        default=True,
        description="where neither a setting nor a backend is given: those that were chosen for "
        "the shard before; false: the defaults",
    )
    profile: str = Field(
        default="",
        pattern=r"^[\w.-]{0,40}$",
        description="name of the settings that are given here; the shard's page, `ego status` and "
        "the provenance of rows show it; empty: named after the run",
    )

    def settings(self) -> dict[str, Any]:
        """The fields that decide the result."""
        return {k: v for k, v in self.model_dump().items() if k not in RunConfig.model_fields}

    def said(self) -> dict[str, Any]:
        """Those of them that a person gave, also where they are as the default."""
        return {k: v for k, v in self.settings().items() if k in self.model_fields_set}


@cache
def form_of(stage: Stage) -> type[RunConfig]:
    """The launchpad form of a stage: its settings, and what a person may say of one run."""
    name = f"{stage.settings.__name__.removesuffix('Settings')}Config"
    return type(name, (stage.settings, RunConfig), {"__doc__": f"Launchpad form of {stage.name}."})


def as_launched(run_config: Mapping[str, Any], stage: Stage, config: RunConfig) -> RunConfig:
    """The form of a run, in which no more is set than what a person gave.

    Dagster fills in defaults before a step has its form, so the run is asked what it was launched
    with. The launchpad fills a form with all defaults: in one that is complete, a default is not
    taken for what a person gave.
    """
    ops = run_config.get("ops") or {}
    given = set((ops.get(stage.name) or {}).get("config") or {})
    form = type(config)
    usual, values = dict(form()), dict(config)
    if given >= {name for name, default in usual.items() if default is not None}:
        given = {name for name in given if values[name] != usual[name]}
    return form.model_construct(_fields_set=given & values.keys(), **values)


def stage_spec(stage: Stage, config: RunConfig, storage: Storage, backends: Backends) -> StageSpec:
    """What decides a stage's results: operator, backend, settings, weights. Of no shard yet."""
    settings = backends.settings_of(stage.operator, config.settings(), config.said())
    backend, weights_dir = backends.chosen(stage.operator), backends.weights()
    version, weights_hash = registry.version(stage.operator, backend, settings, weights_dir)
    return StageSpec(
        name=stage.name,
        item=stage.item,
        tables=stage.tables,
        settings=settings,
        lake_root=storage.lake().location,
        ledger_url=storage.ledger().url,
        shard="",
        run_id="",
        operator=stage.operator,
        backend=backend,
        operator_version=version,
        weights_hash=weights_hash,
        weights_dir=weights_dir,
        inputs=stage.inputs,
        beside=stage.beside,
    )


def parts_of(
    stage: Stage,
    storage: Storage,
    backends: Backends,
    choices: Sequence[Choice],
) -> list[Part]:
    """The stage as a run makes it that says nothing itself: as it was chosen, else by default.

    Raises ChoiceError; and of the defaults, what `stage_spec` does.
    """
    if not choices or choices[0].items:
        choices = [Choice(), *choices]
    return [_part(stage, storage, backends, choice) for choice in choices]


def _part(
    stage: Stage,
    storage: Storage,
    backends: Backends,
    choice: Choice,
) -> Part:
    try:
        config = form_of(stage)(**choice.settings)
        chosen = backends.with_choice(choice.backends)
        spec = stage_spec(stage, config, storage, chosen)
    except Exception as error:  # a backend of somebody else may raise anything
        if choice.is_default:
            raise
        raise ChoiceError(
            f"{stage.name}: what run {choice.run_id} chose ({choice}) cannot be "
            f"had: {error}. Launch it with other settings, or with keep_choices: false"
        ) from error
    return Part(spec, choice.items, config.settings(), choice)


def choice_of(
    named: Mapping[str, Any],
    stage: Stage,
    config: RunConfig,
    backends: Backends,
    deployed: Mapping[str, Any],
) -> Choice | None:
    """What a run says itself of a stage; None if nothing.

    config: as of `as_launched`. A default of the resource that is given says nothing: the UI fills
    its launchpad with those of all operators. named: fields of the resource as the run was
    launched; deployed: as they are if it names none.
    """
    settings = config.said()
    chosen: dict[str, Any] = {}
    operator = stage.operator
    for name in (operator, "weights_dir"):
        if name in named and named[name] != deployed.get(name, ""):
            chosen[name] = getattr(backends, name)
    own, usual_own = ((v.get("settings") or {}).get(operator) or {} for v in (named, deployed))
    if "settings" in named and own != usual_own:
        chosen["settings"] = {operator: backends.settings.get(operator, {})}
    if not settings and not chosen and config.keep_choices:
        return None
    return Choice(settings, chosen, tuple(config.only), profile=config.profile)
