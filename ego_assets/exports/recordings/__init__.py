"""Writes Rerun recordings, one an episode (`writer.write_rerun`)."""
