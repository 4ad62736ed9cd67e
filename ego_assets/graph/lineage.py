"""Which columns of a table hold values of another table's column of the same name, unchanged.

Here: what names videos, clips, frames and tracks through the graph. Not here: columns that are
computed: what they come from is said by the dependencies of the table, as a whole.
"""

from __future__ import annotations

import dagster as dg

_CLIP = {"video_id": "clips", "clip_id": "clips"}


def _rows_of(table: str, *columns: str) -> dict[str, str]:
    return _CLIP | dict.fromkeys(columns, table)


CARRIED: dict[str, dict[str, str]] = {
    "clips": {"video_id": "video_manifest"},
    "detections": _CLIP,
    "object_masks": _CLIP,
    "hand_masks": _CLIP,
    "hand_poses": _rows_of("hand_masks", "track_id", "side", "frame_index", "pts_s", "is_context"),
    "scene_reconstruction": _CLIP,
    "object_poses": _rows_of("object_masks", "track_id", "frame_index", "pts_s", "is_context")
    | {"world_id": "scene_reconstruction"},
    "object_movements": _rows_of("object_masks", "track_id"),
    "robot_mappings": _rows_of(
        "hand_poses", "track_id", "side", "frame_index", "pts_s", "is_context"
    ),
}
"""{table: {column: the table above that it is of}}."""


def column_lineage(table: str) -> dg.TableColumnLineage:
    """For the metadata of a table's asset."""
    return dg.TableColumnLineage(
        {
            column: [dg.TableColumnDep(asset_key=dg.AssetKey(origin), column_name=column)]
            for column, origin in CARRIED.get(table, {}).items()
        }
    )
