"""Backends: one file a model family, lazy imports, and the registry. No Dagster."""
