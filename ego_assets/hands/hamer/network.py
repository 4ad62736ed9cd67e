"""HaMeR's network, as functions over the official checkpoint's own tensors.

Here: its sizes, the names and shapes of its weights, crops to MANO parameters. Not here: reading
the files (`checkpoint`), crops (`crops`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ego_assets.models.device import autocast, compiled

BOX_ASPECT = 192 / 256
"""Width over height of what the network looks at: the middle of a square crop."""
MAX_SIDE = 2**14
"""Larger sizes in a configuration are no network's."""


@dataclass(frozen=True)
class Shape:
    """Sizes of the network; the defaults are the official ones (ViT-H and a decoder)."""

    side: int = 256
    width: int = 1280
    depth: int = 32
    heads: int = 16
    patch: int = 16
    head_width: int = 1024
    head_depth: int = 6
    head_heads: int = 8
    head_per_head: int = 64
    head_mlp: int = 1024
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape:
        """From a `model_config.yaml`. Raises KeyError for what is not there, ValueError for what
        makes no sense or is another network than the one that is built here.

        The official file says nothing of the backbone's depth and heads: they are those of ViT-H.
        """
        model = config["MODEL"]
        backbone, head = model["BACKBONE"], model["MANO_HEAD"]
        decoder = head["TRANSFORMER_DECODER"]
        for part, name, built in (
            (backbone, "TYPE", "vit"),
            (head, "TYPE", "transformer_decoder"),
            (head, "TRANSFORMER_INPUT", "zero"),
            (head, "JOINT_REP", "6d"),
            (head, "IEF_ITERS", 1),
            (decoder, "norm", "layer"),
        ):
            if part.get(name, built) != built:
                raise ValueError(f"{name} is {part[name]!r}, and only {built!r} is built here")
        found = cls(
            side=model["IMAGE_SIZE"],
            width=decoder["context_dim"],
            depth=backbone.get("DEPTH", cls.depth),
            heads=backbone.get("NUM_HEADS", cls.heads),
            head_width=decoder.get("dim", cls.head_width),
            head_depth=decoder["depth"],
            head_heads=decoder["heads"],
            head_per_head=decoder["dim_head"],
            head_mlp=decoder["mlp_dim"],
            mean=tuple(model["IMAGE_MEAN"]),
            std=tuple(model["IMAGE_STD"]),
        )
        sizes = {k: v for k, v in vars(found).items() if k not in ("mean", "std")}
        if not all(type(v) is int and 0 < v <= MAX_SIDE for v in sizes.values()):
            raise ValueError(f"sizes that are none: {sizes}")
        if found.width % found.heads:
            raise ValueError(f"{found.heads} heads do not share {found.width} channels")
        colours = np.array([found.mean, found.std], np.float64)
        if colours.shape != (2, 3) or not np.isfinite(colours).all() or colours[1].min() <= 0:
            raise ValueError(f"mean {found.mean} and deviation {found.std} of colours")
        return found

    @property
    def margin(self) -> int:
        """Pixels at the left and right of a crop that the network does not see."""
        return round(self.side * (1 - BOX_ASPECT) / 2)

    def layout(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every weight, as the official checkpoint has them."""
        width, inner = self.width, self.head_heads * self.head_per_head
        tokens = (self.side // self.patch) * ((self.side - 2 * self.margin) // self.patch)
        found: dict[str, tuple[int, ...]] = {"backbone.pos_embed": (1, tokens + 1, width)}

        def layer(name: str, *shape: int, bias: bool = True) -> None:
            found[f"{name}.weight"] = shape
            if bias:
                found[f"{name}.bias"] = shape[:1]

        layer("backbone.patch_embed.proj", width, 3, self.patch, self.patch)
        for block in range(self.depth):
            name = f"backbone.blocks.{block}"
            layer(f"{name}.norm1", width)
            layer(f"{name}.attn.qkv", 3 * width, width)
            layer(f"{name}.attn.proj", width, width)
            layer(f"{name}.norm2", width)
            layer(f"{name}.mlp.fc1", 4 * width, width)
            layer(f"{name}.mlp.fc2", width, 4 * width)
        layer("backbone.last_norm", width)
        head, decoder = "mano_head", "mano_head.transformer"
        found[f"{decoder}.pos_embedding"] = (1, 1, self.head_width)
        layer(f"{decoder}.to_token_embedding", self.head_width, 1)
        for block in range(self.head_depth):
            name = f"{decoder}.transformer.layers.{block}"
            for part in range(3):
                layer(f"{name}.{part}.norm", self.head_width)
            layer(f"{name}.0.fn.to_qkv", 3 * inner, self.head_width, bias=False)
            layer(f"{name}.0.fn.to_out.0", self.head_width, inner)
            layer(f"{name}.1.fn.to_kv", 2 * inner, width, bias=False)
            layer(f"{name}.1.fn.to_q", inner, self.head_width, bias=False)
            layer(f"{name}.1.fn.to_out.0", self.head_width, inner)
            layer(f"{name}.2.fn.net.0", self.head_mlp, self.head_width)
            layer(f"{name}.2.fn.net.3", self.head_width, self.head_mlp)
        for output, start, size in (
            ("decpose", "init_hand_pose", 96),
            ("decshape", "init_betas", 10),
            ("deccam", "init_cam", 3),
        ):
            layer(f"{head}.{output}", size, self.head_width)
            found[f"{head}.{start}"] = (1, size)
        return found


class HamerNetwork:
    """The network: crops to MANO parameters. Holds the tensors under their official names."""

    def __init__(
        self,
        shape: Shape,
        weights: Mapping[str, Any],
        device: Any,
        compile: bool | str = False,
        limit: Callable[[], int] | None = None,
    ) -> None:
        self.shape = shape
        self.weights = {name: value.to(device).float() for name, value in weights.items()}
        self.device = device
        self.token = compiled(self._token, compile, limit)

    def __call__(self, crops: Any) -> tuple[Any, Any, Any]:
        """(B, 3, S, S) normalised crops of right hands on the device to rotations
        (B, 16, 3, 3), betas (B, 10) and camera (B, 3): scale, x, y in halves of the crop."""
        import torch

        with torch.inference_mode():
            with autocast(self.device):
                token = self.token(crops)
            read = [self._read(token.float(), n) for n in ("decpose", "decshape", "deccam")]
            six = (self.weights["mano_head.init_hand_pose"] + read[0]).reshape(-1, 16, 2, 3)
            betas = self.weights["mano_head.init_betas"] + read[1]
            return rotations_of(six), betas, self.weights["mano_head.init_cam"] + read[2]

    def _token(self, crops: Any) -> Any:
        return self._decode(self._encode(crops))

    def _encode(self, crops: Any) -> Any:
        """(B, N, C): what the vision transformer makes of the patches."""
        import torch.nn.functional as F

        w, shape = self.weights, self.shape
        seen = crops[..., shape.margin : shape.side - shape.margin]
        name = "backbone.patch_embed.proj"
        x = F.conv2d(seen, w[f"{name}.weight"], w[f"{name}.bias"], shape.patch, padding=2)
        place = w["backbone.pos_embed"]
        # The first place belongs to a class token that is no more; training kept adding it.
        x = x.flatten(2).mT + place[:, 1:] + place[:, :1]
        for block in range(shape.depth):
            name = f"backbone.blocks.{block}"
            y = self._norm(x, f"{name}.norm1", 1e-6)
            q, k, v = self._linear(y, f"{name}.attn.qkv").chunk(3, -1)
            x = x + self._linear(_attend(q, k, v, shape.heads), f"{name}.attn.proj")
            y = self._linear(self._norm(x, f"{name}.norm2", 1e-6), f"{name}.mlp.fc1")
            x = x + self._linear(F.gelu(y), f"{name}.mlp.fc2")
        return self._norm(x, "backbone.last_norm", 1e-6)

    def _decode(self, context: Any) -> Any:
        """(B, D): one token that has looked at the patches."""
        import torch.nn.functional as F

        w, heads = self.weights, self.shape.head_heads
        name = "mano_head.transformer"
        # The input token is zero: of its embedding only the bias is left.
        x = w[f"{name}.to_token_embedding.bias"] + w[f"{name}.pos_embedding"]
        x = x.expand(len(context), 1, -1)
        for block in range(self.shape.head_depth):
            name = f"mano_head.transformer.transformer.layers.{block}"
            y = self._norm(x, f"{name}.0.norm")
            q, k, v = self._linear(y, f"{name}.0.fn.to_qkv").chunk(3, -1)
            x = x + self._linear(_attend(q, k, v, heads), f"{name}.0.fn.to_out.0")
            q = self._linear(self._norm(x, f"{name}.1.norm"), f"{name}.1.fn.to_q")
            k, v = self._linear(context, f"{name}.1.fn.to_kv").chunk(2, -1)
            x = x + self._linear(_attend(q, k, v, heads), f"{name}.1.fn.to_out.0")
            y = self._linear(self._norm(x, f"{name}.2.norm"), f"{name}.2.fn.net.0")
            x = x + self._linear(F.gelu(y), f"{name}.2.fn.net.3")
        return x[:, 0]

    def _read(self, token: Any, output: str) -> Any:
        return self._linear(token, f"mano_head.{output}")

    def _linear(self, x: Any, name: str) -> Any:
        import torch.nn.functional as F

        return F.linear(x, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"))

    def _norm(self, x: Any, name: str, eps: float = 1e-5) -> Any:
        import torch.nn.functional as F

        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return F.layer_norm(x, weight.shape, weight, bias, eps)


def _attend(q: Any, k: Any, v: Any, heads: int) -> Any:
    """Multi-head attention of (B, N, heads * C) queries, keys and values."""
    import torch.nn.functional as F

    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def rotations_of(six: Any) -> Any:
    """(..., 2, 3) to (..., 3, 3): two columns made orthonormal, the third their cross product
    (Zhou et al., "On the Continuity of Rotation Representations in Neural Networks", 2019)."""
    import torch
    import torch.nn.functional as F

    first = F.normalize(six[..., 0, :], dim=-1)
    along = (first * six[..., 1, :]).sum(-1, keepdim=True)
    second = F.normalize(six[..., 1, :] - along * first, dim=-1)
    return torch.stack([first, second, torch.cross(first, second, dim=-1)], dim=-1)
