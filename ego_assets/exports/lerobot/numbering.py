"""Numbers the packs of a data set, and makes the files that depend on it.

Rows know the number of their episode, task and place, so files of rows behind a pack that got
shorter are written again; their videos are not touched.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ego_assets.exports import video
from ego_assets.exports.files import naming
from ego_assets.exports.lerobot import statistics, tables
from ego_assets.exports.lerobot.contents import (
    DATA_PATH,
    FILES_A_CHUNK,
    INFO,
    PROVENANCE,
    STATS,
    TASKS,
    VIDEO_PATH,
    DatasetContents,
    Member,
    Pack,
    names_of,
    place_of,
)
from ego_assets.exports.lerobot.packs import PackFiles, read_records, write_rows
from ego_assets.exports.lerobot.settings import LeRobotSettings


class Numbering:
    """Takes the packs of a data set in order. moves: files to be published, by name."""

    def __init__(
        self,
        folder: Path,
        aside: Path,
        features: Mapping[str, Any],
        sizes: Mapping[str, video.Size],
        fps: int,
        settings: LeRobotSettings,
    ) -> None:
        self.moves: dict[str, Path] = {}
        self.episodes = self.frames = 0
        self._packs: list[Pack] = []
        self._tasks: dict[str, int] = {}
        self._folder, self._aside = folder, aside
        self._features, self._sizes, self._fps, self._settings = features, sizes, fps, settings
        self._cameras = [key for key, f in features.items() if f["dtype"] == "video"]

    @property
    def names(self) -> set[str]:
        """Names of the files of all packs."""
        return {name for pack in self._packs for name in pack.sizes}

    def add(self, number: int, files: PackFiles, published: Pack | None) -> None:
        """Number a pack, whose files are `files`. published: what it is now, unless it is new."""
        if published:
            members = published.episodes
        else:
            records = read_records(files.records)
            members = [Member(r.episode_id, r.digest, r.task, r.frames) for r in records]
        tasks = [self._tasks.setdefault(m.task, len(self._tasks)) for m in members]
        numbers = [self.episodes, self.frames, *tasks]
        if published and published.numbers == numbers:
            self._packs.append(published)
        else:
            self._packs.append(self._write(number, files, published, members, numbers))
        self.episodes += len(members)
        self.frames += sum(m.frames for m in members)

    def finish(self, encoded_under: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
        """Write what is said of all of them, where it differs from what is there."""
        has_new_rows = any(name.startswith("data/") for name in self.moves)
        tasks = pa.BufferOutputStream()
        pq.write_table(tables.tasks_table(list(self._tasks)), tasks)
        self._replace(TASKS, tasks.getvalue().to_pybytes())
        if has_new_rows or self._has_fewer_rows() or not (self._folder / STATS).exists():
            self._replace(STATS, _json(self._stats()))
        sizes = {key: list(self._sizes[key]) for key in self._cameras}
        said = DatasetContents(dict(encoded_under), sizes, self._packs, provenance)
        self._replace(PROVENANCE, said.text().encode())
        self._replace(INFO, _json(self._info()))

    def _has_fewer_rows(self) -> bool:
        """Whether packs at the end were dropped, so that no file of rows was written."""
        try:
            return bool(
                json.loads((self._folder / INFO).read_text())["total_frames"] != self.frames
            )
        except (OSError, ValueError, KeyError):
            return True

    def _write(
        self,
        number: int,
        files: PackFiles,
        published: Pack | None,
        members: Sequence[Member],
        numbers: list[int],
    ) -> Pack:
        names = names_of(number, self._cameras)
        first_episode, first_index, *tasks = numbers
        firsts = (first_index + np.cumsum([0, *(m.frames for m in members)])).tolist()
        source = pq.ParquetFile(files.rows)
        numbered = (
            tables.renumbered(source.read_row_group(n), first_episode + n, firsts[n], tasks[n])
            for n in range(len(members))
        )
        moves = {names.rows: self._aside / names.rows}
        write_rows(moves[names.rows], numbered)
        moves[names.episodes] = self._aside / names.episodes
        self._write_episodes(moves[names.episodes], number, files, numbers, firsts)
        if not published:
            moves |= {names.videos[key]: path for key, path in files.videos.items()}
            moves[names.records] = files.records
        sizes = dict(published.sizes) if published else {}
        sizes |= {name: path.stat().st_size for name, path in moves.items()}
        self.moves |= moves
        return Pack(number, list(members), numbers, sizes)

    def _write_episodes(
        self,
        path: Path,
        number: int,
        files: PackFiles,
        numbers: list[int],
        firsts: Sequence[int],
    ) -> None:
        first_episode, first_index, *tasks = numbers
        rows, stats = [], []
        for n, record in enumerate(read_records(files.records)):
            row: dict[str, Any] = {
                "episode_index": first_episode + n,
                "tasks": [record.task],
                "length": record.frames,
                "dataset_from_index": firsts[n],
                "dataset_to_index": firsts[n + 1],
            }
            row |= {f"data/{name}": value for name, value in place_of(number).items()}
            for key in self._cameras:
                row |= {f"videos/{key}/{name}": value for name, value in place_of(number).items()}
                # Counted frames by the rate: a sum of durations would drift.
                row[f"videos/{key}/from_timestamp"] = (firsts[n] - first_index) / self._fps
                row[f"videos/{key}/to_timestamp"] = (firsts[n + 1] - first_index) / self._fps
            row |= {f"meta/episodes/{name}": value for name, value in place_of(number).items()}
            row |= {"ego_episode_id": record.episode_id}
            rows.append(row)
            ticks = np.arange(record.frames)
            fixed: dict[str, np.ndarray] = {
                "timestamp": (ticks / self._fps).astype(np.float32),
                "frame_index": ticks,
                "episode_index": np.full(record.frames, first_episode + n),
                "index": ticks + firsts[n],
                "task_index": np.full(record.frames, tasks[n]),
            }
            mine = dict(record.stats)
            mine |= {key: statistics.of_rows(v[:, None]) for key, v in fixed.items()}
            stats.append(mine)
        with naming(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(tables.episodes_table(rows, stats), path, compression="snappy")

    def _stats(self) -> dict[str, Any]:
        """Statistics of all rows and pictures."""
        widths = {
            key: f["shape"][0]
            for key, f in self._features.items()
            if f["dtype"] not in ("video", "language")
        }
        whole = statistics.Aggregate(self.frames, widths)
        bins = {key: np.zeros((3, 256), np.int64) for key in self._cameras}
        pictures = 0
        for names in (names_of(pack.number, self._cameras) for pack in self._packs):
            rows = pq.ParquetFile(self._where(names.rows))
            for group in range(rows.num_row_groups):
                whole.add(tables.numbers_of(rows.read_row_group(group, columns=list(widths))))
            for record in read_records(self._where(names.records)):
                for key in self._cameras:
                    bins[key] += np.array(record.bins[key])
                pictures += min(record.frames, statistics.MAX_PICTURES)
        of_pictures = {key: statistics.of_pictures(bins[key], pictures) for key in self._cameras}
        return whole.result() | of_pictures

    def _where(self, name: str) -> Path:
        return self.moves.get(name, self._folder / name)

    def _info(self) -> dict[str, Any]:
        features = {key: dict(feature) for key, feature in self._features.items()}
        for key in self._cameras:
            width, height = self._sizes[key]
            features[key]["shape"] = [height, width, 3]
            features[key]["info"] = video.info_of(self._sizes[key], self._fps, self._settings)
        return {
            "codebase_version": "v3.0",
            "robot_type": self._settings.robot_type,
            "total_episodes": self.episodes,
            "total_frames": self.frames,
            "total_tasks": len(self._tasks),
            "chunks_size": FILES_A_CHUNK,
            "data_files_size_in_mb": self._settings.data_file_mb,
            "video_files_size_in_mb": self._settings.video_file_mb,
            "fps": self._fps,
            "splits": {self._settings.split: f"0:{self.episodes}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if self._cameras else None,
            "features": features,
        }

    def _replace(self, name: str, data: bytes) -> None:
        try:
            if (self._folder / name).read_bytes() == data:
                return
        except FileNotFoundError:
            pass
        path = self._aside / name
        with naming(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        self.moves[name] = path


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=4) + "\n").encode()
