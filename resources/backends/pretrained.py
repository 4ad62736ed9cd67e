"""Models as transformers saves them: a folder with `config.json` and `model.safetensors`.

Here: reading them strictly, without running or fetching anything. Not here: any model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from resources.backends.weights import WeightsError


def load_saved(cls: Any, folder: Path, model_type: str, what: str) -> Any:
    """A model of a transformers class from a `save_pretrained` folder, on the CPU, in evaluation
    mode, in float32.

    model_type: what its configuration must say it is; what: the name of it for people. Only
    safetensors are read, nothing is fetched, and no weight may lack or be left over. Raises
    WeightsError.
    """
    import torch
    from transformers import AutoConfig
    from transformers.utils import logging

    logging.disable_progress_bar()  # of loading: a worker's log is for what went wrong
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        if config.model_type != model_type:
            raise WeightsError(f"{folder} holds a {config.model_type}, not a {model_type} model")
        model, info = cls.from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except WeightsError:
        raise
    except Exception as error:  # each library has its own for files that are cut off or not theirs
        raise WeightsError(
            f"{folder} cannot be read as {what} weights: {type(error).__name__}: {error}"
        ) from error
    wrong = [*info["missing_keys"], *info["mismatched_keys"], *info["unexpected_keys"]]
    if wrong:
        raise WeightsError(
            f"{folder} is not a whole {what}: {len(wrong)} weights are missing, of another shape "
            f"or not known, such as {wrong[0]}"
        )
    return model.eval()
