"""The tables: one row per shard, and one for the lake."""

from typing import Annotated, ClassVar

from pydantic import Field

from resources.lake.table import Float64, Int32, Table, Text, Unit


class _Footage(Table):
    key: ClassVar[tuple[str, ...]] = ("shard",)
    item_column: ClassVar[str] = "shard"

    shard: Text = Field(description="the Dagster partition; `lake` for the whole of it")
    clips: Int32 = Field(ge=0, description="clips that are counted")
    footage_s: Annotated[Float64, Unit("seconds")] = Field(
        ge=0, description="their length, without what neighbours share"
    )


class ShardFootage(_Footage):
    """One row per shard: how much footage it has."""

    table: ClassVar[str] = "shard_footage"


class LakeFootage(_Footage):
    """One row: how much footage the lake has."""

    table: ClassVar[str] = "lake_footage"
