"""Reads frames of one video in any order, and forward without decoding anything twice.

Not here: how frames are decoded (`decode`), which ones are wanted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator
from functools import cached_property
from pathlib import Path
from types import TracebackType

import numpy as np

from ego_assets.media.decode import ClipFrames
from ego_assets.media.frame_index import index_frames
from ego_assets.operator import Frame

BYTES_IN_FLIGHT = 16 * 2**20
"""Bounds the pictures that libav's threads have in hand: many cursors may be open."""
WORTH_A_SEEK = 8
"""Frames that are decoded in vain rather than opening the file again."""


class FrameCursor:
    """A decoder that stands at a frame of a video.

    A frame ahead is decoded on to, or sought if a keyframe lies between; one behind is sought.
    To be closed (it is a context manager), and not to be used after a fork.

    fit: (height, width) that pictures are shrunk to fit into, never enlarged; kept: pictures that
    were asked for last, which windows that overlap ask for again; stream_index: as of `ClipFrames`.
    Raises BadInputError if the file is no video, FileNotFoundError if it is gone.
    """

    def __init__(
        self,
        path: Path,
        fit: tuple[int, int] | None = None,
        *,
        kept: int = 1,
        stream_index: int | None = None,
    ) -> None:
        end = len(index_frames(path, stream_index))
        self._frames = ClipFrames(
            path, 0, end, max_bytes_in_flight=BYTES_IN_FLIGHT, stream_index=stream_index
        )
        height, width = self._frames.height, self._frames.width
        self._scale = min(1.0, fit[0] / height, fit[1] / width) if fit else 1.0
        self._walk: Generator[tuple[int, Callable[[], Frame]], None, None] | None = None
        self._ahead: tuple[int, Callable[[], Frame]] | None = None
        self._next = 0
        self._most_kept = kept
        self._kept: OrderedDict[int, Frame] = OrderedDict()

    def __enter__(self) -> FrameCursor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._frames.index)

    def close(self) -> None:
        """Let go of the file. A frame that is asked for later opens it again."""
        if self._walk is not None:
            self._walk.close()
        self._walk = self._ahead = None

    def frame(self, index: int) -> Frame | None:
        """Decode a frame; None: it does not decode. Raises BadInputError, IndexError."""
        if not 0 <= index < len(self):
            raise IndexError(f"frame {index} of a video of {len(self)}: {self._frames.path}")
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        make = self._go_to(index)
        if make is None:
            return None
        found = self._kept[index] = make()
        if len(self._kept) > self._most_kept:
            self._kept.popitem(last=False)
        return found

    def _go_to(self, index: int) -> Callable[[], Frame] | None:
        if self._walk is None or index < self._next or self._should_seek(index):
            self.close()
            self._walk = self._frames.walk(index, self._scale)
            self._next = index
        while self._ahead is None or self._ahead[0] < index:
            self._ahead = next(self._walk, None)
            if self._ahead is None:
                self.close()
                return None
        at, make = self._ahead
        self._next = index + 1 if at == index else index
        return make if at == index else None

    def _should_seek(self, index: int) -> bool:
        place = int(np.searchsorted(self._keyframes, index, side="right")) - 1
        return place >= 0 and int(self._keyframes[place]) > self._next + WORTH_A_SEEK

    @cached_property
    def _keyframes(self) -> np.ndarray:
        """Indices of the frames at which decoding can begin, ascending."""
        index = self._frames.index
        return np.searchsorted(index.pts, index.keyframe_pts)
