"""The lake: paths, atomic publish, schema-checked reads and writes. No Dagster."""

from resources.lake.lake import Lake, LakeError
from resources.lake.provenance import Provenance

__all__ = ["Lake", "LakeError", "Provenance"]
