"""What a step takes of the machine: read from tags, checked against the devices there are.

Here: the tags. Not here: who gets what, and when (`device_queue`, `executor`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from resources.devices.gpu import Gpu
from resources.devices.leases import Request

GPUS, MEMORY, CPUS, PRIORITY = "ego/gpus", "ego/gpu_memory_gb", "ego/cpus", "ego/priority"
DEGRADES = "ego/degrades"
DAGSTER_PRIORITY = "dagster/priority"


class ImpossibleNeedsError(Exception):
    """A step asks for what this machine cannot give."""


@dataclass(frozen=True)
class StepNeeds:
    """What a step takes of the machine."""

    gpus: float = 0.0
    gpu_memory_gb: float = 0.0
    cpus: float = 0.0
    degrades: bool = False
    """It has something to do without the GPU, too (`resources.environment.why_without_gpu`)."""


def needs_of(step_key: str, tags: Mapping[str, str], defaults: Mapping[str, float]) -> StepNeeds:
    """From the step's tags, else from the executor's defaults.

    Raises ImpossibleNeedsError for what makes no sense, naming step, tag and cure.
    """
    known = (GPUS, MEMORY, CPUS, PRIORITY, DEGRADES)
    unknown = [t for t in tags if t.startswith("ego/") and t not in known]
    if unknown:
        raise ImpossibleNeedsError(
            f"step {step_key}: there is no tag {unknown[0]}; use {GPUS}, {MEMORY}, {CPUS} or "
            f"{DEGRADES}"
        )
    if tags.get(DEGRADES, "true") not in ("true", "false"):
        raise ImpossibleNeedsError(
            f"step {step_key}: tag {DEGRADES}={tags[DEGRADES]!r} must be true or false"
        )
    found: dict[str, float] = {}
    for tag in (GPUS, MEMORY, CPUS):
        name = tag.removeprefix("ego/")
        value = tags.get(tag, defaults.get(name, 0.0))
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = -1.0
        if not 0 <= found[name] < float("inf"):
            raise ImpossibleNeedsError(
                f"step {step_key}: tag {tag}={value!r} must be a number, 0 or more"
            )
    needs = StepNeeds(**found, degrades=tags.get(DEGRADES) == "true")
    if needs.gpus > 1 and needs.gpus % 1:
        raise ImpossibleNeedsError(
            f"step {step_key}: tag {GPUS}={needs.gpus:g} must be a share up to 1 or a whole number"
        )
    if needs.gpu_memory_gb and not needs.gpus:
        if MEMORY in tags:
            raise ImpossibleNeedsError(
                f"step {step_key}: tag {MEMORY}={needs.gpu_memory_gb:g} without a GPU: "
                f"set {GPUS} (a share, as 0.5) or take {MEMORY} away"
            )
        return replace(needs, gpu_memory_gb=0.0)  # the tag for no GPU beats a default for memory
    return needs


def check_possible(step_key: str, needs: StepNeeds, gpus: Sequence[Gpu]) -> None:
    """Raises ImpossibleNeedsError if these devices could not do it though all were free."""
    if needs.gpus and not Request(needs.gpus, needs.gpu_memory_gb).fits(gpus):
        there = ", ".join(f"{g} {g.memory_gb:g} GB" for g in gpus) or "none that works"
        raise ImpossibleNeedsError(
            f"step {step_key}: tags {GPUS}={needs.gpus:g}, {MEMORY}={needs.gpu_memory_gb:g} ask "
            f"for more than this machine has ({there}): lower them, or run it elsewhere"
        )


def run_priority(tags: Mapping[str, str]) -> int:
    """Of the run, in the machine's queue for devices."""
    given = tags.get(PRIORITY, tags.get(DAGSTER_PRIORITY, "0"))
    try:
        return int(given)
    except ValueError:
        raise ImpossibleNeedsError(f"the run's priority {given!r} must be a whole number") from None
