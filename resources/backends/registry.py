"""Which implementations of each operator exist, and how to build one by name.

Here: names, licences, weights, needs. Not here: the implementations, which are imported only
when they are asked for.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from ego_assets import config
from ego_assets.protocols import ClipOperator


class UnknownBackendError(ValueError):
    """No backend of that name for that operator."""


@dataclass(frozen=True)
class BackendEntry:
    """One implementation of one operator.

    factory: `module:Class`, called with the settings; weights: where they are expected, or None.
    """

    operator: str
    name: str
    factory: str
    settings: type[config.Settings]
    licence: str
    weights: str | None = None
    gpu_memory_gb: float = 0.0


_BASELINE = "Apache-2.0 (this project)"
_ENTRIES = (
    BackendEntry(
        "segmenter",
        "baseline",
        "ego_assets.operators.segment:BaselineSegmenter",
        config.SegmentSettings,
        _BASELINE,
    ),
    BackendEntry(
        "hand_estimator",
        "baseline",
        "ego_assets.operators.hands:BaselineHandEstimator",
        config.HandPoseSettings,
        _BASELINE,
    ),
    BackendEntry(
        "reconstructor",
        "pycolmap",
        "ego_assets.operators.reconstruct:PycolmapReconstructor",
        config.ReconstructSettings,
        "BSD-3-Clause (COLMAP)",
    ),
    BackendEntry(
        "object_pose_estimator",
        "baseline",
        "ego_assets.operators.object_pose:BaselineObjectPoseEstimator",
        config.ObjectPoseSettings,
        _BASELINE,
    ),
    BackendEntry(
        "movement_estimator",
        "baseline",
        "ego_assets.operators.movements:BaselineMovementEstimator",
        config.MovementSettings,
        _BASELINE,
    ),
    BackendEntry(
        "retargeter",
        "dex_retargeting",
        "ego_assets.operators.retarget:DexRetargeter",
        config.RetargetSettings,
        "MIT (dex-retargeting)",
    ),
)
REGISTRY: dict[tuple[str, str], BackendEntry] = {(e.operator, e.name): e for e in _ENTRIES}


def find(operator: str, name: str) -> BackendEntry:
    """The entry of a backend; `module:Class` names one outside this project.

    Raises UnknownBackendError with the names there are.
    """
    known = {n: e for (o, n), e in REGISTRY.items() if o == operator}
    if not known:
        operators = sorted({o for o, _ in REGISTRY})
        raise UnknownBackendError(f"no operator {operator!r}: there are {operators}")
    if ":" in name:
        settings = next(iter(known.values())).settings
        return BackendEntry(operator, name, name, settings, licence="unknown")
    if name not in known:
        raise UnknownBackendError(
            f"no {operator} named {name!r}: there are {sorted(known)}, "
            "or give your own as package.module:Class"
        )
    return known[name]


def default(operator: str) -> BackendEntry:
    """The backend that runs out of the box: the first of its operator."""
    return next(e for e in _ENTRIES if e.operator == operator)


def _class(entry: BackendEntry) -> type:
    module, _, name = entry.factory.partition(":")
    return getattr(importlib.import_module(module), name)


def version(operator: str, name: str) -> tuple[str, str]:
    """(version, weights hash) of a backend, without loading its model."""
    cls: Any = _class(find(operator, name))
    return cls.version, cls.weights_hash


def lanes(operator: str, name: str) -> tuple[int, bool]:
    """(threads that may call `process` at a time, whether it computes on a device)."""
    cls = _class(find(operator, name))
    return getattr(cls, "lanes", 1), getattr(cls, "on_device", False)


def build(operator: str, name: str, settings: dict[str, Any]) -> ClipOperator:
    """Build a backend. Raises UnknownBackendError, or pydantic's ValidationError."""
    entry = find(operator, name)
    return _class(entry)(entry.settings(**settings))
