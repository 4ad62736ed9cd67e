"""Fetches videos from links into the raw lake."""
