"""Raw folders, a lake, and the stages that `ego run` would do over them, without Dagster."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import sqlalchemy as sa

from ego_assets.catalog import TABLES
from ego_assets.engine.outcome import StageReport
from ego_assets.engine.plan import StageSpec
from ego_assets.engine.runner import run_stage
from ego_assets.intake.moves import Moved, recognize
from ego_assets.intake.shards import find_files, register_files, shards_of
from resources.lake import Lake
from resources.ledger import Ledger, State
from resources.ledger.sources import Sources
from tests.engine.stage_bench import spec_for

ESTIMATOR = "tests.engine.reading_backends:ReadingEstimator"
STAGES = {"probe": "video_manifest", "split": "clips", "clip": "object_movements"}


def write_video(path: Path, frames: int = 12, light: int = 60) -> None:
    """A video of one clip, whose content is told by its length and its brightness."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for _ in range(frames):
            picture = np.full((32, 32, 3), light, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())


class RawBench:
    """raw: the folder of videos. Each video has another content (its number of frames)."""

    def __init__(self, root: Path, videos: int = 3) -> None:
        self.root = root
        self.raw = root / "raw"
        self.signals = root / "signals"
        for folder in (self.raw, self.signals):
            folder.mkdir(parents=True)
        for number in range(videos):
            write_video(
                self.raw / f"{'abcdefgh'[number]}.mp4", frames=12 + number, light=60 + 9 * number
            )
        self.lake = Lake(root / "lake")
        self.ledger = Ledger.beside(root / "lake")
        self.sources = Sources(self.ledger)
        self.runs = 0

    def register(self, *places: Path) -> Moved:
        files = find_files(places or [self.raw]).files
        moved = recognize(self.lake, self.ledger, files)
        register_files(self.lake, files)
        self.shards = sorted({*shards_of(self.lake, files), *moved.shards})
        return moved

    def run(
        self, *places: Path, stages: tuple[str, ...] = tuple(STAGES), **changes: Any
    ) -> dict[str, StageReport]:
        """Register the files of places and do the stages of their shards: the last reports."""
        self.register(*places)
        return self.make(*self.shards, stages=stages, **changes)

    def make(
        self,
        *shards: str,
        stages: tuple[str, ...] = tuple(STAGES),
        workers: int = 0,
        **changes: Any,
    ) -> dict[str, StageReport]:
        self.runs += 1
        found = {}
        for shard in shards or self.lake.shards():
            for task in stages:
                spec = self.spec(task, shard, **changes)
                found[task] = run_stage(spec, workers=workers or 1, isolate=workers > 0)
        return found

    def spec(self, task: str, shard: str, **changes: Any) -> StageSpec:
        clip = {"backend": ESTIMATOR, "operator_version": "1"} if task == "clip" else {}
        values = {"run_id": f"run{self.runs}"} | clip | changes
        return spec_for(STAGES[task], self.lake, self.ledger, shard, **values)

    def video(self, name: str, shard: str = "") -> dict[str, Any]:
        """The manifest's row of a file by its name."""
        return next(r for r in self.manifest() if Path(r["uri"]).name == name)

    def manifest(self) -> list[dict[str, Any]]:
        rows = [
            r for s in self.lake.shards() for r in self.lake.read("video_manifest", s).to_pylist()
        ]
        return sorted(rows, key=lambda r: r["uri"])

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """Every row of every table."""
        return {
            table: [r for s in self.lake.shards() for r in self.lake.read(table, s).to_pylist()]
            for table in TABLES
        }

    def work(self) -> dict[tuple[str, str], tuple[Any, ...]]:
        """All that the ledger says of what was done, when and by whom."""
        return {
            (e.stage, e.item_id): (e.state, e.fingerprint, e.run_id, e.attempts, e.finished_at)
            for e in self.ledger.entries()
        }

    def counts(self, state: State) -> list[int]:
        """How many files, videos and clips are in a state."""
        found = self.ledger.counts()
        return [found.get(table, {}).get(state, 0) for table in STAGES.values()]

    def attempts(self) -> int:
        """How often a clip was computed."""
        return sum(p.stat().st_size for p in self.signals.glob("*.attempts"))


def wait_until(is_so: Callable[[], Any], limit_s: float = 120.0) -> None:
    """Wait for an event; the limit is only there for what never happens."""
    deadline = time.monotonic() + limit_s
    while not is_so():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def is_missed(ledger: Ledger) -> bool:
    """Whether somebody has noticed that a file is not there, and waits for it."""
    if not Path(ledger.url.removeprefix("sqlite:///")).exists():
        return False
    with ledger.reading() as connection:
        query = "SELECT count(*) FROM sources WHERE away_until IS NOT NULL"
        return connection.execute(sa.text(query)).scalar_one() > 0
