"""Folders of weights of a test's own that hold the default weights of this machine, too."""

from __future__ import annotations

from pathlib import Path

from ego_assets.models.packaged.declaration import PACKAGED
from ego_assets.models.weights import weights_root


def link_default_weights(root: Path) -> None:
    """Let a folder of all weights hold those that `make weights` brings."""
    for weights in PACKAGED.values():
        if weights.is_default:
            place = root / weights.archive.folder
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(weights_root() / weights.archive.folder)
