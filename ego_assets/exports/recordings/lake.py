"""The episodes of a lake with what the viewer shows of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ego_assets.exports.episode import ExportEpisode
from ego_assets.exports.folder import digest_of
from ego_assets.exports.grid import ExportError, Grid
from ego_assets.exports.lake_episodes import LakeEpisodes, nobody_objects
from ego_assets.exports.motion.lake import grid_of_frames
from ego_assets.exports.settings import ContentSettings, NumbersSettings
from ego_assets.reading import LakeReader
from ego_assets.viewing.footage import ShownClips, parts_of_episode
from ego_assets.viewing.shown import SHOWN
from resources.lake import Lake


@dataclass(frozen=True)
class ShownEpisode:
    """An episode, a tick a frame. footage: what is shown of it; shown: changes with that."""

    episode: ExportEpisode
    footage: Callable[[], ShownClips]
    shown: str

    @property
    def episode_id(self) -> str:
        return self.episode.episode_id


class ShownEpisodes:
    """The episodes of a lake with their footage; iterating reads them one shard at a time."""

    def __init__(
        self,
        lake: Lake,
        content: NumbersSettings,
        max_side_px: int,
        left_out: Callable[[str], str | None] = nobody_objects,
    ) -> None:
        self._lake = lake
        self._reader = LakeReader(lake)
        chosen = ContentSettings.model_validate(content.model_dump())
        self._episodes = _EveryFrame(self._reader, chosen, max_side_px, left_out)
        self._shard = ""
        self._clips: list[dict[str, Any]] = []
        self._made: dict[str, dict[str, str]] = {}

    @property
    def skipped(self) -> dict[str, str]:
        return self._episodes.skipped

    def __len__(self) -> int:
        return len(self._episodes)

    def __iter__(self) -> Iterator[ShownEpisode]:
        for episode in self._episodes:
            try:
                yield self._shown(episode)
            except ExportError as error:
                self.skipped[episode.episode_id] = str(error)

    def _shown(self, episode: ExportEpisode) -> ShownEpisode:
        row = self._episodes.row
        if row["shard"] != self._shard:
            self._read(row["shard"])
        grid = episode.grid
        times = dict(zip(grid.frames.tolist(), grid.pts_s.tolist(), strict=True))
        of_video = [clip for clip in self._clips if clip["video_id"] == row["video_id"]]
        parts = parts_of_episode(row, of_video, times)
        if not parts:
            raise ExportError("the clips that it is made of are gone: materialize episodes again")
        names = {clip["clip_id"] for clip in parts}
        others = {clip["clip_id"] for clip in self._clips} - names
        made = {
            table: {item: by for item, by in of_items.items() if item not in others}
            for table, of_items in self._made.items()
        }
        failed = self._reader.failed_checks(self._shard)

        def footage() -> ShownClips:
            return ShownClips.of(
                self._reader, episode.episode_id, parts, self._episodes.max_side_px
            )

        return ShownEpisode(episode, footage, digest_of(parts, made, failed))

    def _read(self, shard: str) -> None:
        """Read which clips a shard has, and what made their rows."""
        self._shard = shard
        self._clips = self._reader.table("clips", shards=[shard]).to_pylist()
        self._made = {
            table: {
                item: f"{made.token} {made.fingerprint}"
                for item, made in self._lake.provenances(table, shard).items()
            }
            for table in SHOWN
        }


class _EveryFrame(LakeEpisodes):
    """Episodes with a tick a frame. row: that of the episode which was made last."""

    row: Mapping[str, Any]

    def lay_grid(self, cameras: pa.Table, settings: ContentSettings) -> Grid:
        return grid_of_frames(cameras)

    def _episode(
        self, row: Mapping[str, Any], tables: Any, settings: ContentSettings
    ) -> ExportEpisode:
        self.row = row
        return super()._episode(row, tables, settings)
