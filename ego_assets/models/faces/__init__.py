"""Faces in pictures, found by a small network."""
