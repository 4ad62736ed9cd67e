"""Quality probes: pure questions to finished tables that catch what contracts cannot.

Here: one module a kind of table, each with its tuple `PROBES`; `drift` compares shards. Not here:
Dagster, files, pictures (`ego_assets.checks`), accuracy against truth (`benchmarks`).
"""

from ego_assets.operators.quality import cameras, hands, masks, objects, robots, tables
from ego_assets.operators.quality.finding import Evidence, Finding, Offender, Probe, merge
from ego_assets.operators.quality.settings import ProbeSettings

PROBES: tuple[Probe, ...] = (
    *tables.PROBES,
    *masks.PROBES,
    *hands.PROBES,
    *cameras.PROBES,
    *objects.PROBES,
    *robots.PROBES,
)
"""Every probe of the rows of a shard, in the order in which a table's checks are shown."""

__all__ = ["PROBES", "Evidence", "Finding", "Offender", "Probe", "ProbeSettings", "merge"]
