"""Folders of weights of a test's own that hold the default weights of this machine, too."""

from __future__ import annotations

from pathlib import Path

from ego_assets.models.packaged.declaration import HAND_NETS
from ego_assets.models.weights import weights_root


def link_hand_nets(root: Path) -> None:
    """Let a folder of all weights hold the hand nets, which `make weights` brings."""
    place = root / HAND_NETS.archive.folder
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(weights_root() / HAND_NETS.archive.folder)
