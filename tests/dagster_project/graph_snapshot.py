"""What a person sees of the graph, as JSON: keys, dependencies, groups, checks, jobs, tags.

`python tests/dagster_project/graph_snapshot.py` writes the golden file anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dagster as dg

GOLDEN = Path(__file__).with_name("graph.golden.json")


def snapshot(defs: dg.Definitions) -> dict[str, Any]:
    repository = defs.get_repository_def()
    graph = repository.asset_graph
    assets = {}
    for key in sorted(graph.get_all_asset_keys()):
        node = graph.get(key)
        assets[key.to_user_string()] = {
            "deps": sorted(k.to_user_string() for k in node.parent_keys),
            "group": node.group_name,
            "kinds": sorted(node.kinds),
            "code_version": node.code_version,
            "partitions": getattr(node.partitions_def, "name", None),
            "materializable": node.is_materializable,
            # None: one run a shard (ADR 14).
            "backfill_policy": node.backfill_policy and repr(node.backfill_policy),
            "automation": node.automation_condition and node.automation_condition.get_label(),
            "described": bool(node.description),
            "op_tags": dict(sorted(node.assets_def.op.tags.items())) if node.is_executable else {},
        }
    checks = {
        f"{k.asset_key.to_user_string()}:{k.name}": graph.get(k).blocking
        for k in sorted(graph.asset_check_keys)
    }
    jobs = sorted(j.name for j in repository.get_all_jobs() if not j.name.startswith("__"))
    return {
        "assets": assets,
        "checks": checks,
        "jobs": jobs,
        "schedules": {s.name: s.cron_schedule for s in repository.schedule_defs},
        "sensors": sorted(s.name for s in repository.sensor_defs),
        "resources": sorted(repository.get_top_level_resources()),
    }


if __name__ == "__main__":
    from dagster_project.definitions import build_defs

    GOLDEN.write_text(json.dumps(snapshot(build_defs()), indent=1) + "\n")
