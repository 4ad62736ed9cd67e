"""Decodes a few groups of pictures, to see whether packets that look damaged really are.

What `reference_chain` reads from packets is wrong of all of a file where an encoder or a muxer
writes what it does not know. The decoder knows, and costs more: it is asked only where much would
be given up.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np

from ego_assets.media import progress
from ego_assets.media.containers import must_be_damage, open_media

MAX_SPOILT_SHARE = 0.1
"""Of a stream: where more would be given up, the decoder is asked."""
_GROUPS, _MAX_PACKETS, _BEHIND = 3, 2000, 16
"""Of groups that are decoded: how many, how far, how far behind the packet in question."""


def looks_damaged_and_is_not(
    path: Path, stream_index: int, times: np.ndarray, keys: np.ndarray, suspects: Sequence[int]
) -> bool:
    """Whether much would be given up for the suspects, and the decoder finds no fault in them.

    times: (P,) of every packet as stored; keys: (K,) places in it of keyframes; suspects: places
    of packets that look damaged, in order. Raises OSError if the file cannot be read.
    """
    places = np.array(suspects, np.int64)
    numbers, which = np.unique(np.searchsorted(keys, places, side="right"), return_index=True)
    firsts = places[which]
    spoilt = (np.append(keys, len(times))[numbers] - firsts).sum()
    if spoilt <= MAX_SPOILT_SHARE * len(times) or numbers[0] == 0:
        return False
    begins = keys[numbers - 1]
    nearest = np.argsort(firsts - begins, kind="stable")[:_GROUPS]
    return all(
        end - begin <= _MAX_PACKETS and _decodes(path, stream_index, int(times[begin]), end - begin)
        for begin, end in zip(begins[nearest], firsts[nearest] + 1 + _BEHIND, strict=True)
    )


def _decodes(path: Path, stream_index: int, begin: int, count: int) -> bool:
    """Whether `count` packets from the keyframe at `begin` on, or to the next one, give pictures
    without a fault."""
    wanted: set[int | None] = set()
    shown: set[int | None] = set()

    def take(pictures: Sequence[Any]) -> bool:
        # What is shown before the keyframe lacks its references here.
        ours = [p for p in pictures if p.pts is not None and p.pts >= begin]
        shown.update(p.pts for p in ours)
        return not any(p.is_corrupt for p in ours)

    with open_media(path) as container:
        stream: Any = container.streams[stream_index]
        stream.thread_type = "NONE"
        container.seek(begin, stream=stream)
        try:
            for packet in container.demux(stream):
                progress.moved()
                if not packet.size or (wanted and packet.is_keyframe):
                    break
                if packet.pts is None or (not wanted and packet.pts != begin):
                    continue
                if packet.pts >= begin and not packet.is_discard:
                    wanted.add(packet.pts)
                if not take(packet.decode()):
                    return False
                count -= 1
                if not count:
                    break
            return take(stream.codec_context.decode(None)) and bool(wanted) and wanted <= shown
        except av.FFmpegError as error:
            must_be_damage(error, path)
            return False
