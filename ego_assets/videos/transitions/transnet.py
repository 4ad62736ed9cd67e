"""TransNet V2: which frames belong to a cut, and which to a gradual transition.

Here: the network and its weights. Not here: which stretches it looks at (`gradual`).
Source: Souček and Lokoč, "TransNet V2: an effective deep network architecture for fast shot
transition detection", 2020. The names of the layers are those of the published weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ego_assets.models.packaged.declaration import TRANSNET
from ego_assets.models.weights import WeightsError, check_numbers

Tensor = Any
"""Of torch, which is imported where it is used."""
WIDTH_PX, HEIGHT_PX = 48, 27
WINDOW, MARGIN = 100, 25
"""Frames that it looks at together; those at either end lack context and are not used."""
_LOOKUP = 101
_EPS = 1e-3


class TransNet:
    """The network on the CPU. Raises WeightsError for weights that are not its own."""

    def __init__(self, root: Path) -> None:
        import torch

        path = root / TRANSNET.paths[0]
        try:
            self._weights: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            check_numbers(path, {k: v for k, v in self._weights.items() if "num_batches" not in k})
            self._scores(torch.zeros(1, 4, HEIGHT_PX, WIDTH_PX, 3, dtype=torch.uint8))
        except WeightsError:
            raise
        except Exception as error:  # torch and pickle each have errors of their own
            raise WeightsError(
                f"{path} cannot be read as TransNet V2: {type(error).__name__}: {error}"
            ) from error

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """Return (F,) how likely each frame is part of a transition, cuts included.

        frames: (F, 27, 48, 3) uint8 RGB, in order. The first and the last are repeated as context.
        """
        import torch

        step = WINDOW - 2 * MARGIN
        after = MARGIN + -len(frames) % step
        padded = np.concatenate(
            [frames[:1].repeat(MARGIN, 0), frames, frames[-1:].repeat(after, 0)]
        )
        found = []
        with torch.inference_mode():
            for start in range(0, len(padded) - 2 * MARGIN, step):
                window = torch.from_numpy(padded[start : start + WINDOW])[None]
                found.append(torch.sigmoid(self._scores(window))[0, MARGIN : MARGIN + step])
        return torch.cat(found)[: len(frames)].numpy()

    def _scores(self, frames: Tensor) -> Tensor:
        """(B, T) logits of all frames of a transition, of (B, T, 27, 48, 3) uint8."""
        import torch
        from torch.nn import functional

        x = frames.permute(0, 4, 1, 2, 3).float() / 255
        features = []
        for block in range(3):
            x = self._block(x, f"SDDCNN.{block}")
            features.append(x)
        flat = x.permute(0, 2, 3, 4, 1).flatten(2)
        means = torch.cat([f.mean((3, 4)) for f in features], 1).transpose(1, 2)
        likeness = functional.normalize(self._linear(means, "frame_sim_layer.projection"), dim=2)
        parts = [
            self._compared(_histograms(frames), "color_hist_layer"),
            self._compared(likeness, "frame_sim_layer"),
            flat,
        ]
        hidden = functional.relu(self._linear(torch.cat(parts, 2), "fc1"))
        return self._linear(hidden, "cls_layer2")[..., 0]

    def _block(self, x: Tensor, name: str) -> Tensor:
        """Two layers of dilated convolutions with a shortcut around the second."""
        from torch.nn import functional

        first = functional.relu(self._dilated(x, f"{name}.DDCNN.0"))
        second = functional.relu(self._dilated(first, f"{name}.DDCNN.1"))
        return functional.avg_pool3d(second + first, (1, 2, 2))

    def _dilated(self, x: Tensor, name: str) -> Tensor:
        import torch
        from torch.nn import functional

        w = self._weights
        parts = []
        for dilation in (1, 2, 4, 8):
            layers = f"{name}.Conv3D_{dilation}.layers"
            flat = functional.conv3d(x, w[f"{layers}.0.weight"], padding=(0, 1, 1))
            parts.append(
                functional.conv3d(
                    flat,
                    w[f"{layers}.1.weight"],
                    padding=(dilation, 0, 0),
                    dilation=(dilation, 1, 1),
                )
            )
        mean, variance = w[f"{name}.bn.running_mean"], w[f"{name}.bn.running_var"]
        scale, shift = w[f"{name}.bn.weight"], w[f"{name}.bn.bias"]
        return functional.batch_norm(
            torch.cat(parts, 1), mean, variance, scale, shift, training=False, eps=_EPS
        )

    def _compared(self, vectors: Tensor, name: str) -> Tensor:
        """Features (B, T, 128) of how alike each frame's unit vector is to those around it."""
        from torch.nn import functional

        alike = functional.pad(vectors @ vectors.transpose(1, 2), (_LOOKUP // 2, _LOOKUP // 2))
        count = alike.shape[1]
        band = alike.unfold(2, _LOOKUP, 1)[:, range(count), range(count)]
        return functional.relu(self._linear(band, f"{name}.fc"))

    def _linear(self, x: Tensor, name: str) -> Any:
        from torch.nn import functional

        return functional.linear(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])


def _histograms(frames: Tensor) -> Tensor:
    """(B, T, 512) unit vectors: how many pixels have each colour, of three bits a channel."""
    import torch
    from torch.nn import functional

    bits = frames.long() >> 5
    bins = ((bits[..., 0] << 6) + (bits[..., 1] << 3) + bits[..., 2]).flatten(2)
    counts = torch.zeros(*bins.shape[:2], 512)
    counts.scatter_add_(2, bins, torch.ones_like(bins, dtype=torch.float32))
    return functional.normalize(counts, dim=2)
