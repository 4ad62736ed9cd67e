"""Makes the overlay video of an episode or a clip when somebody wants to see it, and keeps the last
ones in a folder.

Here: which frames, when, how many at a time, how many are kept. Not here: drawing
(`ego_assets.viewing.overlay`).
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from concurrent.futures import Future
from pathlib import Path

import pyarrow.compute as pc

from ego_assets.operator import BadInputError
from ego_assets.reading import LakeReader
from ego_assets.reviews.subjects import Subject
from ego_assets.viewing.footage import ShownClips, parts_of_episode

MAX_SIDE_PX = 640
MOST_VIDEOS = 100
"""That are kept: of 30 seconds each, some 400 MB."""
_AT_A_TIME = 2
"""The one that is looked at, and the next one."""


class OverlayVideos:
    """Videos of subjects, by what they show: one that was made again has another."""

    def __init__(self, reader: LakeReader, folder: Path) -> None:
        self._reader = reader
        self._folder = folder
        self._made: OrderedDict[str, Future[Path]] = OrderedDict()
        self._lock = threading.Lock()
        self._turn = threading.Semaphore(_AT_A_TIME)

    def path(self, subject: Subject, fingerprint: str) -> Path:
        """The video of a subject; waits while it is made.

        Raises BadInputError, FileNotFoundError if its raw video cannot be read.
        """
        words = "\0".join((subject.kind, subject.name, fingerprint))
        key = hashlib.sha256(words.encode()).hexdigest()
        with self._lock:
            future = self._made.get(key)
            if future is None:
                future = self._made[key] = Future()
                work = (subject, self._folder / f"{key}.mp4", future)
                # A daemon: the end of the program waits for no video.
                threading.Thread(target=self._make, args=work, daemon=True).start()
            self._made.move_to_end(key)
            self._forget_oldest()
        try:
            return future.result()
        except BaseException:
            with self._lock:  # or nobody could ever try again
                if self._made.get(key) is future:
                    del self._made[key]
            raise

    def _forget_oldest(self) -> None:
        done = [key for key, future in self._made.items() if future.done()]
        for key in done[: max(0, len(self._made) - MOST_VIDEOS)]:
            del self._made[key]
            (self._folder / f"{key}.mp4").unlink(missing_ok=True)

    def _make(self, subject: Subject, path: Path, future: Future[Path]) -> None:
        from ego_assets.viewing.overlay import write_overlay

        try:
            with self._turn:
                write_overlay(self._footage(subject), path)
            future.set_result(path)
        except BaseException as error:
            future.set_exception(error)

    def _footage(self, subject: Subject) -> ShownClips:
        row = dict(subject.row)
        clips = [row]
        if subject.kind == "episode":
            of_video = self._reader.table("clips", shards=[subject.shard]).filter(
                pc.field("video_id") == row["video_id"]
            )
            times = self._reader.times_of_episode(row["shard"], row["episode_id"])
            clips = parts_of_episode(row, of_video.to_pylist(), times)
        if not clips:
            raise BadInputError(
                f"shard {subject.shard} has no clips of {subject.name}: materialize clips again"
            )
        return ShownClips.of(self._reader, subject.name, clips, MAX_SIDE_PX)
