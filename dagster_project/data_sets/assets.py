"""The assets of data sets: a step each, that brings one up to date."""

from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field, create_model

from ego_assets.episodes.feature import EPISODES
from ego_assets.exports.files import IN_LAKE
from ego_assets.exports.grid import ExportError
from ego_assets.exports.lake_export import FORMATS, Format, LakeExport, export_episodes
from ego_assets.exports.s3.local_copy import SCHEME
from ego_assets.graph.metadata import text_table
from ego_assets.settings import Settings
from resources.storage import Storage


def _folder(given: str, name: str, storage: Storage) -> Path | str:
    lake = storage.lake()
    if given:
        return given if given.startswith(SCHEME) else Path(given).expanduser()
    if "://" in lake.location:
        raise dg.Failure("the lake is on S3: give `out`", allow_retries=False)
    return lake.root / IN_LAKE / name


def _config(name: str, content: type[Settings], form: type[Settings]) -> type[dg.Config]:
    """Launchpad form of a data set."""

    def part(settings: type[Settings]) -> Any:
        made = create_model(
            f"{settings.__name__}Config", __base__=(settings, dg.Config), __doc__=settings.__doc__
        )
        return made, made()

    out = Field(
        default="",
        description="folder of the data set, or s3://bucket/prefix; empty: "
        f"exports/{name} in the lake's folder",
    )
    return create_model(
        f"{name}_config",
        __base__=dg.Config,
        out=(str, out),
        content=part(content),
        form=part(form),
    )


def _data_set(of: Format) -> dg.AssetsDefinition:
    """An asset that brings a data set in one format up to date."""

    def materialize(
        context: dg.AssetExecutionContext, config: dg.Config, storage: Storage
    ) -> dg.MaterializeResult[None]:
        asked: Any = config
        out = _folder(asked.out, of.name, storage)
        chosen: Any = of.content(**dict(asked.content))
        coded = of.form(**dict(asked.form))

        def tell(done: int, total: int) -> None:
            if done == total or done % 100 == 0:
                context.log.info(f"{done} of {total} episodes")

        try:
            done = export_episodes(of.name, storage.lake(), out, chosen, coded, tell)
        except ExportError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        return dg.MaterializeResult(metadata=_metadata(out, done))

    # Dagster makes the launchpad of the class that the annotation names.
    materialize.__annotations__["config"] = _config(of.name, of.content, of.form)
    return dg.asset(
        name=f"{of.name}_dataset",
        deps=[table.name for table in EPISODES.tables],
        group_name=EPISODES.name,
        kinds={"python", of.name},
        op_tags={"ego/gpus": "0", "ego/gpu_memory_gb": "0", "ego/cpus": "2"},
        description=f"The episodes of the lake as {of.what}. Each materialization brings it up to "
        "date: what did not change is left as it is.",
    )(materialize)


def _metadata(out: Path | str, done: LakeExport) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "folder": dg.MetadataValue.path(str(out)),
        "episodes written": done.report.episodes,
        "frames": done.report.frames,
        "encoded now": done.report.encoded,
        "kept from before": done.report.kept,
        "resumed": done.report.resumed,
        "removed": done.report.removed,
    }
    if done.skipped:
        metadata["left out count"] = len(done.skipped)
        rows = sorted(done.skipped.items())[:100]
        metadata["left out"] = text_table(("episode", "why"), rows)
    return metadata


DATA_SETS = [_data_set(made) for made in FORMATS.values()]
