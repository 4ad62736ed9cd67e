"""Metric depth from one picture, and reconstructions in metres by it.

Here: DepthPro (Bochkovskii et al., "Depth Pro: Sharp Monocular Metric Depth in Less Than a
Second", 2024) and the metric Depth Anything V2 (Yang et al., "Depth Anything V2", 2024), through
transformers' models without their processors, which need torchvision. Not here: how depths become
a scale (`operators.metric_scale`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ego_assets.models.batching import MicroBatcher
from ego_assets.models.device import autocast, compiled, pick_device, settle, to_device, to_host
from ego_assets.models.memory import ElasticBatch
from ego_assets.models.pretrained import load_pretrained
from ego_assets.models.weights import WeightsError, hash_files
from ego_assets.scene.colmap.reconstructor import PycolmapReconstructor
from ego_assets.scene.settings import DepthAnythingSettings, DepthProSettings, DepthScaleSettings

BATCH = 4
SAVED = ("config.json", "model.safetensors")
"""What `save_pretrained` writes."""
MIN_INVERSE, MAX_INVERSE = 1e-4, 1e4
"""Bounds of DepthPro's inverse depth: 0.1 mm to 10 km."""

_NETWORKS = {
    "depth_pro": "DepthProForDepthEstimation",
    "depth_anything": "DepthAnythingForDepthEstimation",
}
"""Of transformers."""

Asked = tuple[np.ndarray, float | None]
"""A picture (H, W, 3) uint8, and the focal length over its width, if that is known."""


class DepthNetwork(ABC):
    """A network of one family: pictures to metres. `load_depth_model` says what a checkpoint is.

    It is a `MetricDepth`, too: what it is given then is its settings as a dict.
    """

    model_type: str
    settings: type[DepthScaleSettings]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __init__(self, settings: DepthScaleSettings | Mapping[str, Any], weights: Path) -> None:
        import torch

        settings = self.settings.model_validate(settings)
        folder = weights / settings.checkpoint
        self.device = pick_device()
        self.model = settle(load_depth_model(folder, self.model_type), self.device)
        self.constants = [
            torch.tensor(v, device=self.device)[:, None, None] for v in (self.mean, self.std)
        ]
        self.batch = settings.frames_per_batch or BATCH
        self.look = ElasticBatch(self.see, self.batch)
        self.run = compiled(self.model, settings.compile, lambda: self.look.limit)

    @classmethod
    def identity(cls, settings: Mapping[str, Any], weights: Path) -> str:
        """See `MetricDepth`."""
        checkpoint = cls.settings.model_validate(settings).checkpoint
        digest = hash_files(weights, [f"{checkpoint}/{name}" for name in SAVED])
        return f"{cls.model_type} {digest[:16]}"

    @property
    @abstractmethod
    def side_px(self) -> int:
        """Longer side of the pictures that use its resolution to the full."""

    def __call__(
        self, pictures: Sequence[np.ndarray], focal_over_width: float | None
    ) -> list[np.ndarray]:
        """See `DepthSource`."""
        return self.look([(p, focal_over_width) for p in pictures])

    def see(self, asked: list[Asked]) -> list[np.ndarray]:
        """Depths (h, w) float32 of pictures, those of one size at a time."""
        found: dict[int, np.ndarray] = {}
        for shape in sorted({p.shape for p, _ in asked}):
            same = [i for i, (p, _) in enumerate(asked) if p.shape == shape]
            depths = self._see_alike([asked[i] for i in same])
            found |= dict(zip(same, depths, strict=True))
        return [found[i] for i in range(len(asked))]

    def _see_alike(self, asked: list[Asked]) -> np.ndarray:
        import torch

        pixels = to_device(np.stack([p for p, _ in asked]), self.device)
        with torch.inference_mode():
            shown = self._prepare(pixels.permute(0, 3, 1, 2).float() / 255)
            with autocast(self.device):
                seen = self.run(pixel_values=shown)
            (depths,) = to_host(self._metres(seen, [focal for _, focal in asked]).float())
        return depths

    def try_batch(self, count: int) -> None:
        """Look at so many black 16:9 pictures, to see what memory that takes."""
        width = self.side_px
        self.see([(np.zeros((round(width * 9 / 16), width, 3), np.uint8), None)] * count)

    @abstractmethod
    def _prepare(self, pixels: Any) -> Any:
        """(B, 3, H, W) in 0 … 1 to what the network looks at."""

    @abstractmethod
    def _metres(self, seen: Any, focals: list[float | None]) -> Any:
        """(B, h, w) depths along z."""


class DepthPro(DepthNetwork):
    """Inverse depth for a focal length of one picture's width: the real one gives the metres.

    Where the lens is only a guess, the network's own view of it counts, if it has one.
    """

    model_type = "depth_pro"
    settings = DepthProSettings
    mean = std = (0.5, 0.5, 0.5)

    @property
    def side_px(self) -> int:
        config = self.model.config
        side: float = config.patch_size / min(config.scaled_images_ratios)
        return round(side)

    def _prepare(self, pixels: Any) -> Any:
        import torch.nn.functional as F

        mean, std = self.constants
        # Squeezed to a square, without smoothing, as its authors do it.
        return F.interpolate((pixels - mean) / std, (self.side_px,) * 2, mode="bilinear")

    def _metres(self, seen: Any, focals: list[float | None]) -> Any:
        import torch

        inverse = seen.predicted_depth.float()
        given = to_device(np.array([f or 0.0 for f in focals], np.float32), self.device)
        guess = torch.ones_like(given)
        if seen.field_of_view is not None:
            half = torch.deg2rad(seen.field_of_view.float().clamp(1.0, 179.0)) / 2
            guess = 0.5 / torch.tan(half)
        focal = torch.where(given > 0, given, guess)
        return 1 / (inverse / focal[:, None, None]).clamp(MIN_INVERSE, MAX_INVERSE)


class DepthAnything(DepthNetwork):
    """Metres as they are, for lenses like those of its training: it knows nothing of this one."""

    model_type = "depth_anything"
    settings = DepthAnythingSettings
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    @property
    def side_px(self) -> int:
        # The shorter side is brought to the network's: twice that holds all of a 16:9 picture.
        side: int = self.model.config.backbone_config.image_size
        return 2 * side

    def _prepare(self, pixels: Any) -> Any:
        import torch.nn.functional as F

        mean, std = self.constants
        shown = F.interpolate(pixels, self.size(*pixels.shape[2:]), mode="bicubic", antialias=True)
        return (shown - mean) / std

    def size(self, height: int, width: int) -> tuple[int, int]:
        """What a picture is brought to: one side the network's, the aspect kept, whole patches."""
        config = self.model.config
        patch, side = config.patch_size, config.backbone_config.image_size
        # The scale that changes the picture least, as its authors do it.
        scale = min((side / height, side / width), key=lambda s: abs(1 - s))
        return tuple(max(patch, round(scale * n / patch) * patch) for n in (height, width))

    def _metres(self, seen: Any, focals: list[float | None]) -> Any:
        return seen.predicted_depth


def load_depth_model(folder: Path, model_type: str) -> Any:
    """The network of a `save_pretrained` folder, on the CPU. Only safetensors are read, and nothing
    is fetched. Raises WeightsError."""
    model = load_pretrained(folder, model_type, _NETWORKS[model_type], model_type)
    if getattr(model.config, "depth_estimation_type", "metric") != "metric":
        raise WeightsError(
            f"{folder} sees relative depth, which has no metres: take one of the metric "
            "checkpoints (docs/models.md)"
        )
    return model


class _SharedDepth:
    """A network that several takes ask at a time: their pictures go through it together."""

    def __init__(self, network: DepthNetwork) -> None:
        self.side_px = network.side_px
        self.look = MicroBatcher(network.look, network.batch)

    def __call__(
        self, pictures: Sequence[np.ndarray], focal_over_width: float | None
    ) -> list[np.ndarray]:
        """See `DepthSource`."""
        return self.look([(p, focal_over_width) for p in pictures])


class _DepthReconstructor(PycolmapReconstructor):
    """COLMAP's map of a take, in the metres that a network sees in a few of its pictures."""

    version = f"{PycolmapReconstructor.version}.1"
    quality_tier = "reference"
    on_device = True
    lanes = 4
    network: type[DepthNetwork]

    def __init__(self, settings: DepthScaleSettings, weights: Path) -> None:
        super().__init__(settings)
        network = self.network(settings, weights)
        self.depth, self.try_batch = _SharedDepth(network), network.try_batch

    @classmethod
    def check(cls, settings: DepthScaleSettings, weights: Path) -> str:
        """What the weights hold, for people. Raises WeightsError."""
        model = load_depth_model(weights / settings.checkpoint, cls.network.model_type)
        count = sum(p.numel() for p in model.parameters()) / 1e6
        return f"{type(model).__name__} of {count:.1f} M parameters"


class DepthProReconstructor(_DepthReconstructor):
    """`scene_reconstruction` in metres by DepthPro."""

    name = "pycolmap_depth_pro"
    network = DepthPro

    def __init__(self, settings: DepthProSettings, weights: Path) -> None:
        super().__init__(settings, weights)


class DepthAnythingReconstructor(_DepthReconstructor):
    """`scene_reconstruction` in metres by a metric Depth Anything V2."""

    name = "pycolmap_depth_anything"
    network = DepthAnything

    def __init__(self, settings: DepthAnythingSettings, weights: Path) -> None:
        super().__init__(settings, weights)
