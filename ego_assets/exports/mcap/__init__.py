"""Writes MCAP files with Foxglove's schemas (`writer.write_mcap`)."""
