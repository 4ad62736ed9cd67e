"""Readers of the formats that telemetry comes in, a module each."""
