"""Where models run: the GPU that this process may see, or the CPU, and how they run on it.

Here: the device, the precision, copies to and fro, compilation. Not here: which GPU, which the
executor decides (CUDA_VISIBLE_DEVICES); memory that runs out (`memory`).
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cache
from typing import Any

import numpy as np

from ego_assets.models.memory import is_out_of_memory


def pick_device() -> Any:
    """The `torch.device` for a model: CUDA where there is one."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def precision(capability: tuple[int, int] | None) -> str:
    """The torch dtype that pays on a GPU of that compute capability (None: a CPU).

    bfloat16 from Ampere (8.0) on, float16 from Volta (7.0) on, where bfloat16 is only emulated;
    float32 before that, and on the CPU, so that results there are exact.
    """
    if capability is None or capability < (7, 0):
        return "float32"
    return "bfloat16" if capability >= (8, 0) else "float16"


def autocast(device: Any) -> AbstractContextManager[Any]:
    """Mixed precision on the device, if it pays there."""
    import torch

    if device.type != "cuda":
        return nullcontext()
    name = precision(torch.cuda.get_device_capability(device))
    return nullcontext() if name == "float32" else torch.autocast("cuda", getattr(torch, name))


def settle(model: Any, device: Any) -> Any:
    """A module on its device, for inference; its convolutions with channels last where it pays."""
    import torch

    model = model.to(device).eval().requires_grad_(False)
    return model.to(memory_format=torch.channels_last) if device.type == "cuda" else model


def to_device(array: np.ndarray, device: Any) -> Any:
    """A tensor of an array; to a GPU through pinned memory, so that nobody waits for the copy."""
    import torch

    tensor = torch.from_numpy(array)
    if device.type != "cuda":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


def to_host(*tensors: Any) -> list[np.ndarray]:
    """Arrays of tensors; of a GPU's, all are copied before the one wait."""
    import torch

    held = [t.to("cpu", non_blocking=True) for t in tensors]
    if any(t.is_cuda for t in tensors):
        torch.cuda.current_stream().synchronize()
    return [h.numpy() for h in held]


COMPILER = "inductor"


class Compiled:
    """A function through torch.compile; from the first time that this fails, the function itself.

    Compilation needs a C++ compiler (on a CPU) or Triton (on a GPU), and may not know what a
    network does: then it is a slower network, not a failed clip.

    mode: torch.compile's. Those of `COMPILE_MODES` replay a CUDA graph, on a GPU, which is of one
    shape: so a batch is filled up with zeros to the next power of four, at most `limit()`, of which
    there are few. limit: None for a function whose shapes are always the same. Whatever goes in or
    comes out has the batch for its first dimension.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        mode: str | None = None,
        limit: Callable[[], int] | None = None,
    ) -> None:
        import torch

        self.plain = function
        self.limit = limit if mode else None
        self.replays = mode is not None
        # What torch would make of shapes that change: one program, which no graph can be of.
        dynamic = False if mode else None
        self.quick: Callable[..., Any] | None = torch.compile(
            function, backend=COMPILER, mode=mode, dynamic=dynamic
        )

    def __call__(self, *args: Any, **named: Any) -> Any:
        if self.quick is not None:
            try:
                return (
                    self._replayed(*args, **named) if self.replays else self.quick(*args, **named)
                )
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                words = f"{type(error).__name__}: {str(error).strip()[:300]}"
            found = self.plain(*args, **named)  # an error of its own is raised here
            self.quick = None
            name = getattr(self.plain, "__qualname__", type(self.plain).__name__)
            logging.getLogger(__name__).warning("%s runs without torch.compile: %s", name, words)
            return found
        return self.plain(*args, **named)

    def _replayed(self, *args: Any, **named: Any) -> Any:
        import torch
        from torch.utils._pytree import tree_leaves, tree_map_only

        assert self.quick is not None
        size = None
        if self.limit is not None:
            size, most = len(next(iter(tree_leaves((args, named))))), self.limit()
            args, named = tree_map_only(torch.Tensor, lambda x: filled(x, most), (args, named))
        torch.compiler.cudagraph_mark_step_begin()
        found = self.quick(*args, **named)
        # A graph writes each result to where the one before lies.
        return tree_map_only(torch.Tensor, lambda x: x[:size].clone(), found)


def filled(batch: Any, most: int) -> Any:
    """(B, …) and zeros up to the next power of four, at most `most`; laid out alike for each size.

    torch compiles a function for eight shapes and layouts, and no more.
    """
    import torch

    size = min(4 ** (((len(batch) - 1).bit_length() + 1) // 2), most)
    rest = batch.new_zeros((max(0, size - len(batch)), *batch.shape[1:]))
    return torch.cat([batch, rest]).contiguous()


def compiled(
    function: Callable[..., Any], wanted: bool | str, limit: Callable[[], int] | None = None
) -> Callable[..., Any]:
    """The function, compiled if that is wanted, in the mode that is. limit: see `Compiled`."""
    if not wanted:
        return function
    return Compiled(function, wanted if isinstance(wanted, str) else None, limit)


def describe_device() -> str:
    """JSON of the GPU that this process has computed on, its driver and CUDA; empty if on none."""
    torch = sys.modules.get("torch")
    return _cuda() if torch is not None and torch.cuda.is_initialized() else ""


@cache
def _cuda() -> str:
    import torch

    major, minor = torch.cuda.get_device_capability()
    found = {
        "gpu": torch.cuda.get_device_name(),
        "compute_capability": f"{major}.{minor}",
        "driver": _driver_version(),
        "cuda": torch.version.cuda,
    }
    return json.dumps(found, sort_keys=True)


def _driver_version() -> str:
    import pynvml

    with suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        try:
            return str(pynvml.nvmlSystemGetDriverVersion())
        finally:
            pynvml.nvmlShutdown()
    return "unknown"
