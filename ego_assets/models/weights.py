"""Files of model weights: where they lie, what they hash to, what is wrong with them.

Here: paths and bytes. Not here: any model, and any fetching (`packaged`): a run never does that.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ego_assets.feature import WeightFiles
from ego_assets.models.packaged.declaration import names_of
from resources.environment import cache_folder, weights_folder


class WeightsError(RuntimeError):
    """Weights that are missing, damaged, of another model, or not to be trusted."""


class WeightsMissingError(WeightsError):
    """No weights where they are looked for."""


def weights_root(given: str = "") -> Path:
    """The folder of all weights: the one given, else EGO_WEIGHTS, else ~/.cache/ego."""
    return Path(given or weights_folder() or "~/.cache/ego").expanduser()


def find_files(root: Path, names: Iterable[WeightFiles]) -> list[Path]:
    """The files of those names below `root`, and those that match a pattern, of which there may be
    none. Raises WeightsMissingError that names those that are not there."""
    matched = list(_matched(root, names))
    missing = [name for name in matched if not (root / name).is_file()]
    if missing:
        places = ", ".join(str(root / name) for name in missing)
        raise WeightsMissingError(
            f"no weights at {places}: {_remedy(root, missing)}, or name another folder with "
            "EGO_WEIGHTS or `weights_dir`"
        )
    return [root / name for name in matched]


def _remedy(root: Path, missing: list[str]) -> str:
    """What brings files that are not there."""
    names = names_of(missing)
    if not names:
        return "put them there (docs/models.md says where they come from)"
    place = "" if root == weights_root() else f" --weights-dir {shlex.quote(str(root))}"
    command = f"run `ego weights fetch {' '.join(names)}{place}`"
    if all(names_of([path]) for path in missing):
        return command
    return f"{command}, put the others there (docs/models.md says where they come from)"


def hash_files(root: Path, names: Iterable[WeightFiles]) -> str:
    """SHA-256, hex, over the names and the bytes of files below `root`. Raises WeightsError."""
    found = sorted(set(_matched(root, names)))
    lines = [f"{n} {sha256(p)}" for n, p in zip(found, find_files(root, found), strict=True)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _matched(root: Path, names: Iterable[WeightFiles]) -> Iterator[str]:
    """The names that are given, and the files that match a pattern."""
    for name in names:
        if isinstance(name, str):
            yield name
            continue
        folder, pattern = name
        # Unlike Path.glob, this leaves out hidden files.
        for found in glob.glob(pattern, root_dir=root / folder, recursive=True):  # noqa: PTH207
            if (root / folder / found).is_file():
                yield f"{folder.rstrip('/')}/{found}"


def sha256(path: Path) -> str:
    """SHA-256 of a file; known if it was hashed before and its size and mtime are the same."""
    digest = _known(cache_file("hashes.json")).get(_state(path))
    return digest if isinstance(digest, str) else read_sha256(path)


def read_sha256(path: Path) -> str:
    """SHA-256 of a file as it is read now: a disk may damage one that looks the same. What `sha256`
    knows of it is put right."""
    state = _state(path)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    update_cache(cache_file("hashes.json"), {state: found})
    return found


def _state(path: Path) -> str:
    stat = path.stat()
    return f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}"


def check_numbers(place: Path, weights: Mapping[str, Any]) -> None:
    """Of torch tensors by name. Raises WeightsError unless all are real and finite numbers."""
    import torch

    for name, held in weights.items():
        is_plain = held.layout == torch.strided and held.is_floating_point() and held.is_cpu
        if not is_plain or not bool(torch.isfinite(held).all()):
            raise WeightsError(f"{place}: {name} has what is no number: was it written whole?")


def cache_file(name: str) -> Path:
    """Where this machine remembers what it would have to compute again."""
    return Path(cache_folder()).expanduser() / "ego" / name


def _known(path: Path) -> dict[str, Any]:
    """A JSON object in a file; an empty one if there is none."""
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text())
        return found if isinstance(found, dict) else {}
    return {}


def update_cache(path: Path, entries: dict[str, Any]) -> None:
    """Add to a JSON object in a file, whole or not at all. A home that may not be written only
    costs time."""
    known = _known(path)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(f".{os.getpid()}")
        aside.write_text(json.dumps(known | entries))
        aside.replace(path)
