"""Reads the files of an official HaMeR release, and runs no code of theirs.

Here: which weights there must be, and what else may lie beside them. Not here: MANO's files
(`ego_assets.hands.mano`).
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

from ego_assets.hands.hamer.network import Shape
from ego_assets.models.weights import WeightsError, check_numbers

CHECKPOINT = "hamer_ckpts/checkpoints/hamer.ckpt"
CONFIG = "hamer_ckpts/model_config.yaml"
_UNUSED = {"discriminator", "mano", "initialized"}
_INERT_PACKAGES = {"yacs", "omegaconf", "pytorch_lightning", "lightning"}
_INERT_NAMES = {
    "typing.Any",
    "collections.defaultdict",
    *(f"{m}.{n}" for m in ("builtins", "__builtin__") for n in ("dict", "list", "int", "str")),
}


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
