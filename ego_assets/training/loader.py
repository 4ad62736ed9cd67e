"""Batches of episodes, and a state to go on from in the middle of an epoch.

Not here: what is in a sample (`samples`), the order (`order`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch.utils.data import DataLoader

from ego_assets.training.datasets import EpisodeStream, WindowSampler


class EpisodeLoader:
    """Batches of an `EpisodeStream`, or of the data set of a `WindowSampler`, epoch after epoch.

    Each pass is an epoch of its own, with workers of its own. `state_dict()` counts what has been
    handed out, not what workers have read ahead: a batch is in it as soon as the loop has it.

    A batch of a stream is of one worker, so each worker ends with a batch that may be smaller;
    drop_last leaves those out (as many as `num_workers` in an epoch). With `even=True` of the
    source all ranks get as many batches.

    Args:
        source: what is read.
        batch_size: windows in a batch.
        num_workers: processes that decode; 0: this one.
        drop_last: whether to leave out batches that are smaller.
        options: of torch's DataLoader, such as `pin_memory`, `prefetch_factor`.
    """

    def __init__(
        self,
        source: EpisodeStream | WindowSampler,
        *,
        batch_size: int,
        num_workers: int = 0,
        drop_last: bool = False,
        **options: Any,
    ) -> None:
        ours = sorted({"dataset", "sampler", "shuffle", "persistent_workers"} & options.keys())
        if ours:
            raise ValueError(f"{', '.join(ours)}: the loader decides on that")
        self.source = source
        self._batch_size, self._num_workers = batch_size, num_workers
        self._options = options | {"drop_last": drop_last}
        self._state: Mapping[str, Any] | None = None

    @property
    def epoch(self) -> int:
        """The epoch that the next pass reads, or that this one does."""
        return self.source.epoch

    def __len__(self) -> int:
        """Batches of an epoch."""
        shares = self.source.windows_of_rank(self._num_workers)
        size = self._batch_size
        if self._options["drop_last"]:
            return sum(share // size for share in shares)
        return sum(-(-share // size) for share in shares)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if not len(self):  # a loop over epochs would never end
            shares = self.source.windows_of_rank(self._num_workers)
            raise ValueError(f"no batch of {self._batch_size} in an epoch: windows are {shares}")
        if self._state is None:
            self.source.set_epoch(self.source.epoch)
        else:
            self.source.load_state_dict(self._state)
        self._state = None
        batches: DataLoader[Any] = DataLoader(
            **self.source.torch_arguments(),
            batch_size=self._batch_size,
            num_workers=self._num_workers,
            **self._options,
        )
        for batch in batches:
            self.source.mark(batch)
            yield batch
        self.source.set_epoch(self.source.epoch + 1)

    def state_dict(self) -> dict[str, Any]:
        """What has been handed out, as plain values. Each rank has one of its own."""
        return self.source.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Begin the next pass behind what had been handed out.

        Raises ValueError for a state of another seed, rank or lake; iterating does for another
        number of workers.
        """
        self.source.load_state_dict(state)
        self._state = dict(state)
