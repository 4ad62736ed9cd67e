"""HaMeR 3D hands (Pavlakos et al., "Reconstructing Hands in 3D with Transformers", CVPR 2024).

Here: the network as functions over the official checkpoint's own tensors, crops, cameras, takes,
rows. Not here: the MANO hand (`mano`), where hands are (`hand_masks`), smoothing (`smoothing`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from ego_assets.hands.baseline.estimator import hand_axes
from ego_assets.hands.baseline.fit import hand_box
from ego_assets.hands.mano import ManoHand, read_mano
from ego_assets.hands.settings import HamerSettings
from ego_assets.hands.takes import (
    bones_m,
    count_votes,
    fixed_shapes,
    owner_of,
    side_of,
)
from ego_assets.models.batching import MicroBatcher
from ego_assets.models.device import autocast, compiled, pick_device, to_device, to_host
from ego_assets.models.memory import ElasticBatch
from ego_assets.models.weights import WeightsError, check_numbers
from ego_assets.operator import Carried, ClipInput, ClipOutput, Intrinsics
from ego_assets.vision.cameras import normalised_points, project_points
from ego_assets.vision.geometry import quaternion_from_matrix
from ego_assets.vision.rle import decode_crop
from ego_assets.vision.smoothing import smoothed_rotations, smoother

CHECKPOINT = "hamer_ckpts/checkpoints/hamer.ckpt"
CONFIG = "hamer_ckpts/model_config.yaml"
MANO = "data/mano/MANO_RIGHT.pkl"
BOX_SCALE = 2.0
"""A crop is so many times the hand's box (without the forearm), as the network was trained."""
BOX_ASPECT = 192 / 256
"""Width over height of what the network looks at: the middle of a square crop."""
BLUR_OVER = 1.1
"""A crop that is shrunk by more than twice as much is blurred: what the official code takes."""
BATCH = 32
"""Crops at once, where neither the settings nor a measurement say."""
MIN_SCALE = 1e-2
"""Smaller predictions of the camera's scale are noise; they would put the hand beyond 100 m."""

MAX_SIDE = 2**14
"""Larger sizes in a configuration are no network's."""
MIN_DEPTH_M = 1e-3
POSES_AT_ONCE = 256

_UNUSED = {"discriminator", "mano", "initialized"}
_INERT_PACKAGES = {"yacs", "omegaconf", "pytorch_lightning", "lightning"}
_INERT_NAMES = {
    "typing.Any",
    "collections.defaultdict",
    *(f"{m}.{n}" for m in ("builtins", "__builtin__") for n in ("dict", "list", "int", "str")),
}


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


# -- files -----------------------------------------------------------------------------------


def read_checkpoint(folder: Path) -> tuple[Shape, dict[str, Any]]:
    """Shape and weights of the folder of an official release, on the CPU, key by key as expected.

    Raises WeightsError for files that are cut off, of another network, or that would run code.
    """
    import torch
    import yaml

    path = folder / CHECKPOINT
    try:
        shape = Shape.of(yaml.safe_load((folder / CONFIG).read_text()))
        with torch.serialization.safe_globals(_inert_globals(path)):
            held = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        state = held["state_dict"]
        weights = {k: v for k, v in state.items() if k.partition(".")[0] not in _UNUSED}
        shapes = {k: tuple(v.shape) for k, v in weights.items()}
    except WeightsError:
        raise
    except Exception as error:  # torch, zip and yaml each have errors of their own
        raise WeightsError(
            f"{folder} cannot be read as a HaMeR checkpoint: {type(error).__name__}: {error}"
        ) from error
    wanted = shape.layout()
    wrong = sorted(n for n in wanted.keys() | shapes.keys() if wanted.get(n) != shapes.get(n))
    if wrong:
        name = wrong[0]
        raise WeightsError(
            f"{path} is not the network of {CONFIG}: {len(wrong)} weights differ, the first: "
            f"{name} should be {wanted.get(name, 'absent')}, is {shapes.get(name, 'absent')}"
        )
    check_numbers(path, weights)
    return shape, weights


def _inert_globals(path: Path) -> list[Any]:
    """Stand-ins for the classes of training settings, which Lightning stores beside the weights.

    They do nothing. Raises WeightsError for any other class or function.
    """
    from torch.serialization import get_unsafe_globals_in_checkpoint

    found = get_unsafe_globals_in_checkpoint(path)
    hostile = [
        n for n in found if n.partition(".")[0] not in _INERT_PACKAGES and n not in _INERT_NAMES
    ]
    if hostile:
        raise WeightsError(
            f"{path} wants {', '.join(hostile)}, which no weights need: do not trust this file"
        )
    return [(type("Inert", (_InertSettings,), {}), name) for name in found]


class _InertSettings:
    """Becomes a plain dictionary, whatever it is given: what torch fills without running code."""

    def __new__(cls, *args: Any, **named: Any) -> Any:
        return OrderedDict()


# -- crops and cameras -----------------------------------------------------------------------


@dataclass(frozen=True)
class Crop:
    """The square of a picture around a hand. centre: pixels, of pixel centres; side: pixels."""

    centre: tuple[float, float]
    side: float
    is_left: bool

    @classmethod
    def around(cls, box: list[float], is_left: bool) -> Crop:
        """Of a box x_min, y_min, x_max, y_max that holds the hand's pixels whole."""
        width, height = BOX_SCALE * (box[2] - box[0]), BOX_SCALE * (box[3] - box[1])
        centre = ((box[0] + box[2]) / 2 - 0.5, (box[1] + box[3]) / 2 - 0.5)
        return cls(centre, max(height, width / BOX_ASPECT), is_left)

    def cut(self, image: np.ndarray, size: int) -> np.ndarray:
        """(size, size, 3) uint8, black outside of the picture; a left hand is mirrored.

        What is shrunk by much is blurred before, as in the official code: fine patterns would
        come out as coarse ones.
        """
        zoom = size / self.side
        flip = -1 if self.is_left else 1
        (x, y), middle = self.centre, size / 2
        move = np.array([[flip * zoom, 0, middle - flip * zoom * x], [0, zoom, middle - zoom * y]])
        shrink = self.side / size / 2
        if shrink > BLUR_OVER:
            image, corner = self._blurred(image, (shrink - 1) / 2)
            move[:, 2] += move[:, :2] @ corner
        return cv2.warpAffine(image, move, (size, size), flags=cv2.INTER_LINEAR)

    def _blurred(self, image: np.ndarray, sigma: float) -> tuple[np.ndarray, np.ndarray]:
        """The part of the picture that the crop is cut from, blurred, and its corner (x, y)."""
        reach = round(4 * sigma)
        half = self.side / 2 + reach + 2
        low, high = (np.array(self.centre) + sign * half for sign in (-1, 1))
        size = np.array(image.shape[1::-1])
        (left, top), (right, bottom) = (np.clip(e, 0, size).astype(int) for e in (low, high))
        part = image[top:bottom, left:right]
        if part.size:
            kernel = (2 * reach + 1, 2 * reach + 1)
            part = cv2.GaussianBlur(part, kernel, sigma, borderType=cv2.BORDER_REPLICATE)
            return part, np.array([left, top], np.float64)
        return image, np.zeros(2)

    def translation(self, camera: np.ndarray, intrinsics: Intrinsics) -> np.ndarray:
        """(3,) metres from the camera to MANO's origin, of the network's scale, x, y.

        Weak perspective in the crop, x + x0 over the half side being 1 / scale, is full
        perspective at the depth where as many metres fill as many pixels of the real camera.
        """
        scale = max(float(camera[0]), MIN_SCALE)
        focal = (intrinsics.fx + intrinsics.fy) / 2
        depth = 2 * focal / (self.side * scale)
        x, y = normalised_points(intrinsics, np.array([self.centre]))[0] * depth
        flip = -1 if self.is_left else 1
        return np.array([x + flip * camera[1], y + camera[2], depth])


@dataclass(frozen=True)
class Look:
    """What the network says of one hand in one frame; arrays as of `HamerNetwork`, one hand's."""

    mask: dict[str, Any]
    crop: Crop
    rotations: np.ndarray
    betas: np.ndarray
    camera: np.ndarray


class HamerEstimator:
    """`hand_masks` and frames → `hand_poses`: a look at each hand, and then at all of its track.

    Through a take a track's side is what most of its masks say, the bones of the wearer's hands
    (and of each other hand) keep their lengths, and poses are smoothed over time.
    """

    name = "hamer"
    version = "4"
    quality_tier = "reference"
    weights_hash = ""
    on_device = True
    lanes = 4

    def __init__(self, settings: HamerSettings, weights: Path) -> None:
        import torch

        folder = weights / settings.checkpoint
        self.settings = settings
        self.batch = batch = settings.crops_per_batch or BATCH
        elastic = ElasticBatch(self._look, batch)
        self.look = MicroBatcher(elastic, batch)
        self.device = pick_device()
        shape, tensors = read_checkpoint(folder)
        self.network = HamerNetwork(
            shape, tensors, self.device, settings.compile, lambda: elastic.limit
        )
        self.constants = [torch.tensor(v, device=self.device) for v in (shape.mean, shape.std)]
        self.mano = ManoHand.of(read_mano(folder / MANO), self.device)

    @staticmethod
    def check(settings: HamerSettings, weights: Path) -> str:
        """What the weights hold, for people. Raises WeightsError."""
        folder = weights / settings.checkpoint
        _, tensors = read_checkpoint(folder)
        read_mano(folder / MANO)
        return f"HaMeR of {sum(t.numel() for t in tensors.values()) / 1e6:.1f} M parameters, MANO"

    def process(self, clip: ClipInput, carried: Carried | None) -> ClipOutput:
        """One row per mask row. Carried over: sides and shapes."""
        masks = clip.tables["hand_masks"].to_pylist()
        known = carried or {}
        votes = count_votes(masks, clip.first_new_frame, known.get("votes", {}))
        tracks: dict[str, list[Look]] = {}
        for look in self._looks(clip, masks, votes):
            tracks.setdefault(look.mask["track_id"], []).append(look)
        joints = {t: self._joints_of(clip, looks) for t, looks in tracks.items()}
        seen = [
            (track, owner_of(track, votes[track]), look.betas, _reason(clip, look, hand) is None)
            for track, looks in tracks.items()
            for look, hand in zip(looks, joints[track], strict=True)
        ]
        shapes = fixed_shapes(seen, known.get("shapes", {}))
        rows: list[dict[str, Any]] = []
        for track, looks in tracks.items():
            rows.extend(self._track(clip, looks, joints[track], np.array(shapes[track])))
        rows.sort(key=lambda r: (r["frame_index"], r["track_id"]))
        return ClipOutput({"hand_poses": rows}, carried={"votes": votes, "shapes": shapes})

    def _looks(
        self, clip: ClipInput, masks: list[dict[str, Any]], votes: dict[str, dict[str, float]]
    ) -> Iterator[Look]:
        held: list[tuple[dict[str, Any], Crop, np.ndarray]] = []
        for one in self._crops(clip, masks, votes):
            held.append(one)
            if len(held) == self.batch:
                yield from self._looked(held)
                held = []
        if held:
            yield from self._looked(held)

    def _looked(self, held: list[tuple[dict[str, Any], Crop, np.ndarray]]) -> Iterator[Look]:
        found = self.look([picture for _, _, picture in held])
        for (mask, crop, _), values in zip(held, found, strict=True):
            yield Look(mask, crop, *values)

    def _crops(
        self, clip: ClipInput, masks: list[dict[str, Any]], votes: dict[str, dict[str, float]]
    ) -> Iterator[tuple[dict[str, Any], Crop, np.ndarray]]:
        frames: dict[int, list[dict[str, Any]]] = {}
        for row in masks:
            frames.setdefault(row["frame_index"], []).append(row)
        shown = clip.frames.read(indices=sorted(frames)) if frames else ()
        for frame in shown:
            for row in sorted(frames[frame.index], key=lambda r: r["track_id"]):
                side = side_of(votes[row["track_id"]])
                mask = decode_crop(row.pop("rle"), row["height_px"], row["width_px"])
                crop = Crop.around(hand_box(mask) or row["box"], side == "left")
                yield row | {"side": side}, crop, crop.cut(frame.image, self.network.shape.side)

    def _look(self, pictures: list[np.ndarray]) -> list[tuple[np.ndarray, ...]]:
        """(rotations, betas, camera) of each crop, those of several clips at a time."""

        mean, std = self.constants
        pixels = to_device(np.stack(pictures), self.device)
        crops = ((pixels.float() / 255 - mean) / std).permute(0, 3, 1, 2)
        values = to_host(*self.network(crops))
        return list(zip(*(v.astype(np.float64) for v in values), strict=True))

    def try_batch(self, count: int) -> None:
        """Look at so many black crops, to see what memory that takes."""
        side = self.network.shape.side
        self._look([np.zeros((side, side, 3), np.uint8)] * count)

    def _pose(self, rotations: np.ndarray, betas: np.ndarray, is_left: bool) -> np.ndarray:
        """(N, 21, 3) joints in MANO's frame, metres, of (N, 16, 3, 3) and (N, 10)."""
        import torch

        found = []
        with torch.inference_mode():
            for start in range(0, len(rotations), POSES_AT_ONCE):
                part = slice(start, start + POSES_AT_ONCE)
                values = (
                    torch.as_tensor(v[part], dtype=torch.float32, device=self.device)
                    for v in (rotations, betas)
                )
                found.append(self.mano.pose(*values)[1].cpu().numpy().astype(np.float64))
        return np.concatenate(found) * ((-1 if is_left else 1), 1, 1)

    def _joints_of(self, clip: ClipInput, looks: list[Look]) -> np.ndarray:
        """(N, 21, 3) joints in the camera, metres, frame by frame as the network has them."""
        rotations, betas = (
            np.stack([getattr(x, n) for x in looks]) for n in ("rotations", "betas")
        )
        moves = np.stack([x.crop.translation(x.camera, clip.intrinsics) for x in looks])
        return self._pose(rotations, betas, looks[0].crop.is_left) + moves[:, None]

    def _track(
        self, clip: ClipInput, looks: list[Look], joints: np.ndarray, betas: np.ndarray
    ) -> Iterator[dict[str, Any]]:
        """Rows of a track, whose bones have the lengths of `betas` (10,)."""
        times = np.array([x.mask["pts_s"] for x in looks])
        reasons = [_reason(clip, x, j) for x, j in zip(looks, joints, strict=True)]
        trusted = np.array([r is None for r in reasons])
        weights = smoother(times, trusted, self.settings.smoothing_s)
        rotations = smoothed_rotations(weights, np.stack([x.rotations for x in looks]))
        posed = self._pose(rotations, np.tile(betas, (len(looks), 1)), looks[0].crop.is_left)
        # A hand that is larger than the network thought looks the same from further away.
        wrists = joints[:, 0] * (bones_m(posed) / bones_m(joints))[:, None]
        wrists[:, 2] = np.maximum(wrists[:, 2], MIN_DEPTH_M)
        depths = np.log(wrists[:, 2])
        deep = smoother(times, trusted, self.settings.depth_smoothing_s)
        flat = np.column_stack([weights @ (wrists[:, :2] / wrists[:, 2:]), np.ones(len(looks))])
        placed = posed - posed[:, :1] + (flat * np.exp(deep @ depths)[:, None])[:, None]
        for look, turns, hand, reason in zip(looks, rotations, placed, reasons, strict=True):
            yield self._row(clip, look, turns, betas, hand, reason)

    def _row(
        self,
        clip: ClipInput,
        look: Look,
        rotations: np.ndarray,
        betas: np.ndarray,
        joints: np.ndarray,
        reason: str | None,
    ) -> dict[str, Any]:
        mask = look.mask
        pose = Rotation.from_matrix(rotations).as_rotvec()
        if look.crop.is_left:
            pose = pose * (1, -1, -1)
        reason = reason or _reason(clip, look, joints)
        return clip.row(mask["frame_index"], mask["pts_s"]) | {
            "track_id": mask["track_id"],
            "side": mask["side"],
            "is_valid": reason is None,
            "invalid_reason": reason,
            "is_wearer": mask["is_wearer"],
            "joints_px": project_points(clip.intrinsics, joints).tolist(),
            "joints_camera_m": joints.tolist(),
            "camera_from_hand_m": joints[0].tolist(),
            "camera_from_hand_xyzw": quaternion_from_matrix(
                hand_axes(joints, mask["side"])
            ).tolist(),
            "mano_pose": pose.ravel().tolist(),
            "mano_betas": betas.tolist(),
            "box": mask["box"],
            "score": mask["score"],
            "backend": self.name,
            "quality_tier": self.quality_tier,
        }


def _reason(clip: ClipInput, look: Look, joints: np.ndarray) -> str | None:
    return _why_invalid(joints, project_points(clip.intrinsics, joints), look.mask["box"])


def _why_invalid(joints: np.ndarray, pixels: np.ndarray, box: list[float]) -> str | None:
    """The network is sure of everything: what it says is held against the mask and the arm."""
    if not 0.08 < joints[0, 2] < 3.0:
        return f"implausible distance of {joints[0, 2]:.2f} m"
    low, high = np.array(box[:2]), np.array(box[2:])
    margin = 0.25 * (high - low)
    inside = ((pixels > low - margin) & (pixels < high + margin)).all(axis=1).mean()
    if inside < 0.5:
        return f"only {100 * inside:.0f} % of the joints are at the mask"
    return None
