"""Sample videos: short first-person scenes, rendered with exact ground truth.

A textured room and table, boxes that are grasped, carried and put down by articulated hands, a
moving head, cuts, sounds of contact. Deterministic by seed. Not here: anything of the platform.
"""

from samples.render import render_sample
from samples.truth import Truth, load_truth

__all__ = ["Truth", "load_truth", "render_sample"]
