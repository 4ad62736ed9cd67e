"""Writes annotations and videos in the layout of VITRA (`writer.write_vitra`)."""
