"""A table of its own for ego-assets: how sharp the picture of each clip is."""
