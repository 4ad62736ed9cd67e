"""Paths, atomic publish, schema-checked reads and writes of the tables. No Dagster."""

from resources.lake.holdings import file_unit_id
from resources.lake.lake import Lake, Published
from resources.lake.parquet import LakeError
from resources.lake.provenance import Provenance

__all__ = ["Lake", "LakeError", "Provenance", "Published", "file_unit_id"]
