"""Writes HDF5 files and videos in the layout of EgoDex (`writer.write_egodex`)."""
