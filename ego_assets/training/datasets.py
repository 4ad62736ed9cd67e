"""Episodes of a lake as data sets of torch: by number, and as a stream.

Not here: batches and what has been delivered of an epoch (`loader`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch.distributed
from torch.utils.data import Dataset, IterableDataset, Sampler, get_worker_info

from ego_assets.exports.settings import ContentSettings
from ego_assets.reading import LakeReader
from ego_assets.training.order import (
    Window,
    WindowRun,
    deal,
    interleave,
    order_of_episodes,
    share_of,
    shuffled,
)
from ego_assets.training.samples import EpisodeSource, Sample, SampleMaker, ShardNumbers
from ego_assets.training.windows import WindowSettings, window_counts

POSITION = "stream_position"
"""Of a sample of a stream: its reader, and its number among what that reader gives."""


class EpisodeDataset(Dataset[Sample]):
    """Windows of the episodes of a lake by number, in the order of their names.

    All numbers are in memory (about 50 MB an hour at 30 frames a second), and shared with workers
    that are forked. Pictures are decoded as they are asked for: forward reads go on where the last
    one ended, others decode from the keyframe before, so that shuffling costs what the video's
    keyframes are apart; `EpisodeStream` shuffles without that. Samples are dicts (docs/reading.md).

    Args:
        lake: as `ego_assets.open` gives it.
        windows: what a sample has.
        content: which episodes, and which numbers of them, as `ego export lerobot` has them.
        open_videos: decoders that stay open in each worker.

    Raises ExportError if there is no such episode.
    """

    def __init__(
        self,
        lake: LakeReader,
        windows: WindowSettings | None = None,
        content: ContentSettings | None = None,
        *,
        open_videos: int = 4,
    ) -> None:
        self.windows = windows or WindowSettings()
        source = EpisodeSource(lake, content or ContentSettings())
        self.fps = source.content.fps
        self.episodes = source.load_all()
        self.skipped = dict(source.skipped)
        counts = [-(-len(e.frames) // self.windows.stride) for e in self.episodes]
        self._ends = np.cumsum(counts)
        self._maker = SampleMaker(lake, self.windows, open_videos)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, number: int) -> Sample:
        if not -len(self) <= number < len(self):
            raise IndexError(f"window {number} of {len(self)}")
        number %= len(self)
        place = int(np.searchsorted(self._ends, number, side="right"))
        episode = self.episodes[place]
        window = number - (int(self._ends[place - 1]) if place else 0)
        return self._maker.make(episode, window * self.windows.stride)

    def column(self, name: str) -> np.ndarray:
        """(ticks, n) of all episodes, such as `"action"`: for statistics."""
        return np.concatenate([e.columns[name] for e in self.episodes])


class _Epochs:
    """Seed and rank of what is read in epochs, and where in an epoch reading begins."""

    def __init__(self, seed: int, shuffle: bool, rank: int | None, ranks: int | None) -> None:
        is_one_of_many = torch.distributed.is_available() and torch.distributed.is_initialized()
        if rank is None:
            rank = torch.distributed.get_rank() if is_one_of_many else 0
        if ranks is None:
            ranks = torch.distributed.get_world_size() if is_one_of_many else 1
        if not 0 <= rank < ranks:
            raise ValueError(f"rank {rank} of {ranks}")
        self.seed, self.shuffle, self.rank, self.ranks = seed, shuffle, rank, ranks
        self.epoch = 0

    @property
    def _seed_of_order(self) -> tuple[int, int] | None:
        return (self.seed, self.epoch) if self.shuffle else None

    def _identity(self, windows: int) -> dict[str, Any]:
        """What must be as it was for a state to be of use."""
        names = ("seed", "shuffle", "rank", "ranks")
        return {name: getattr(self, name) for name in names} | {"windows": windows}

    def _check(self, state: Mapping[str, Any], windows: int) -> None:
        now = self._identity(windows)
        other = [f"{k} {state.get(k)}, not {now[k]}" for k in now if state.get(k) != now[k]]
        if other:
            raise ValueError(
                f"the state is of another order: {'; '.join(other)}. Other episodes make another "
                "number of windows: those added to the lake since, or rejected; `reviews_until` of "
                "the content settings leaves out what people said later"
            )


class WindowSampler(_Epochs, Sampler[int]):
    """Numbers of windows of an `EpisodeDataset` for one rank, each once over all ranks.

    Shuffled by seed and epoch. even: all ranks get as many, and less than `ranks` windows are left
    out of each epoch. rank, ranks: those of torch.distributed, if it is initialized, by default.
    """

    def __init__(
        self,
        dataset: EpisodeDataset,
        *,
        seed: int = 0,
        shuffle: bool = True,
        even: bool = False,
        rank: int | None = None,
        ranks: int | None = None,
    ) -> None:
        super().__init__(seed, shuffle, rank, ranks)
        self.dataset = dataset
        self._even = even
        self._delivered = self._start = 0

    def __len__(self) -> int:
        return len(self._numbers()) - self._start

    def windows_of_rank(self, workers: int) -> list[int]:
        """How many windows this rank gets in an epoch: workers do not divide them."""
        return [len(self._numbers())]

    def __iter__(self) -> Iterator[int]:
        yield from self._numbers()[self._start :].tolist()

    def _numbers(self) -> np.ndarray:
        total = len(self.dataset)
        seed = self._seed_of_order
        numbers = np.arange(total)
        if seed is not None:
            numbers = np.random.default_rng(seed).permutation(total)
        end = total - total % self.ranks if self._even else total
        return numbers[self.rank : end : self.ranks]

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch: another order of the same seed."""
        self.epoch, self._delivered, self._start = epoch, 0, 0

    def mark(self, batch: Mapping[str, Any]) -> None:
        """Count a batch as delivered. `EpisodeLoader` does."""
        self._delivered += len(batch["tick"])

    def state_dict(self) -> dict[str, Any]:
        """Which windows have been delivered, as plain values."""
        identity = self._identity(len(self.dataset))
        return identity | {"epoch": self.epoch, "delivered": self._delivered}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on behind what had been delivered. Raises ValueError for a state of another order."""
        self._check(state, len(self.dataset))
        self.set_epoch(state["epoch"])
        self._delivered = self._start = state["delivered"]

    def torch_arguments(self) -> dict[str, Any]:
        """What a DataLoader is made of."""
        return {"dataset": self.dataset, "sampler": self}


class EpisodeStream(_Epochs, IterableDataset[Sample]):
    """Windows of the episodes of a lake, shuffled, with every frame decoded once.

    Windows are dealt out in one piece to each worker of each rank, so that all have as many, give
    or take one, and each window comes once. A worker reads `lanes` episodes side by side from
    their beginnings, and draws from a buffer of `buffer` windows: it holds their pictures. Shards
    are shuffled, and the episodes of each; numbers of a few shards are in memory at a time.

    Args:
        lake, windows, content: as of `EpisodeDataset`.
        seed: of the order, which it determines with the epoch, the ranks and the workers.
        shuffle: False reads episode by episode, in the order of their names.
        buffer: windows that are held in each worker; 0: those side by side come in turn.
        lanes: episodes that are read side by side in each worker, each with an open decoder.
        even: all workers get as many windows (less than `ranks * workers` are left out of each
            epoch), so that all ranks get as many batches.
        rank, ranks: those of torch.distributed, if it is initialized, by default.

    Iterating begins where `load_state_dict` says, until `set_epoch`. Raises ExportError if there is
    no such episode; while iterating FileNotFoundError, BadInputError or LakeError, which name the
    video or the shard, if it is gone or damaged.
    """

    def __init__(
        self,
        lake: LakeReader,
        windows: WindowSettings | None = None,
        content: ContentSettings | None = None,
        *,
        seed: int = 0,
        shuffle: bool = True,
        buffer: int = 512,
        lanes: int = 4,
        even: bool = False,
        rank: int | None = None,
        ranks: int | None = None,
    ) -> None:
        super().__init__(seed, shuffle, rank, ranks)
        if lanes < 1 or buffer < 0:
            raise ValueError(f"{lanes} lanes and a buffer of {buffer}: give at least 1 and 0")
        self.windows = windows or WindowSettings()
        self._source = EpisodeSource(lake, content or ContentSettings())
        self.fps = self._source.content.fps
        self.index = self._source.index()
        self.skipped = dict(self._source.skipped)
        self._counts = window_counts(self.index, self.windows.stride)
        self._total = int(self._counts.sum())
        self._buffer, self._lanes = (buffer, lanes) if shuffle else (0, 1)
        self._even = even
        self._delivered: dict[int, int] = {}
        self._start: dict[int, int] = {}
        self._readers: int | None = None
        self._start_readers: int | None = None
        self._first_worker = 0

    def __len__(self) -> int:
        """Windows of this rank."""
        return sum(self.windows_of_rank(1))

    def windows_of_rank(self, workers: int) -> list[int]:
        """How many windows each worker of this rank gets in an epoch."""
        workers = max(workers, 1)
        readers = range(self.rank * workers, (self.rank + 1) * workers)
        shares = (share_of(self._total, r, workers * self.ranks, self._even) for r in readers)
        return [end - first for first, end in shares]

    def __iter__(self) -> Iterator[Sample]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        # Batches come from the workers in turn: that of the next one first.
        worker = (worker + self._first_worker) % workers
        readers = self.ranks * workers
        if self._start_readers not in (None, readers):
            raise ValueError(
                f"the state is of {self._start_readers} readers (ranks x workers), these are "
                f"{readers}: use as many as then, or begin an epoch"
            )
        reader = self.rank * workers + worker
        start = self._start.get(reader, 0)
        for number, sample in enumerate(self._samples(reader, readers, start), start):
            self._delivered[reader], self._readers = number + 1, readers
            yield sample | {POSITION: torch.tensor([reader, number, readers])}

    def _samples(self, reader: int, readers: int, start: int) -> Iterator[Sample]:
        """What a reader gives, from its `start`-th sample on."""
        runs = self._runs(reader, readers)
        maker = SampleMaker(self._source.reader, self.windows, self._lanes)
        wanted: dict[str, set[str]] = {}
        for run in runs:
            episode = self.index[run.episode]
            wanted.setdefault(episode.shard, set()).add(episode.episode_id)
        numbers = ShardNumbers(self._source, wanted, self._lanes + 1)

        def make(window: Window) -> Sample:
            episode, n = window
            return maker.make(numbers.of(self.index[episode]), n * self.windows.stride)

        seed = self._seed_of_order
        random = np.random.default_rng((*seed, reader)) if seed is not None else None
        steps = shuffled(interleave(runs, self._lanes), self._buffer, random)
        passed: set[Window] = set()  # entered, and has not left: what the buffer holds
        while start and (step := next(steps, None)) is not None:
            entering, leaving = step
            if entering is not None:
                passed.add(entering)
            if leaving is not None:
                passed.remove(leaving)
                start -= 1
        try:
            held = {window: make(window) for window in sorted(passed)}
            for entering, leaving in steps:
                if entering is not None:
                    held[entering] = make(entering)
                if leaving is not None:
                    yield held.pop(leaving)
        finally:
            maker.close()

    def _runs(self, reader: int, readers: int) -> list[WindowRun]:
        order = order_of_episodes([e.shard for e in self.index], self._seed_of_order)
        return deal(self._counts, order, *share_of(self._total, reader, readers, self._even))

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch: another order of the same seed. Call it before workers are started."""
        self.epoch, self._first_worker = epoch, 0
        self._readers = self._start_readers = None
        self._delivered, self._start = {}, {}

    def mark(self, batch: Mapping[str, Any]) -> None:
        """Count a batch as delivered. `EpisodeLoader` does; without workers iterating does."""
        reader, number, readers = batch[POSITION][-1].tolist()
        self._delivered[reader], self._readers = number + 1, readers
        workers = readers // self.ranks
        self._first_worker = (reader - self.rank * workers + 1) % workers

    def state_dict(self) -> dict[str, Any]:
        """How much of each reader's windows has been delivered, as plain values.

        In the process that iterates, or that marks batches. A DataLoader of torch alone reads ahead
        in its workers, and tells this process nothing.
        """
        return self._identity(self._total) | {
            "epoch": self.epoch,
            "delivered": {str(reader): n for reader, n in self._delivered.items()},
            "readers": self._readers,
            "first_worker": self._first_worker,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on behind what had been delivered. Raises ValueError for a state of another order.

        What the buffer held is decoded again.
        """
        self._check(state, self._total)
        self.set_epoch(state["epoch"])
        self._delivered = {int(reader): n for reader, n in state["delivered"].items()}
        self._start = dict(self._delivered)
        self._readers = self._start_readers = state["readers"]
        self._first_worker = state["first_worker"]

    def torch_arguments(self) -> dict[str, Any]:
        """What a DataLoader is made of."""
        return {"dataset": self}
