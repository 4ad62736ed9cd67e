"""The data contract: what every table of the lake holds. No Dagster, no torch, no files."""

from ego_assets.schemas.base import ContractError, Table
from ego_assets.schemas.tables import TABLES

__all__ = ["TABLES", "ContractError", "Table"]
