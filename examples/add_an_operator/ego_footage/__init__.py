"""Operators over more than a clip: one looks at a whole shard, one at the whole lake."""

from ego_assets.feature import OUR_LICENCE, BackendEntry, Feature, Stage, TableInfo
from ego_assets.settings import Settings
from ego_footage.tables import LakeFootage, ShardFootage


class FootageSettings(Settings):
    """shard_footage, lake_footage."""

    with_hands_only: bool = False


FOOTAGE = Feature(
    "footage",
    tables=(
        TableInfo(ShardFootage, preview=None, drift=None),
        TableInfo(LakeFootage, preview=None, drift=None),
    ),
    stages=(
        Stage(
            "shard_footage",
            operator="footage_counter",
            item="shard",
            tables=("shard_footage",),
            settings=FootageSettings,
            inputs=("clips", "hand_masks"),
        ),
        Stage(
            "lake_footage",
            operator="footage_adder",
            item="lake",
            tables=("lake_footage",),
            settings=FootageSettings,
            inputs=("shard_footage",),
            deps=("shard_footage",),
        ),
    ),
    backends=(
        BackendEntry(
            "footage_counter",
            "baseline",
            "ego_footage.operators:FootageCounter",
            FootageSettings,
            OUR_LICENCE,
        ),
        BackendEntry(
            "footage_adder",
            "baseline",
            "ego_footage.operators:FootageAdder",
            FootageSettings,
            OUR_LICENCE,
        ),
    ),
)
