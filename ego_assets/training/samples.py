"""Makes the samples of windows: numbers cut out of columns, pictures decoded.

Not here: which windows, in which order (`order`), batches (`loader`).
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping, Sized
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from ego_assets.exports.grid import ExportError
from ego_assets.exports.lake_episodes import LakeEpisodes
from ego_assets.exports.settings import ContentSettings
from ego_assets.operator import BadInputError
from ego_assets.reading import LakeError, LakeReader
from ego_assets.training.windows import (
    IndexedEpisode,
    TrainingEpisode,
    WindowSettings,
    ticks_around,
)

if TYPE_CHECKING:
    from ego_assets.media.cursor import FrameCursor

PICTURE, ACTION = "observation.images.ego", "action"
Sample = dict[str, Any]


class SampleMaker:
    """Makes samples of one process, with decoders that stay open between them.

    open_videos: decoders, those that were used last. May be pickled; a fork opens its own.
    """

    def __init__(self, reader: LakeReader, windows: WindowSettings, open_videos: int) -> None:
        self._reader = reader
        self._windows = windows
        self._open_videos = open_videos
        self._cursors = _Cursors()
        self._of_parents: list[_Cursors] = []

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_cursors": _Cursors(), "_of_parents": []}

    def make(self, episode: TrainingEpisode, tick: int) -> Sample:
        """The sample of the window whose present is this tick.

        Raises FileNotFoundError and BadInputError, naming the episode and its video, if the raw
        video is gone or does not decode.
        """
        import torch

        count, length = self._windows.observation, len(episode.frames)
        seen, seen_is_pad = ticks_around(tick, 1 - count, count, length)
        done, done_is_pad = ticks_around(tick, 0, self._windows.action, length)
        sample: Sample = {
            name: torch.from_numpy(values[done if name == ACTION else seen])
            for name, values in episode.columns.items()
        }
        if self._windows.size is not None:
            sample[PICTURE] = torch.from_numpy(self._pictures(episode, episode.frames[seen]))
        return sample | {
            "observation_is_pad": torch.from_numpy(seen_is_pad),
            "action_is_pad": torch.from_numpy(done_is_pad),
            "task": episode.task,
            "episode_id": episode.episode_id,
            "tick": tick,
            "frame_index": int(episode.frames[tick]),
        }

    def close(self) -> None:
        """Close the decoders of this process."""
        if self._cursors.are_mine:
            while self._cursors.opened:
                self._cursors.opened.popitem()[1][1].close()

    def _pictures(self, episode: TrainingEpisode, frames: np.ndarray) -> np.ndarray:
        """(n, 3, H, W) uint8 of raw frames."""
        assert self._windows.size is not None
        shown = np.zeros((len(frames), 3, *self._windows.size), np.uint8)
        where = f"episode {episode.episode_id}: its raw video {episode.video_id}"
        try:
            cursor = self._cursor(episode)
            for n, index in enumerate(frames.tolist()):
                frame = cursor.frame(index)
                if frame is None:
                    raise BadInputError(f"frame {index} does not decode")
                image = episode.undistort(frame.image) if episode.undistort else frame.image
                _put_in_the_middle(shown[n], image)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{where} of shard {episode.shard} is gone: bring it back, or retire the video: "
                f"{error}"
            ) from error
        except (BadInputError, IndexError) as error:
            raise BadInputError(f"{where} of shard {episode.shard}: {error}") from error
        return shown

    def _cursor(self, episode: TrainingEpisode) -> FrameCursor:
        if not self._cursors.are_mine:
            # Their files and threads are the parent's: closing them here could wait for ever.
            self._of_parents.append(self._cursors)
            self._cursors = _Cursors()
        opened = self._cursors.opened
        if episode.episode_id in opened:
            opened.move_to_end(episode.episode_id)
            return opened[episode.episode_id][0]
        while len(opened) >= self._open_videos:
            opened.popitem(last=False)[1][1].close()
        with ExitStack() as stack:
            place, windows = (episode.shard, episode.video_id), self._windows
            opening = self._reader.cursor(*place, windows.size, kept=windows.observation)
            cursor = stack.enter_context(opening)
            opened[episode.episode_id] = cursor, stack.pop_all()
        return cursor


class _Cursors:
    """Open decoders of a process by episode, the one that was used last at the end."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self.opened: OrderedDict[str, tuple[FrameCursor, ExitStack]] = OrderedDict()

    @property
    def are_mine(self) -> bool:
        return self._process == os.getpid()


def _put_in_the_middle(shown: np.ndarray, image: np.ndarray) -> None:
    """Copy an (h, w, 3) picture into a (3, H, W) one that is not smaller."""
    top, left = (shown.shape[1] - image.shape[0]) // 2, (shown.shape[2] - image.shape[1]) // 2
    place = shown[:, top : top + image.shape[0], left : left + image.shape[1]]
    place[...] = image.transpose(2, 0, 1)


class EpisodeSource:
    """The episodes of a lake that fit, and their numbers, read when they are asked for.

    Reviews are those of the moment at which it is made, or of `reviews_until`. skipped: {episode:
    why it does not fit}.
    """

    def __init__(self, reader: LakeReader, content: ContentSettings) -> None:
        from ego_assets.reviews.standing import why_left_out

        if content.faces == "blur":
            raise ExportError(
                "training windows show pictures as they were recorded: write an export with "
                "`--faces blur`, and train from that"
            )
        self.reader = reader
        left_out = why_left_out(reader.lake, content)
        self._lake = LakeEpisodes(reader, content, max_side_px=0, left_out=left_out)
        self.content = self._lake.resolved()

    @property
    def skipped(self) -> dict[str, str]:
        return self._lake.skipped

    def index(self) -> list[IndexedEpisode]:
        """All episodes by shard and name, from their times alone where that is enough.

        Raises ExportError if there is none.
        """
        self.skipped.clear()
        found = [
            IndexedEpisode(name, shard, ticks)
            for shard in self.reader.shards("episodes")
            for name, ticks in self._lake.lengths(shard, self.content).items()
        ]
        self._must_be_some(found)
        return found

    def load_all(self) -> list[TrainingEpisode]:
        """The numbers of all episodes by shard and name. Raises ExportError if there is none."""
        self.skipped.clear()
        shards = self.reader.shards("episodes")
        found = [episode for shard in shards for episode in self.load(shard).values()]
        self._must_be_some(found)
        return found

    def _must_be_some(self, found: Sized) -> None:
        if not found:
            first, why = next(iter(sorted(self.skipped.items())))
            raise ExportError(
                f"{self.reader.location}: none of {len(self.skipped)} episodes can be used; the "
                f"first: {first}: {why}"
            )

    def load(self, shard: str, wanted: set[str] | None = None) -> dict[str, TrainingEpisode]:
        """The numbers of a shard's episodes, or of those that are wanted."""
        found = self._lake.in_shard(shard, self.content, wanted)
        return {e.episode_id: TrainingEpisode.of(e, shard) for e in found}


class ShardNumbers:
    """Numbers of the episodes of some shards, a few shards at a time.

    wanted: {shard: names}; kept: shards.
    """

    def __init__(self, source: EpisodeSource, wanted: Mapping[str, set[str]], kept: int) -> None:
        self._source = source
        self._wanted = wanted
        self._kept = kept
        self._loaded: OrderedDict[str, dict[str, TrainingEpisode]] = OrderedDict()

    def of(self, episode: IndexedEpisode) -> TrainingEpisode:
        """Raises LakeError, naming shard and episode, if the lake has it no more."""
        shard = episode.shard
        if shard not in self._loaded:
            if len(self._loaded) >= self._kept:
                self._loaded.popitem(last=False)
            self._loaded[shard] = self._source.load(shard, self._wanted[shard])
        self._loaded.move_to_end(shard)
        found = self._loaded[shard].get(episode.episode_id)
        if found is None or len(found.frames) != episode.ticks:
            what = "is gone" if found is None else "has changed"
            raise LakeError(
                f"{self._source.reader.location}: episode {episode.episode_id} of shard {shard} "
                f"{what} since it was listed: open the lake again"
            )
        return found
