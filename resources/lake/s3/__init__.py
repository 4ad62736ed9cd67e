"""Reaches S3, and keeps the lake there."""
