"""Feeds episodes of a lake to torch: windows of pictures, states and actions.

Importing it loads torch, which is not among the dependencies of ego-assets: install the build of
your machine.
"""

from ego_assets.exports.settings import ContentSettings
from ego_assets.training.datasets import EpisodeDataset, EpisodeStream, WindowSampler
from ego_assets.training.loader import EpisodeLoader
from ego_assets.training.windows import WindowSettings

__all__ = [
    "ContentSettings",
    "EpisodeDataset",
    "EpisodeLoader",
    "EpisodeStream",
    "WindowSampler",
    "WindowSettings",
]
