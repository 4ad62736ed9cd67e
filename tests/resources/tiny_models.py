"""Tiny random checkpoints in the formats of the real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any


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
