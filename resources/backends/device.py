"""Where models run: the GPU that this process may see, or the CPU.

Here: the device and the precision on it. Not here: which GPU, which the executor decides
(CUDA_VISIBLE_DEVICES).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any


def pick_device() -> Any:
    """The `torch.device` for a model: CUDA where there is one."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(device: Any) -> AbstractContextManager[Any]:
    """bfloat16 where it pays (CUDA); float32 on the CPU, so that results there are exact."""
    import torch

    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()
