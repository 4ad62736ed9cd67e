"""Names the tables that are shown of a clip. Here, since only drawing needs OpenCV."""

SHOWN = (
    "object_masks",
    "hand_masks",
    "hand_poses",
    "scene_reconstruction",
    "object_poses",
    "object_movements",
    "robot_mappings",
)
"""In the order in which they are drawn."""
