"""What the graph runs on: the lake, the ledger, the backends, and their Dagster resources.

The subpackages `lake`, `ledger` and `backends` know the schemas and protocols, never Dagster;
the modules beside them adapt them to Dagster.
"""
