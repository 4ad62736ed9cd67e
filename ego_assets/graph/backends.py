"""Dagster resource that names the backend of each operator."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Self

import dagster as dg
from pydantic import Field

from ego_assets.catalog import STAGES
from ego_assets.feature import WeightFiles
from ego_assets.models import registry
from ego_assets.models.choice import OPERATORS, default_name, machine_choice
from ego_assets.models.weights import find_files, weights_root


class BackendsOf(dg.ConfigurableResource[Any]):
    """What `Backends` is without the operators of the catalogue."""

    weights_dir: str = Field(
        default="",
        description="folder of all models' weights; empty: EGO_WEIGHTS, else ~/.cache/ego",
    )
    settings: dict[str, dict[str, Any]] = Field(
        default={},
        description="by operator: what its backend knows beyond (or other than) the launchpad form",
    )

    def chosen(self, operator: str) -> str:
        """Name of the backend of an operator.

        Raises UnknownBackendError if there is none, BackendsFileError.
        """
        name = (
            getattr(self, operator) or getattr(machine_choice(), operator) or default_name(operator)
        )
        registry.find(operator, name)
        return name

    def settings_of(
        self, operator: str, form: Mapping[str, Any], said: Collection[str] = ()
    ) -> dict[str, Any]:
        """Settings of the chosen backend: what it knows of the asset's form, and its own.

        What a person gave in the form (its fields that are named by `said`) goes before the file,
        and the file before the form's defaults. The file's count for the backend that the file
        means, not for another that a person picks.
        """
        entry = registry.find(operator, self.chosen(operator))
        known = {k: v for k, v in form.items() if k in entry.settings.model_fields}
        file = machine_choice()
        meant = getattr(file, operator) or default_name(operator)
        of_file = file.settings.get(operator, {}) if meant == entry.name else {}
        given = {k: v for k, v in known.items() if k in said}
        return known | of_file | given | self.settings.get(operator, {})

    def with_choice(self, chosen: Mapping[str, Any]) -> Self:
        """As these, but for the fields that are given; of `settings`, for the operators in it."""
        own = {name: getattr(self, name) for name in type(self).model_fields}
        settings = self.settings | chosen.get("settings", {})
        return type(self)(**(own | dict(chosen) | {"settings": settings}))

    def weights(self) -> str:
        """Folder of all models' weights; "" is the machine's."""
        return self.weights_dir or machine_choice().weights_dir

    def require_weights(self, *, may_degrade: bool = False) -> None:
        """Raise WeightsMissingError, which names what brings them all, unless the files of every
        chosen backend are there.

        may_degrade: and those of the backends that stand in where a stage gets no GPU.
        """
        wanted: list[WeightFiles] = []
        for operator in OPERATORS:
            entry = registry.find(operator, self.chosen(operator))
            if entry.weights:
                wanted += entry.files(entry.settings(**self.settings_of(operator, {})))
            stand_in = registry.default(operator)
            if may_degrade and stand_in.weights:
                wanted += stand_in.files(stand_in.settings())
        find_files(weights_root(self.weights()), dict.fromkeys(wanted))


def _fields() -> dict[str, Any]:
    """A field for each operator: the name of its backend."""
    tables: dict[str, list[str]] = {}
    for stage in STAGES.values():
        tables.setdefault(stage.operator, []).extend(stage.tables)
    fields = {
        operator: Field(default="", description=", ".join(made))
        for operator, made in tables.items()
    }
    return {"__annotations__": dict.fromkeys(fields, str), **fields}


class Backends(type("_Operators", (BackendsOf,), _fields())):  # type: ignore[misc]
    """Which implementation runs: a name of the registry, or your own as package.module:Class.

    What is left empty is as the file says that EGO_BACKENDS names, else the one that runs out of
    the box.
    """
