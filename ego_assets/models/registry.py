"""Finds a backend by name and builds it.

Not here: the entries (`feature.py` of each room), the implementations, which are imported only when
they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ego_assets.catalog import BACKENDS
from ego_assets.feature import BackendEntry, load
from ego_assets.models import tuning
from ego_assets.models.memory import free
from ego_assets.models.suggestions import did_you_mean
from ego_assets.models.weights import find_files, hash_files, weights_root
from ego_assets.operator import ClipOperator


class UnknownBackendError(ValueError):
    """No backend of that name for that operator."""


def find(operator: str, name: str) -> BackendEntry:
    """The entry of a backend; `module:Class` names one outside this project.

    Raises UnknownBackendError with the names there are.
    """
    known = {n: e for (o, n), e in BACKENDS.items() if o == operator}
    if not known:
        operators = sorted({o for o, _ in BACKENDS})
        raise UnknownBackendError(f"no operator {operator!r}: there are {operators}")
    if ":" in name:
        settings = next(iter(known.values())).settings
        return BackendEntry(operator, name, name, settings, licence="unknown")
    if name not in known:
        raise UnknownBackendError(
            f"no {operator} named {name!r}: there are {sorted(known)}, "
            f"or give your own as package.module:Class{did_you_mean(name, known)}"
        )
    return known[name]


def default(operator: str) -> BackendEntry:
    """The backend that runs out of the box: the first of its operator."""
    return next(e for (of, _), e in BACKENDS.items() if of == operator)


def _class(entry: BackendEntry) -> Any:
    return load(entry.factory)


def version(
    operator: str, name: str, settings: dict[str, Any] | None = None, weights_dir: str = ""
) -> tuple[str, str]:
    """(version, weights hash) of a backend, without loading its model.

    The hash is of the files that the settings name. Raises WeightsError if one is missing.
    """
    entry = find(operator, name)
    cls = _class(entry)
    if not entry.weights:
        return cls.version, cls.weights_hash
    chosen, root = entry.settings(**settings or {}), weights_root(weights_dir)
    digest = hash_files(root, entry.files(chosen))
    more = cls.identity(chosen, root) if hasattr(cls, "identity") else ""
    return f"{cls.version}+{more}" if more else cls.version, digest


def lanes(operator: str, name: str) -> tuple[int, bool]:
    """(threads that may call `process` at a time, whether it computes on a device)."""
    cls = _class(find(operator, name))
    return getattr(cls, "lanes", 1), getattr(cls, "on_device", False)


def uses_device(operator: str, name: str) -> bool:
    """Whether a backend computes on a device if it has one: always, or as it is installed here.

    One from outside this project that does not say is taken at the tags of its step.
    """
    cls = _class(find(operator, name))
    if hasattr(cls, "may_use_device"):
        return bool(cls.may_use_device())
    return bool(getattr(cls, "on_device", ":" in name))


def decisive(operator: str, name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that are part of a result's fingerprint: not how fast it is computed."""
    runtime = find(operator, name).settings.runtime_fields()
    return {k: v for k, v in settings.items() if k not in runtime}


def build(
    operator: str,
    name: str,
    settings: dict[str, Any],
    weights_dir: str = "",
    device_share: float = 1.0,
) -> ClipOperator:
    """Build a backend. device_share: what it may have of its device's memory.

    A batch that the settings leave open is as `tune` measured it, else the backend's own default.
    Raises UnknownBackendError, pydantic's ValidationError, or WeightsError.
    """
    entry = find(operator, name)
    chosen = entry.settings(**settings)
    make: Callable[..., ClipOperator] = _class(entry)
    if not entry.weights:
        return make(chosen)
    root = weights_root(weights_dir)
    find_files(root, entry.files(chosen))
    if entry.batch and getattr(chosen, entry.batch) is None:
        found = tuning.find(tuning.key_of(entry.name, hash_files(root, entry.files(chosen))))
        if found is not None:
            size = found.batch(entry.max_batch, device_share)
            chosen = chosen.model_copy(update={entry.batch: size})
    return make(chosen, root)


def tuned(entry: BackendEntry, weights_hash: str, device: str) -> tuning.MemoryModel | None:
    """What was measured of a backend with these weights on that kind of device; None: nothing."""
    if not entry.batch:
        return None
    return tuning.find(tuning.key_of(entry.name, weights_hash, device))


def check(
    entry: BackendEntry, weights_dir: str = "", settings: dict[str, Any] | None = None
) -> str:
    """What a backend's weights are, once they have been read on the CPU. Raises WeightsError, and
    pydantic's ValidationError for settings that it does not know."""
    chosen, root = entry.settings(**settings or {}), weights_root(weights_dir)
    digest = hash_files(root, entry.files(chosen))
    cls = _class(entry)
    words = f"{cls.check(chosen, root)}, " if hasattr(cls, "check") else ""
    return f"{words}hash {digest[:12]}"


def tune(
    entry: BackendEntry, weights_dir: str = "", settings: dict[str, Any] | None = None
) -> tuning.MemoryModel:
    """Measure what a backend that batches takes on this process' device, and keep that for `build`.

    Raises WeightsError, and MemoryError or torch's own if not even one item fits.
    """
    chosen, root = entry.settings(**settings or {}), weights_root(weights_dir)
    key = tuning.key_of(entry.name, hash_files(root, entry.files(chosen)))
    free()  # what another backend left behind is not of this one's memory
    trial: Any = None

    def load() -> None:
        nonlocal trial
        trial = _class(entry)(chosen, root)

    found = tuning.measure(load, lambda count: trial.try_batch(count), entry.max_batch)
    tuning.keep(key, found)
    return found
