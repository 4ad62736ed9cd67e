"""The assets of the graph: thin Dagster over `ego_assets.stages`. One table of the lake each."""
