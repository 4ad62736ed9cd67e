"""Reads raw files that lie on S3."""
