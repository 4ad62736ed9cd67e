"""Recordings that a camera stored as several files, its chapters."""
