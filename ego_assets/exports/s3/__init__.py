"""Exports that lie in a bucket."""
