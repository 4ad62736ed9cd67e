"""Writes episodes as data sets of other projects: formats and files, no Dagster, no lake."""
