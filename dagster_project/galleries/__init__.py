"""The asset of galleries."""
