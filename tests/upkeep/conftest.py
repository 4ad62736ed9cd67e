"""The bench of the stages, for what is done to lakes that stages made."""

from tests.engine.conftest import bench  # noqa: F401
