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
from resources.backends.weights import find_files, hash_files, weights_root


class UnknownBackendError(ValueError):
    """No backend of that name for that operator."""


@dataclass(frozen=True)
class BackendEntry:
    """One implementation of one operator.

    factory: `module:Class`, called with the settings and, if it has weights, with the folder of
    all weights; weights: its files below that folder, where `{checkpoint}` is the setting of that
    name; source: where a person gets them.
    """

    operator: str
    name: str
    factory: str
    settings: type[config.Settings]
    licence: str
    weights: tuple[str, ...] = ()
    source: str = ""
    gpu_memory_gb: float = 0.0

    def files(self, settings: config.Settings) -> list[str]:
        """The weights' files for these settings, below the folder of all weights."""
        return [name.format(**settings.model_dump()) for name in self.weights]


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
        "segmenter",
        "sam2",
        "resources.backends.sam2:Sam2Segmenter",
        config.Sam2Settings,
        "Apache-2.0 (SAM 2.1, code and weights)",
        weights=("{checkpoint}/config.json", "{checkpoint}/model.safetensors"),
        source="https://huggingface.co/facebook/sam2.1-hiera-small (or -tiny, -base-plus, -large)",
        gpu_memory_gb=6,
    ),
    BackendEntry(
        "segmenter",
        "sam3",
        "resources.backends.sam3:Sam3Segmenter",
        config.Sam3Settings,
        "SAM License (Meta; code and weights; not Apache: commercial use yes, with limits of use)",
        weights=(
            "{checkpoint}/config.json",
            "{checkpoint}/model.safetensors",
            "{checkpoint}/vocab.json",
            "{checkpoint}/merges.txt",
        ),
        source="https://huggingface.co/facebook/sam3 (the licence is to be accepted there)",
        gpu_memory_gb=12,
    ),
    BackendEntry(
        "segmenter",
        "owlv2_sam2",
        "resources.backends.owlv2:Owlv2Sam2Segmenter",
        config.Owlv2Sam2Settings,
        "Apache-2.0 (OWLv2 and SAM 2.1, code and weights)",
        weights=(
            "{checkpoint}/config.json",
            "{checkpoint}/model.safetensors",
            "{detector}/config.json",
            "{detector}/model.safetensors",
            "{detector}/vocab.json",
            "{detector}/merges.txt",
        ),
        source="https://huggingface.co/google/owlv2-base-patch16-ensemble (or "
        "-large-patch14-ensemble) and https://huggingface.co/facebook/sam2.1-hiera-small",
        gpu_memory_gb=8,
    ),
    BackendEntry(
        "hand_estimator",
        "baseline",
        "ego_assets.operators.hands:BaselineHandEstimator",
        config.HandPoseSettings,
        _BASELINE,
    ),
    BackendEntry(
        "hand_estimator",
        "hamer",
        "resources.backends.hamer:HamerEstimator",
        config.HamerSettings,
        "MIT (HaMeR, code and weights); MANO: its own, non-commercial",
        weights=(
            "{checkpoint}/hamer_ckpts/checkpoints/hamer.ckpt",
            "{checkpoint}/hamer_ckpts/model_config.yaml",
            "{checkpoint}/data/mano/MANO_RIGHT.pkl",
        ),
        source="https://github.com/geopavlakos/hamer (its fetch_demo_data.sh) and "
        "https://mano.is.tue.mpg.de",
        gpu_memory_gb=8,
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


def version(
    operator: str, name: str, settings: dict[str, Any] | None = None, weights_dir: str = ""
) -> tuple[str, str]:
    """(version, weights hash) of a backend, without loading its model.

    The hash is of the files that the settings name. Raises WeightsError if one is missing.
    """
    entry = find(operator, name)
    cls: Any = _class(entry)
    if not entry.weights:
        return cls.version, cls.weights_hash
    files = entry.files(entry.settings(**settings or {}))
    return cls.version, hash_files(weights_root(weights_dir), files)


def lanes(operator: str, name: str) -> tuple[int, bool]:
    """(threads that may call `process` at a time, whether it computes on a device)."""
    cls = _class(find(operator, name))
    return getattr(cls, "lanes", 1), getattr(cls, "on_device", False)


def build(
    operator: str, name: str, settings: dict[str, Any], weights_dir: str = ""
) -> ClipOperator:
    """Build a backend.

    Raises UnknownBackendError, pydantic's ValidationError, or WeightsError.
    """
    entry = find(operator, name)
    chosen = entry.settings(**settings)
    if not entry.weights:
        return _class(entry)(chosen)
    root = weights_root(weights_dir)
    find_files(root, entry.files(chosen))
    return _class(entry)(chosen, root)


def check(entry: BackendEntry, weights_dir: str = "") -> str:
    """What a backend's weights are, once they have been read on the CPU. Raises WeightsError."""
    settings, root = entry.settings(), weights_root(weights_dir)
    digest = hash_files(root, entry.files(settings))
    cls: Any = _class(entry)
    return f"{cls.check(settings, root)}, hash {digest[:12]}"
