"""Lenses undone: what a pinhole camera would see in their place."""
