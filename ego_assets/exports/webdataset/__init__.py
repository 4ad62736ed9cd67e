"""Writes WebDataset shards (`writer.write_shards`)."""
