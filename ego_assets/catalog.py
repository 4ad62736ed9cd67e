"""The one list of features. Everything that is known of tables and stages derives from it.

A room of this project is a line in `_rooms`; another package adds a feature, a backend of an
operator, or a probe of a table through an entry point of the group `ego_assets.features`,
`ego_assets.backends` or `ego_assets.probes` (CONTRIBUTING.md). Here: finding and checking the
declarations. Not here: what is made of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

from ego_assets.episodes.feature import EPISODES
from ego_assets.feature import BackendEntry, Feature, ItemKind, Stage, TableInfo, load
from ego_assets.hands.feature import HANDS
from ego_assets.masks.feature import MASKS
from ego_assets.objects.feature import OBJECTS
from ego_assets.robots.feature import ROBOTS
from ego_assets.scene.feature import SCENE
from ego_assets.telemetry.feature import TELEMETRY
from ego_assets.videos.feature import VIDEOS
from resources.lake.table import TABLES, register

if TYPE_CHECKING:
    from ego_assets.quality.finding import Probe

__all__ = ["BACKENDS", "FEATURES", "GROUPS", "STAGES", "STAGES_OF_A_SHARD", "TABLES"]

_rooms = (VIDEOS, MASKS, HANDS, SCENE, OBJECTS, ROBOTS, EPISODES, TELEMETRY)
FEATURES_GROUP, BACKENDS_GROUP = "ego_assets.features", "ego_assets.backends"
PROBES_GROUP = "ego_assets.probes"


class CatalogError(ValueError):
    """A declaration makes no sense, or an entry point cannot be loaded; the message says which."""


def _declared(group: str, kind: type) -> Iterator[Any]:
    """What the installed packages declare: one of `kind`, or a tuple of them. The same entry may
    be found twice, where a package lies on the path twice."""
    for point in sorted(set(metadata.entry_points(group=group)), key=lambda p: (p.name, p.value)):
        where = f"entry point {point.name} = {point.value} ({group})"
        try:
            found = point.load()
        except Exception as error:  # a package of somebody else may raise anything
            raise CatalogError(
                f"{where} cannot be loaded: {type(error).__name__}: {error}. "
                "Mend or uninstall the package that declares it"
            ) from error
        for each in found if isinstance(found, tuple) else (found,):
            if not isinstance(each, kind):
                raise CatalogError(f"{where} is a {type(each).__name__}, not a {kind.__name__}")
            yield each


def _unique(what: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise CatalogError(f"two features declare the {what} {name!r}: rename one of them")
        seen.add(name)


def _check(features: tuple[Feature, ...]) -> None:
    """Raises CatalogError for names that are taken, and for a stage that lacks something."""
    _unique("feature", (f.name for f in features))
    _unique("stage", (s.name for f in features for s in f.stages))
    _unique("table", (t.name for f in features for t in f.tables))
    _unique("table of a stage", (t for f in features for s in f.stages for t in s.tables))
    tables = {t.name for f in features for t in f.tables}
    for feature in features:
        for stage in feature.stages:
            where = f"stage {stage.name} of feature {feature.name}"
            if missing := sorted({*stage.tables, *stage.inputs} - tables):
                raise CatalogError(f"{where}: no feature declares the tables {missing}")
            if not any(b.operator == stage.operator for f in features for b in f.backends):
                raise CatalogError(f"{where}: no backend of operator {stage.operator!r}")
        made = {t for s in feature.stages for t in s.tables}
        if unmade := sorted({t.name for t in feature.tables} - made):
            raise CatalogError(f"feature {feature.name}: no stage makes the tables {unmade}")


def _in_graph_order(features: tuple[Feature, ...]) -> dict[str, Stage]:
    """The stages, each behind those whose tables it reads. Raises CatalogError for a circle."""
    waiting = [s for f in features for s in f.stages]
    maker = {table: s.name for s in waiting for table in s.tables}
    done: dict[str, Stage] = {}
    while waiting:
        for stage in waiting:
            if {maker[t] for t in (*stage.inputs, *stage.upstream) if t in maker} <= set(done):
                break
        else:
            raise CatalogError(f"stages wait for each other: {[s.name for s in waiting]}")
        done[stage.name] = stage
        waiting.remove(stage)
    return done


FEATURES: tuple[Feature, ...] = (*_rooms, *_declared(FEATURES_GROUP, Feature))
_check(FEATURES)
GROUPS = tuple(feature.name for feature in FEATURES)
"""Of the assets in the Dagster UI."""
STAGES = _in_graph_order(FEATURES)
"""{name of its step: stage}; those that others are made from come first."""
STAGES_OF_A_SHARD = {name: s for name, s in STAGES.items() if s.item != "lake"}
"""Those with a partition for each shard."""
_INFO: dict[str, TableInfo] = {t.name: t for f in FEATURES for t in f.tables}
_STAGE_OF = {table: stage for stage in STAGES.values() for table in stage.tables}
_FEATURE_OF = {table: f for f in FEATURES for s in f.stages for table in s.tables}
for _table in _STAGE_OF:
    register(_INFO[_table].model)


def _backends() -> dict[tuple[str, str], BackendEntry]:
    found: dict[tuple[str, str], BackendEntry] = {}
    for entry in (
        *(b for f in FEATURES for b in f.backends),
        *_declared(BACKENDS_GROUP, BackendEntry),
    ):
        key = (entry.operator, entry.name)
        if key in found:
            raise CatalogError(f"two backends of {entry.operator} are called {entry.name!r}")
        if entry.operator not in {s.operator for s in STAGES.values()}:
            raise CatalogError(
                f"backend {entry.name!r} is for the operator {entry.operator!r}, which no stage has"
            )
        found[key] = entry
    return found


BACKENDS = _backends()
"""{(operator, name): entry}; the first of each operator is its default."""


def info(table: str) -> TableInfo:
    """What is declared of a table."""
    return _INFO[table]


def stage_of(table: str) -> Stage:
    """The stage that makes a table."""
    return _STAGE_OF[table]


def feature_of(table: str) -> Feature:
    """The feature that a table belongs to."""
    return _FEATURE_OF[table]


def tables_of_items(item: ItemKind) -> list[str]:
    """The tables that are made of items of this kind, in the order of the graph."""
    return [table for stage in STAGES.values() if stage.item == item for table in stage.tables]


def all_probes() -> tuple[Probe, ...]:
    """The probes of every table."""
    return tuple(p for table in TABLES for p in probes(table))


@cache
def probes(table: str) -> tuple[Probe, ...]:
    """The probes of a table: those that many tables have, those of its room, those of others."""
    from ego_assets.quality.common_probes import common_probes

    feature = feature_of(table)
    own = load(feature.probes) if feature.probes else ()
    mine = (p for p in (*own, *_probes_of_others()) if p.table == table)
    found = (*common_probes(_INFO[table]), *mine)
    _unique(f"probe of {table}", (p.name for p in found))
    return found


@cache
def _probes_of_others() -> tuple[Probe, ...]:
    from ego_assets.quality.finding import Probe

    found = tuple(_declared(PROBES_GROUP, Probe))
    for each in found:
        if each.table not in TABLES:
            raise CatalogError(f"probe {each.name!r} is of the table {each.table!r}, which is none")
    return found
