"""Measurements of accuracy and speed. Nothing of the platform imports this package."""
