"""The Dagster project: definitions, jobs, the command line."""
