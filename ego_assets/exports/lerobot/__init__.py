"""Writes LeRobot data sets of version 3 (`writer.write_dataset`)."""
