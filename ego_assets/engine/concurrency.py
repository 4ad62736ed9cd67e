"""How many takes of a stage go at a time: workers, their lanes, their share of a device.

Here: the decision, from what a person set, what was measured (`ego doctor --tune`) and what the
backend says. Not here: devices and their leases, the running of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ego_assets.engine.plan import StageSpec
from ego_assets.models import registry
from ego_assets.models.tuning import TARGET

MOST_TAKES = 3
"""On a device, as measured: with three it was busy for 0.98 of the time (ADR 9)."""


@dataclass(frozen=True)
class Concurrency:
    """workers: processes; lanes: takes that each has at a time; share: of the memory of its device
    that each may have; why: a sentence for a person, of a stage on a device."""

    workers: int
    lanes: int
    share: float = 1.0
    why: str = ""


def concurrency(
    spec: StageSpec,
    devices: Sequence[str],
    kinds: Sequence[str],
    share: float,
    takes: int,
    cpus: int,
) -> Concurrency:
    """Of a stage on the devices that its step leased, each of them to that share.

    kinds: names of these devices; takes: on each, as a person set it, 0: not; cpus: of this
    machine. Lanes share one model and one batch, so memory sets them no limit: they are as the
    backend has them. A backend without lanes gets a worker with a model for each take that fits.
    """
    lanes, _ = registry.lanes(spec.operator, spec.backend)
    if lanes > 1:
        set_by = "compute.takes_per_device" if takes else "the backend"
        lanes = takes or lanes
        return Concurrency(len(devices), lanes, share, f"{lanes}, of one model, as {set_by} says")
    if takes:
        copies, why = takes, "as compute.takes_per_device says"
    else:
        copies, why = _that_fit(spec, kinds, share, max(1, cpus // len(devices)))
    why = f"{copies}, each a worker with a model of its own, {why}"
    return Concurrency(copies * len(devices), 1, share / copies, why)


def _that_fit(spec: StageSpec, kinds: Sequence[str], share: float, cpus: int) -> tuple[int, str]:
    """(workers with a model on each device, why so many)."""
    settings, entry = spec.settings, registry.find(spec.operator, spec.backend)
    found = [registry.tuned(entry, spec.weights_hash, kind) for kind in sorted(set(kinds))]
    known = [model for model in found if model is not None]
    if not known or len(known) < len(found):
        return 1, "since nothing was measured on this device (`ego doctor --tune` does)"
    batch = settings.get(entry.batch) or entry.max_batch
    model = min(known, key=lambda m: m.copies(batch, share))
    copies = max(1, min(model.copies(batch, share), MOST_TAKES, cpus))
    words = (
        f"as `ego doctor --tune` measured: {model.needs(batch) / 1e9:.2f} GB each, in "
        f"{100 * TARGET:.0f} % of {share * model.total / 1e9:.1f} GB"
    )
    limit = min(MOST_TAKES, cpus)
    more = f"; more than {limit} bring nothing" if model.copies(batch, share) > limit else ""
    return copies, words + more
