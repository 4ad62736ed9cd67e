"""Writes episodes, of a lake or of any other source, as data sets of other projects. No Dagster."""
