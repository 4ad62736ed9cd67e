"""Networks and words of folders that transformers' `save_pretrained` wrote.

Here: strict loading, from local files alone; the tokens of CLIP's vocabulary. Not here: what a
network is for.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ego_assets.models.weights import WeightsError, check_numbers

START, END = "<|startoftext|>", "<|endoftext|>"
_ELSEWHERE = ("transformers_weights", "quantization_config")
"""What makes transformers read other files than the hashed one, or change what they hold."""
_CODE = ("attn_implementation", "_attn_implementation", "experts_implementation")
"""How a network is computed; the name of a repository here would be fetched, and run."""


def load_pretrained(folder: Path, model_type: str, network: str, title: str) -> Any:
    """The network of a `save_pretrained` folder, on the CPU, in float32 and evaluation mode.

    network: its class in transformers; title: what people call it. Only `config.json` and
    safetensors are read, nothing is fetched, and no code that a folder brings along is run.
    Raises WeightsError unless each weight is there, of the right shape, and no other.
    """
    import torch
    import transformers
    from transformers.utils import logging

    logging.disable_progress_bar()  # of loading: a worker's log is for what went wrong
    info: dict[str, Any]
    try:
        config = _read_json(folder / "config.json")
        if config.get("model_type") != model_type:
            raise WeightsError(
                f"{folder} holds a {config.get('model_type')}, not a {model_type} model"
            )
        if told := [name for name in _ELSEWHERE if config.get(name)]:
            raise WeightsError(f"{folder}/config.json has {told[0]}: only plain weights are read")
        model, info = getattr(transformers, network).from_pretrained(
            folder,
            config=transformers.CONFIG_MAPPING[model_type].from_dict(_without_code(config)),
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,  # they are told of below, all of them
            output_loading_info=True,
        )
    except WeightsError:
        raise
    except Exception as error:  # each library has its own for files that are cut off or not theirs
        raise WeightsError(
            f"{folder} cannot be read as {title} weights: {type(error).__name__}: {error}"
        ) from error
    shapes = [f"{n} {tuple(a)} for {tuple(b)}" for n, a, b in info["mismatched_keys"]]
    wrong = sorted([*info["missing_keys"], *info["unexpected_keys"], *shapes])
    if wrong:
        raise WeightsError(
            f"{folder} is not a whole {title}: {len(wrong)} weights are missing, of another shape "
            f"or not known, such as {wrong[0]}"
        )
    check_numbers(folder, dict(model.named_parameters()))
    return model.eval()


def _without_code(config: Any) -> Any:
    """A configuration, and those within it, without names of code."""
    if isinstance(config, dict):
        return {k: _without_code(v) for k, v in config.items() if k not in _CODE}
    return config


def _read_json(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise WeightsError(f"{path} holds no JSON object")
    return found


def text_tokens(folder: Path, texts: Sequence[str], length: int, size: int) -> tuple[Any, Any]:
    """(N, length) int64 tokens of texts, padded with zeros, and 1 where there are any.

    Of CLIP's byte-pair encoding in `vocab.json` and `merges.txt`. size: of the network's
    vocabulary. Raises WeightsError if these files are damaged or of another network, or a text is
    too long for it.
    """
    import torch
    from transformers import CLIPTokenizer

    try:
        vocabulary = _read_json(folder / "vocab.json")
        lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
        merges: Any = [tuple(x.split()) for x in lines if x and not x.startswith("#version")]
        if not {START, END} <= vocabulary.keys():
            raise WeightsError(f"{folder}/vocab.json is not CLIP's: {START} or {END} is missing")
        if any(type(i) is not int or not 0 <= i < size for i in vocabulary.values()):
            raise WeightsError(f"{folder}/vocab.json is of another network: of {size} tokens")
        found = CLIPTokenizer(vocab=vocabulary, merges=merges)(list(texts))["input_ids"]
    except WeightsError:
        raise
    except Exception as error:  # json, unicode and tokenizers each have errors of their own
        raise WeightsError(
            f"the words of {folder} (vocab.json, merges.txt) cannot be read: "
            f"{type(error).__name__}: {error}"
        ) from error
    tokens = torch.zeros(len(texts), length, dtype=torch.int64)
    is_text = torch.zeros(len(texts), length, dtype=torch.int64)
    for row, (text, ids) in enumerate(zip(texts, found, strict=True)):
        if len(ids) > length:
            raise WeightsError(
                f"the network of {folder} reads {length - 2} tokens, and {text!r} of the "
                f"vocabulary has {len(ids) - 2}: say it in fewer words"
            )
        tokens[row, : len(ids)] = torch.tensor(ids)
        is_text[row, : len(ids)] = 1
    return tokens, is_text
