"""Writes Zarr stores and previews in the layout of EgoVerse (`writer.write_egoverse`)."""
