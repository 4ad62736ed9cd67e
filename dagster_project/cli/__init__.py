"""`ego`: the command line, a module for the commands of each kind."""

from dagster_project.cli.program import main

__all__ = ["main"]
