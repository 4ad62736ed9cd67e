"""The asset of a LeRobot data set."""

from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from ego_assets.episodes.feature import EPISODES
from ego_assets.exports.files import IN_LAKE
from ego_assets.exports.grid import ExportError
from ego_assets.exports.lake_episodes import ContentSettings
from ego_assets.exports.lake_export import export_lerobot
from ego_assets.exports.lerobot.settings import LeRobotFiles
from ego_assets.graph.metadata import text_table
from resources.storage import Storage


class LeRobotContent(ContentSettings, dg.Config):
    """Which episodes, and which numbers of them."""


class LeRobotForm(LeRobotFiles, dg.Config):
    """How pictures are coded and how large files get."""


class LeRobotConfig(dg.Config):
    """Launchpad form of lerobot_dataset."""

    out: str = Field(
        default="",
        description="folder of the data set; empty: exports/lerobot in the lake's folder",
    )
    content: LeRobotContent = LeRobotContent()
    form: LeRobotForm = LeRobotForm()


def _folder(given: str, storage: Storage) -> Path:
    lake = storage.lake()
    if given:
        return Path(given).expanduser()
    if "://" in lake.location:
        raise dg.Failure("the lake is on S3: give `out`, a local folder", allow_retries=False)
    return lake.root / IN_LAKE / "lerobot"


@dg.asset(
    deps=[table.name for table in EPISODES.tables],
    group_name=EPISODES.name,
    kinds={"python", "lerobot"},
    op_tags={"ego/gpus": "0", "ego/gpu_memory_gb": "0", "ego/cpus": "2"},
    description="The episodes of the lake as a LeRobot data set (version 3). Each materialization "
    "brings it up to date: what did not change is left as it is.",
)
def lerobot_dataset(
    context: dg.AssetExecutionContext, config: LeRobotConfig, storage: Storage
) -> dg.MaterializeResult[None]:
    out = _folder(config.out, storage)
    content = ContentSettings(**dict(config.content))
    form = LeRobotFiles(**dict(config.form))

    def tell(done: int, total: int) -> None:
        if done == total or done % 100 == 0:
            context.log.info(f"{done} of {total} episodes")

    try:
        done = export_lerobot(storage.lake(), out, content, form, tell)
    except ExportError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    metadata: dict[str, Any] = {
        "folder": dg.MetadataValue.path(str(out)),
        "episode count": done.report.episodes,
        "frame count": done.report.frames,
        "encoded now": done.report.encoded,
        "kept from before": done.report.kept,
        "resumed": done.report.resumed,
        "removed": done.report.removed,
    }
    if done.skipped:
        metadata["left out count"] = len(done.skipped)
        rows = sorted(done.skipped.items())[:100]
        metadata["left out"] = text_table(("episode", "why"), rows)
    return dg.MaterializeResult(metadata=metadata)
