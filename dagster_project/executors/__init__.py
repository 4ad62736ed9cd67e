"""Executors: how the steps of a run find processes and devices."""
