"""Telemetry: what sensors beside the picture measured, and gravity from it."""
