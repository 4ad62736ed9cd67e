"""What a room of the graph declares: its tables, the stages that make them, and their backends.

Everything else derives from these declarations through `ego_assets.catalog`: assets and their
checks, launchpad forms, lineage, recipes, previews, drift, `ego status`, reports, `ego sql`. They
are light: what draws, probes or computes is named as "module:name" and imported when it is needed.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ego_assets.quality.settings import ProbeSettings
from ego_assets.settings import Settings
from resources.lake.table import Table

ItemKind = Literal["file", "video", "clip", "shard", "lake"]
"""What a stage does at a time. The items of a shard are its raw files, its accepted videos, its
clips (those of a take in order), or the shard itself; `lake` is one item over all shards."""
LAKE = "lake"
"""The one item, and in place of a shard the partition, of stages that work on the whole lake."""


def load(reference: str) -> Any:
    """Import what "module:name" names. Raises ImportError, AttributeError."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


@dataclass(frozen=True)
class TableInfo:
    """A table, and what the platform shows and asks of it beyond its columns.

    preview: "module:function" that draws a shard, as of `ego_assets.graph.previews.Preview`;
    drift: "module:name" of a `quality.drift.DriftFeatures`; both may be None, and must be said.
    lineage: {column: the table above that it is copied from}; seam: "module:name" of a
    `quality.seam.Seam`, for tables of which neighbouring clips have rows of the same frames;
    rows_of: the table whose rows lead to rows here, so that a clip without any is suspicious;
    expects_things: whether a long row of videos without a row is an error.
    """

    model: type[Table]
    preview: str | None
    drift: str | None
    lineage: Mapping[str, str] = field(default_factory=dict)
    seam: str | None = None
    rows_of: str = ""
    expects_things: bool = False

    @property
    def name(self) -> str:
        return self.model.table


@dataclass(frozen=True)
class Needs:
    """What a step takes of a machine.

    degrades: it has something to do without the GPU, too, if it may not wait for one.
    """

    gpus: float = 0
    gpu_memory_gb: float = 0
    cpus: int = 1
    degrades: bool = False


@dataclass(frozen=True)
class Stage:
    """One operator over one shard: the tables that it makes, and what from.

    name: of its step in the graph; operator: of its backends in the registry; settings: the form
    of its launchpad, which is that of its default backend; inputs: tables that the operator reads;
    deps: assets that it comes after, where these are not the clips and its inputs; beside: of a
    stage of videos: suffixes of files beside a video, named like it, that its operator reads too.
    """

    name: str
    operator: str
    item: ItemKind
    tables: tuple[str, ...]
    settings: type[Settings]
    inputs: tuple[str, ...] = ()
    deps: tuple[str, ...] | None = None
    beside: tuple[str, ...] = ()
    needs: Needs = field(default_factory=Needs)

    @property
    def upstream(self) -> tuple[str, ...]:
        """The assets that it comes after."""
        return ("clips", *self.inputs) if self.deps is None else self.deps


WeightFiles = str | tuple[str, str]
"""A file below the folder of all weights; or a folder, and a pattern of files in it."""


@dataclass(frozen=True)
class BackendEntry:
    """One implementation of one operator.

    factory: `module:Class`, called with the settings and, if it has weights, with the folder of
    all weights; weights: its files below that folder, where `{checkpoint}` is the setting of that
    name, and a name with `*` is for any files that may be there; source: where a person gets them;
    gpu_memory_gb: what is set aside for it unmeasured; batch: the setting that says how many items
    it looks at at once, for those that batch, and max_batch: where more brings nothing;
    measured_on_cpu: whether `ego doctor --tune` measures it there, which may take too long.
    The class may have `identity(settings, root)`: what else its results depend on.
    """

    operator: str
    name: str
    factory: str
    settings: type[Settings]
    licence: str
    weights: tuple[str, ...] = ()
    source: str = ""
    gpu_memory_gb: float = 0.0
    batch: str = ""
    max_batch: int = 0
    measured_on_cpu: bool = True

    def files(self, settings: Settings) -> list[WeightFiles]:
        """The weights' files for these settings, below the folder of all weights."""
        found: list[WeightFiles] = []
        for template in self.weights:
            # What a setting says is a name, whatever characters are in it.
            folder, star, pattern = template.partition("/*")
            name = folder.format(**settings.model_dump())
            found.append((name, f"*{pattern}") if star else name)
        return found


@dataclass(frozen=True)
class ExternalAsset:
    """An asset of the graph that nothing here makes."""

    name: str
    description: str
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True)
class Feature:
    """A room of the graph. Its name is that of its Dagster group.

    backends: the first of each operator runs out of the box; probes: "module:PROBES", a tuple of
    `quality.finding.Probe`; probe_settings: their thresholds, the form of its check steps.
    """

    name: str
    tables: tuple[TableInfo, ...]
    stages: tuple[Stage, ...]
    backends: tuple[BackendEntry, ...]
    probes: str = ""
    probe_settings: type[ProbeSettings] = ProbeSettings
    external: tuple[ExternalAsset, ...] = ()


OF_A_CLIP = {"video_id": "clips", "clip_id": "clips"}
"""Lineage of the columns that every table of clips has."""
OUR_LICENCE = "Apache-2.0 (this project)"
SAVED_MODEL = ("{checkpoint}/config.json", "{checkpoint}/model.safetensors")
"""Weights of a model that transformers saved."""
