"""The stage pipeline: plan a shard's units, run them in worker processes, publish, keep the ledger.

A stage knows the lake, the ledger and an operator behind its protocol; it knows no Dagster.
"""
