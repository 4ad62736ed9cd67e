"""Faces made unrecognizable in pictures."""
