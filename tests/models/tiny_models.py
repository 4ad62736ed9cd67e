"""Tiny random checkpoints in the formats of the real ones."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import yaml
from scipy.sparse import csc_matrix

from ego_assets.hands.hamer.checkpoint import CHECKPOINT, CONFIG
from ego_assets.hands.hamer.estimator import MANO
from ego_assets.hands.hamer.network import Shape

TINY_HAMER = {
    "MODEL": {
        "IMAGE_SIZE": 64,
        "IMAGE_MEAN": [0.485, 0.456, 0.406],
        "IMAGE_STD": [0.229, 0.224, 0.225],
        "BACKBONE": {"TYPE": "vit", "DEPTH": 2, "NUM_HEADS": 2},
        "MANO_HEAD": {
            "TRANSFORMER_DECODER": {
                "dim": 32,
                "depth": 2,
                "heads": 2,
                "dim_head": 8,
                "mlp_dim": 32,
                "context_dim": 32,
            }
        },
    }
}


class Tattletale:
    """A pickle of it writes a file where it is loaded."""

    def __init__(self, told: Path) -> None:
        self.told = told

    def __reduce__(self) -> Any:
        return Path.touch, (self.told,)


def tiny_sam2(folder: Path, seed: int = 0) -> Path:
    """A `save_pretrained` folder of a SAM 2 with a 64 px side and about a million weights.

    The memory's gates are opened (they start at almost zero), so that a lost memory shows.
    """
    import torch
    from transformers import Sam2VideoConfig, Sam2VideoModel

    torch.manual_seed(seed)
    side, hidden = 64, 128  # the memory is 64 wide, and has to be narrower
    sizes = [[16, 16], [8, 8], [4, 4]]
    config = Sam2VideoConfig(
        vision_config={
            "model_type": "sam2_vision_model",
            "backbone_config": {
                "model_type": "sam2_hiera_det_model",
                "hidden_size": 8,
                "image_size": [side, side],
                "blocks_per_stage": [1, 1, 2, 1],
                "embed_dim_per_stage": [8, 16, 32, 64],
                "num_attention_heads_per_stage": [1, 1, 2, 2],
                "window_size_per_stage": [4, 4, 4, 4],
                "global_attention_blocks": [3],
            },
            "backbone_channel_list": [64, 32, 16, 8],
            "backbone_feature_sizes": sizes,
            "fpn_hidden_size": hidden,
        },
        prompt_encoder_config={"hidden_size": hidden, "image_size": side, "patch_size": 16},
        mask_decoder_config={
            "hidden_size": hidden,
            "mlp_dim": 128,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 32,
        },
        image_size=side,
        memory_attention_hidden_size=hidden,
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=64,
        memory_attention_rope_feat_sizes=[4, 4],
        memory_encoder_hidden_size=hidden,
        mask_downsampler_embed_dim=hidden,
        memory_fuser_embed_dim=hidden,
        memory_fuser_intermediate_dim=64,
    )
    model = Sam2VideoModel(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1 and "norm" not in name:
                weight.normal_(0, 0.7 / weight[0].numel() ** 0.5)
            if name.endswith("scale"):
                weight.fill_(0.5)
        # In sight with a good margin: the point here is what is remembered, not what is found.
        head = model.mask_decoder.pred_obj_score_head
        head.proj_out.bias.fill_(3.0)
    model.save_pretrained(folder)
    return folder


def tiny_depth_anything(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """A `save_pretrained` folder of a metric Depth Anything V2 with a 56 px side."""
    import torch
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation

    torch.manual_seed(seed)
    backbone = {
        "model_type": "dinov2",
        "image_size": 56,
        "patch_size": 14,
        "hidden_size": 16,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "out_indices": [1, 2, 3, 4],
        "reshape_hidden_states": False,
    }
    sizes: dict[str, Any] = {
        "reassemble_hidden_size": 16,
        "neck_hidden_sizes": [8, 8, 16, 16],
        "fusion_hidden_size": 8,
        "head_hidden_size": 8,
        "depth_estimation_type": "metric",
        "max_depth": 20,
    }
    config = DepthAnythingConfig(backbone_config=backbone, **sizes | changes)
    _roughen(DepthAnythingForDepthEstimation(config)).save_pretrained(folder)
    return folder


def tiny_depth_pro(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """A `save_pretrained` folder of a DepthPro with a 128 px side and a view of the lens."""
    import torch
    from transformers import DepthProConfig, DepthProForDepthEstimation

    torch.manual_seed(seed)
    encoder = {
        "model_type": "dinov2",
        "image_size": 32,
        "patch_size": 8,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    sizes: dict[str, Any] = {
        "fusion_hidden_size": 16,
        "patch_size": 32,
        "intermediate_hook_ids": [1, 0],
        "intermediate_feature_dims": [16, 16],
        "scaled_images_feature_dims": [16, 16, 16],
        "use_fov_model": True,
    }
    encoders = {f"{n}_model_config": dict(encoder) for n in ("image", "patch", "fov")}
    model = DepthProForDepthEstimation(DepthProConfig(**sizes | encoders | changes))
    _roughen(model, gain=1.0)
    with torch.no_grad():
        model.head.layers[-2].bias.fill_(1.0)  # some depth wherever it looks
        if model.fov_model is not None:
            model.fov_model.head.layers[-1].bias.fill_(60.0)  # degrees
    model.save_pretrained(folder)
    return folder


def tiny_words(folder: Path) -> int:
    """`vocab.json` and `merges.txt` as CLIP's, of single letters and one merge; how many tokens."""
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *[f"{x}</w>" for x in letters], "ha", "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\nh a\n")
    return len(tokens)


def tiny_sam3(folder: Path, seed: int = 0) -> Path:
    """A `save_pretrained` folder of a SAM 3 with a 56 px side, and its words.

    It is sure of what it sees, and its memory's gates are open, so that a lost memory shows.
    """
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import Sam3VideoConfig, Sam3VideoModel

    torch.manual_seed(seed)
    side, hidden = 56, 128  # the memory is 64 wide, and has to be narrower
    small = {
        "hidden_size": hidden,
        "num_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    vision = {
        "model_type": "sam3_vision_model",
        "fpn_hidden_size": hidden,
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        "backbone_config": {
            "model_type": "sam3_vit_model",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": side,
            "pretrain_image_size": side,
            "patch_size": 14,
            "window_size": 2,
            "global_attn_indexes": [1],
        },
    }
    config = Sam3VideoConfig(
        detector_config={
            "model_type": "sam3",
            "vision_config": vision,
            "text_config": _tiny_text(tiny_words(folder), "clip_text_model", 32),
            "geometry_encoder_config": small,
            "detr_encoder_config": small,
            "detr_decoder_config": small | {"num_queries": 8},
            "mask_decoder_config": {"hidden_size": hidden, "num_attention_heads": 2},
        },
        tracker_config={
            "model_type": "sam3_tracker_video",
            "vision_config": vision,
            "image_size": side,
            "prompt_encoder_config": {"hidden_size": hidden, "image_size": side, "patch_size": 14},
            "mask_decoder_config": {
                "hidden_size": hidden,
                "mlp_dim": 64,
                "num_attention_heads": 2,
                "iou_head_hidden_dim": 32,
            },
            "memory_attention_hidden_size": hidden,
            "memory_attention_num_layers": 1,
            "memory_attention_feed_forward_hidden_size": 64,
            "memory_encoder_hidden_size": hidden,
            "mask_downsampler_embed_dim": hidden,
            "memory_fuser_embed_dim": hidden,
            "memory_fuser_intermediate_dim": 64,
        },
    )
    model = Sam3VideoModel(config)
    with torch.no_grad():
        _roughen(model)
        for name, weight in model.tracker_model.named_parameters():
            if name.endswith("scale"):
                weight.fill_(0.5)
        model.tracker_model.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(3.0)
        model.detector_model.detr_decoder.presence_head.layer3.bias.fill_(4.0)
    model.save_pretrained(folder)
    # transformers 5.23 writes the tracker's names with their prefix twice; Meta's file has it once.
    weights = load_file(folder / "model.safetensors")
    named = {
        k.replace("tracker_model.tracker_model.", "tracker_model."): weights[k] for k in weights
    }
    save_file(named, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def tiny_owlv2(folder: Path, seed: int = 0) -> Path:
    """A `save_pretrained` folder of an OWLv2 with a 64 px side, and its words."""
    import torch
    from transformers import Owlv2Config, Owlv2ForObjectDetection

    torch.manual_seed(seed)
    vision = {
        "image_size": 64,
        "patch_size": 16,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    words = _tiny_text(tiny_words(folder), "owlv2_text_model", 16)
    config = Owlv2Config(text_config=words, vision_config=vision, projection_dim=32)
    model = Owlv2ForObjectDetection(config)
    with torch.no_grad():
        _roughen(model)
    model.save_pretrained(folder)
    return folder


def _roughen(model: Any, gain: float = 0.7) -> Any:
    """Weights that let the picture through: fresh ones are so small that nothing would show."""
    import torch

    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1 and "norm" not in name:
                weight.normal_(0, gain / weight[0].numel() ** 0.5)
    return model


def _tiny_text(tokens: int, kind: str, length: int) -> dict[str, Any]:
    return {
        "model_type": kind,
        "vocab_size": tokens,
        "bos_token_id": tokens - 2,
        "eos_token_id": tokens - 1,
        "hidden_size": 32,
        "intermediate_size": 64,
        "projection_dim": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": length,
    }


def _as_if_from(module: str, name: str, base: type = object) -> Any:
    """A class that pickles as `module.name`, of a package that is not installed."""
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        part = ".".join(parts[:end])
        sys.modules.setdefault(part, ModuleType(part))
    made = type(name, (base,), {"__module__": module, "__qualname__": name})
    setattr(sys.modules[module], name, made)
    return made


def _forget(package: str) -> None:
    for name in [n for n in sys.modules if n == package or n.startswith(f"{package}.")]:
        del sys.modules[name]


def tiny_mano(path: Path, seed: int = 0) -> dict[str, np.ndarray]:
    """A file like MANO_RIGHT.pkl: its keys, shapes and foreign classes, and a random hand."""
    rng = np.random.default_rng(seed)
    weights = rng.random((778, 16)) ** 8
    regressor = rng.random((16, 778)) * (rng.random((16, 778)) < 0.02)
    parents = [2**32 - 1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14]
    arrays = {
        "v_template": rng.normal(0, 0.05, (778, 3)),
        "shapedirs": rng.normal(0, 0.003, (778, 3, 10)),
        "posedirs": rng.normal(0, 0.001, (778, 3, 135)),
        "J_regressor": regressor / regressor.sum(1, keepdims=True),
        "weights": weights / weights.sum(1, keepdims=True),
        "kintree_table": np.array([parents, range(16)], dtype=np.uint32),
    }
    # Fingers of the right hand go towards -x.
    wrist, middle = (arrays["J_regressor"] @ arrays["v_template"])[[0, 4], 0]
    for name in ("v_template", "shapedirs", "posedirs"):
        arrays[name][:, 0] *= -1 if middle > wrist else 1
    whole = _as_if_from("chumpy.ch", "Ch")()
    whole.x = np.concatenate([arrays["shapedirs"], arrays["shapedirs"]], axis=2)
    chosen = _as_if_from("chumpy.reordering", "Select")()
    places = np.arange(whole.x.size).reshape(whole.x.shape)[..., :10]
    chosen.a, chosen.idxs, chosen.preferred_shape = whole, places.ravel(), (778, 3, 10)
    file = arrays | {
        "shapedirs": chosen,
        "J_regressor": csc_matrix(arrays["J_regressor"]),
        "f": np.zeros((1538, 3), np.uint32),
        "hands_mean": np.zeros(45),
        "hands_components": np.eye(45),
        "bs_style": "lbs",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(file, protocol=2))
    _forget("chumpy")
    return arrays


def tiny_hamer(folder: Path, seed: int = 0, **extra: Any) -> Path:
    """A release folder as HaMeR's: a Lightning checkpoint, its configuration, a MANO file.

    extra: more that the checkpoint holds.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Any] = {}
    for name, shape in Shape.of(TINY_HAMER).layout().items():
        spread = 1.0 if name.endswith("pos_embed") else 0.7 / max(1, np.prod(shape[1:])) ** 0.5
        state[name] = torch.randn(shape, generator=generator) * spread
    state["mano_head.init_cam"] = torch.tensor([[0.9, 0.0, 0.0]])
    state["mano_head.deccam.weight"] *= 0.1
    state["discriminator.D_conv1.weight"] = torch.zeros(1)
    state["mano.v_template"] = torch.zeros(778, 3)
    state["initialized"] = torch.tensor(False)
    settings = _as_if_from("yacs.config", "CfgNode", dict)(TINY_HAMER)
    settings.__dict__["__immutable__"] = True
    for name in (CHECKPOINT, CONFIG):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    held = {"epoch": 3, "state_dict": state, "hyper_parameters": {"cfg": settings}}
    torch.save(held | extra, folder / CHECKPOINT)
    _forget("yacs")
    (folder / CONFIG).write_text(yaml.safe_dump(TINY_HAMER))
    tiny_mano(folder / MANO, seed)
    return folder
