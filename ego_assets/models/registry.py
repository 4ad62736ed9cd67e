"""Which implementations of each operator exist, and how to build one by name.

Here: names, licences, weights, needs. Not here: the implementations, which are imported only
when they are asked for.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from ego_assets import config
from ego_assets.models import tuning
from ego_assets.models.memory import free
from ego_assets.models.suggestions import did_you_mean
from ego_assets.models.weights import WeightFiles, find_files, hash_files, weights_root
from ego_assets.operator import ClipOperator


class UnknownBackendError(ValueError):
    """No backend of that name for that operator."""


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
    settings: type[config.Settings]
    licence: str
    weights: tuple[str, ...] = ()
    source: str = ""
    gpu_memory_gb: float = 0.0
    batch: str = ""
    max_batch: int = 0
    measured_on_cpu: bool = True

    def files(self, settings: config.Settings) -> list[WeightFiles]:
        """The weights' files for these settings, below the folder of all weights."""
        found: list[WeightFiles] = []
        for template in self.weights:
            # What a setting says is a name, whatever characters are in it.
            folder, star, pattern = template.partition("/*")
            name = folder.format(**settings.model_dump())
            found.append((name, f"*{pattern}") if star else name)
        return found


_BASELINE = "Apache-2.0 (this project)"
_SAVED = ("{checkpoint}/config.json", "{checkpoint}/model.safetensors")
_ENTRIES = (
    BackendEntry(
        "segmenter",
        "baseline",
        "ego_assets.masks.baseline.segmenter:BaselineSegmenter",
        config.SegmentSettings,
        _BASELINE,
    ),
    BackendEntry(
        "segmenter",
        "sam2",
        "ego_assets.masks.learned.sam2:Sam2Segmenter",
        config.Sam2Settings,
        "Apache-2.0 (SAM 2.1, code and weights)",
        weights=_SAVED,
        source="https://huggingface.co/facebook/sam2.1-hiera-small (or -tiny, -base-plus, -large)",
        gpu_memory_gb=6,
        batch="objects_per_batch",
        max_batch=16,
        measured_on_cpu=False,
    ),
    BackendEntry(
        "segmenter",
        "sam3",
        "ego_assets.masks.learned.sam3:Sam3Segmenter",
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
        batch="frames_per_batch",
        max_batch=8,
        measured_on_cpu=False,
    ),
    BackendEntry(
        "segmenter",
        "owlv2_sam2",
        "ego_assets.masks.learned.owlv2:Owlv2Sam2Segmenter",
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
        batch="frames_per_batch",
        max_batch=16,
        measured_on_cpu=False,
    ),
    BackendEntry(
        "hand_estimator",
        "baseline",
        "ego_assets.hands.baseline.estimator:BaselineHandEstimator",
        config.HandPoseSettings,
        _BASELINE,
    ),
    BackendEntry(
        "hand_estimator",
        "hamer",
        "ego_assets.hands.hamer:HamerEstimator",
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
        batch="crops_per_batch",
        max_batch=256,
    ),
    BackendEntry(
        "reconstructor",
        "pycolmap",
        "ego_assets.scene.colmap.reconstructor:PycolmapReconstructor",
        config.ReconstructSettings,
        "BSD-3-Clause (COLMAP)",
    ),
    BackendEntry(
        "reconstructor",
        "pycolmap_depth_pro",
        "ego_assets.scene.depth:DepthProReconstructor",
        config.DepthProSettings,
        "BSD-3-Clause (COLMAP); DepthPro's weights: apple-amlr, for research only",
        weights=_SAVED,
        source="https://huggingface.co/apple/DepthPro-hf",
        gpu_memory_gb=8,
        batch="frames_per_batch",
        max_batch=16,
    ),
    BackendEntry(
        "reconstructor",
        "pycolmap_depth_anything",
        "ego_assets.scene.depth:DepthAnythingReconstructor",
        config.DepthAnythingSettings,
        "BSD-3-Clause (COLMAP); Depth Anything V2's weights: Small Apache-2.0, Base and Large "
        "CC-BY-NC-4.0",
        weights=_SAVED,
        source="https://huggingface.co/depth-anything/Depth-Anything-V2-Metric-Indoor-Small-hf "
        "(or -Outdoor-, -Base-, -Large-)",
        gpu_memory_gb=4,
        batch="frames_per_batch",
        max_batch=64,
    ),
    BackendEntry(
        "object_pose_estimator",
        "baseline",
        "ego_assets.objects.baseline.poses:BaselineObjectPoseEstimator",
        config.ObjectPoseSettings,
        _BASELINE,
    ),
    BackendEntry(
        "object_pose_estimator",
        "foundationpose",
        "ego_assets.objects.foundationpose.estimator:FoundationPoseEstimator",
        config.FoundationPoseSettings,
        "NVIDIA Source Code License, non-commercial (FoundationPose, code and weights)",
        weights=(
            "{checkpoint}/estimater.py",
            "{checkpoint}/weights/2023-10-28-18-33-37/config.yml",
            "{checkpoint}/weights/2023-10-28-18-33-37/model_best.pth",
            "{checkpoint}/weights/2024-01-11-20-02-45/config.yml",
            "{checkpoint}/weights/2024-01-11-20-02-45/model_best.pth",
            "{checkpoint}/*.py",
            "{checkpoint}/learning/**/*.py",
            "{meshes}/**/*",
        ),
        source="https://github.com/NVlabs/FoundationPose (its readme: weights, environment)",
        gpu_memory_gb=10,
    ),
    BackendEntry(
        "movement_estimator",
        "baseline",
        "ego_assets.objects.baseline.movements:BaselineMovementEstimator",
        config.MovementSettings,
        _BASELINE,
    ),
    BackendEntry(
        "retargeter",
        "dex_retargeting",
        "ego_assets.robots.retargeting:DexRetargeter",
        config.RetargetSettings,
        "MIT (dex-retargeting)",
    ),
    BackendEntry(
        "retargeter",
        "gauss_newton",
        "ego_assets.robots.gauss_newton.retargeter:GaussNewtonRetargeter",
        config.RetargetSettings,
        _BASELINE,
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
            f"or give your own as package.module:Class{did_you_mean(name, known)}"
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
        return cls.may_use_device()
    return getattr(cls, "on_device", ":" in name)


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
    if not entry.weights:
        return _class(entry)(chosen)
    root = weights_root(weights_dir)
    find_files(root, entry.files(chosen))
    if entry.batch and getattr(chosen, entry.batch) is None:
        found = tuning.find(tuning.key_of(entry.name, hash_files(root, entry.files(chosen))))
        if found is not None:
            size = found.batch(entry.max_batch, device_share)
            chosen = chosen.model_copy(update={entry.batch: size})
    return _class(entry)(chosen, root)


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
    cls: Any = _class(entry)
    return f"{cls.check(chosen, root)}, hash {digest[:12]}"


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
