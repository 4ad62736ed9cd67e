"""Refuses names on the command line that are not in the lake, and suggests what was meant.

Such a name is a mistake in the command: the exit status is 2, whatever kind of name it is.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ego_assets.catalog import TABLES
from ego_assets.models.suggestions import did_you_mean
from resources.lake import Lake
from resources.ledger import Ledger, State

if TYPE_CHECKING:
    from ego_assets.reading import LakeReader

MANIFEST = "video_manifest"
BAD = (State.QUARANTINED, State.FAILED, State.DROPPED)
LOOKED_AT = 5_000


class UnknownNameError(click.UsageError):
    """A name of which the lake knows nothing."""


class TableName(click.Choice[str]):
    """A table of the catalogue, or one of `more`."""

    def __init__(self, more: Iterable[str] = ()) -> None:
        super().__init__([*TABLES, *more])

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in self.choices:
            hint = (
                did_you_mean(str(value), self.choices) or f": there are {', '.join(self.choices)}"
            )
            self.fail(f"there is no table {value}{hint}", param, ctx)
        return str(value)


class TableOption(click.Option):
    """An option `--table` that also has an earlier name, `--stage`, which help does not show."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        found = super().get_help_record(ctx)
        return found and (found[0].replace(", --stage", ""), found[1])


STAGE_OPTION = click.option(
    "--table",
    "--stage",
    "stage",
    cls=TableOption,
    type=TableName(),
    help="Only this table.",
)
SHARD_OPTION = click.option("--shard", help="Only this shard.")
UNIT_OPTION = click.option("--unit", help="Only this clip (or video, or file).")
SHARDS_OPTION = click.option(
    "--shard", "shards", multiple=True, help="Only this shard; may be given again."
)


def check_shards(lake: Lake, given: Iterable[str]) -> None:
    """Raise UnknownNameError for a shard that the lake does not have."""
    if not (given := list(given)):
        return
    known = lake.shards()
    for shard in given:
        if shard not in known:
            more = did_you_mean(shard, known)
            raise UnknownNameError(f"there is no shard {shard} in {lake.location}{more}")


def check_names(lake: Lake, ledger: Ledger, shard: str | None, unit: str | None) -> None:
    """As `check_shards`, and for a clip, video or file of which the ledger knows nothing."""
    check_shards(lake, [shard] if shard else [])
    if unit is None or ledger.entries(item_id=unit, limit=1):
        return
    more = did_you_mean_unit(ledger, unit)
    raise UnknownNameError(f"there is no clip, video or file {unit} in {lake.location}{more}")


def find_clips(lake: LakeReader, name: str) -> list[dict[str, Any]]:
    """The clips that a name stands for, rows of `clips`: that of a clip, of a video, or of the file
    of a video (or its path); or the parts of clips that make up an episode. Raises
    UnknownNameError.
    """
    columns = ["video_id", "shard", "uri", "accepted", "reject_reason", "reject_detail"]
    videos = lake.table("video_manifest", columns=columns).to_pylist()
    mine = [v for v in videos if name == v["video_id"] or _is_file(name, v["uri"])]
    if len({video["video_id"] for video in mine}) > 1:
        ids = ", ".join(sorted({video["video_id"] for video in mine}))
        raise UnknownNameError(f"{name} may be one of these videos in {lake.location}: {ids}")
    of_clip = [v for v in videos if v["video_id"] == name.partition("-")[0]]
    for video in mine or of_clip:
        clips = [
            clip
            for clip in lake.table("clips", shards=[video["shard"]]).to_pylist()
            if clip["video_id"] == video["video_id"] and (mine or clip["clip_id"] == name)
        ]
        if clips:
            return clips
        if parts := [] if mine else _parts_of_episode(lake, video["shard"], name):
            return parts
    for video in mine:
        if not video["accepted"]:
            why = f"{video['reject_reason']}: {video['reject_detail']}"
            raise UnknownNameError(f"the video {name} was rejected, so it has no clips: {why}")
    if mine:
        raise UnknownNameError(f"the video {name} has no clips in {lake.location} yet: `ego run`")
    known = [each for v in videos for each in (v["video_id"], Path(v["uri"]).name)]
    for rows in lake.by_shard("clips", columns=["clip_id"]):
        known += rows["clip_id"].to_pylist()
        if len(known) > LOOKED_AT:
            break
    more = did_you_mean(name, known)
    raise UnknownNameError(f"there is no clip, episode or video {name} in {lake.location}{more}")


def find_video(lake: Lake, name: str) -> dict[str, Any]:
    """The row of `video_manifest` of a video, by its id, its file's name or path.

    Raises UnknownNameError.
    """
    rows = [row for shard in lake.shards() for row in lake.read(MANIFEST, shard).to_pylist()]
    mine = [row for row in rows if name == row["video_id"] or _is_file(name, row["uri"])]
    if not mine:
        known = [each for row in rows for each in (row["video_id"], Path(row["uri"]).name)]
        more = did_you_mean(name, known)
        raise UnknownNameError(
            f"there is no file {name}, nor such a video in {lake.location}{more}"
        )
    if len({row["video_id"] for row in mine}) > 1:
        ids = ", ".join(sorted({row["video_id"] for row in mine}))
        raise UnknownNameError(f"{name} may be one of these videos in {lake.location}: {ids}")
    return min(mine, key=lambda row: not row["accepted"])


def _parts_of_episode(lake: LakeReader, shard: str, name: str) -> list[dict[str, Any]]:
    """The clips of an episode, each from its first to its last frame in it."""
    from ego_assets.viewing.footage import parts_of_episode

    found = [e.row for e in lake.episodes(shards=[shard]) if e.id == name]
    clips = lake.table("clips", shards=[shard]).to_pylist() if found else []
    times = lake.times_of_episode(shard, name) if found else {}
    return [part for episode in found[:1] for part in parts_of_episode(episode, clips, times)]


def _is_file(name: str, uri: str) -> bool:
    return name in (uri, Path(uri).name) or str(Path(name).resolve()) == uri


def did_you_mean_unit(ledger: Ledger, given: str) -> str:
    """As `did_you_mean`, of clips, videos and files: of those that are equally close, one that
    failed. All that failed are looked at, and of the others as many as a moment allows."""
    bad = {entry.item_id for entry in ledger.entries(states=BAD, limit=LOOKED_AT)}
    known = bad | {entry.item_id for entry in ledger.entries(limit=LOOKED_AT)}
    close = difflib.get_close_matches(given, known, n=LOOKED_AT, cutoff=0.7)
    best = [name for name in close if _likeness(name, given) == _likeness(close[0], given)]
    meant = next((name for name in sorted(best) if name in bad), min(best, default=""))
    return f"; did you mean {meant}?" if meant else ""


def _likeness(name: str, given: str) -> float:
    return difflib.SequenceMatcher(None, name, given).ratio()
