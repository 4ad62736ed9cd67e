"""Reads a LeRobot data set as LeRobot does, with pyarrow and PyAV alone: an opinion of its own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

TOLERANCE_S = 1e-4
Tree = dict[str, bytes]


@dataclass(frozen=True)
class DataSet:
    folder: Path
    info: dict[str, Any]
    rows: list[dict[str, Any]]
    episodes: list[dict[str, Any]]
    tasks: list[str]

    @property
    def cameras(self) -> list[str]:
        return [key for key, f in self.info["features"].items() if f["dtype"] == "video"]

    def video_of(self, episode: dict[str, Any], key: str) -> Path:
        place = {n: episode[f"videos/{key}/{n}"] for n in ("chunk_index", "file_index")}
        return self.folder / self.info["video_path"].format(video_key=key, **place)

    def picture(self, row: dict[str, Any], key: str) -> np.ndarray:
        """The picture of a row, found by its time, from the key frame before it."""
        episode = self.episodes[row["episode_index"]]
        wanted = episode[f"videos/{key}/from_timestamp"] + row["timestamp"]
        with av.open(str(self.video_of(episode, key))) as container:
            stream = container.streams.video[0]
            assert stream.time_base is not None
            container.seek(round(wanted / stream.time_base) - 1, stream=stream)
            for frame in container.decode(stream):
                assert frame.pts is not None
                seconds = float(frame.pts * stream.time_base)
                if abs(np.float32(seconds) - np.float32(wanted)) < TOLERANCE_S:
                    # torchcodec asks for this number instead.
                    assert stream.average_rate == self.info["fps"]
                    assert round(wanted * stream.average_rate) == round(seconds * self.info["fps"])
                    return frame.to_ndarray(format="rgb24")
                assert seconds < wanted, f"no picture at {wanted}"
        raise AssertionError(f"the video ends before {wanted}")


def read(folder: Path) -> DataSet:
    info = json.loads((folder / "meta/info.json").read_text())
    data = sorted((folder / "data").glob("*/*.parquet"))
    rows = pa.concat_tables(pq.read_table(path) for path in data)
    records = sorted((folder / "meta/episodes").glob("*/*.parquet"))
    episodes = pa.concat_tables(pq.read_table(path) for path in records).to_pylist()
    tasks = pq.read_table(folder / "meta/tasks.parquet")
    assert tasks["task_index"].to_pylist() == list(range(tasks.num_rows))
    found = DataSet(folder, info, rows.to_pylist(), episodes, tasks["task"].to_pylist())
    _check_counts(found, data)
    return found


def tree(folder: Path) -> Tree:
    """All files, by name."""
    files = (p for p in folder.rglob("*") if p.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def _check_counts(found: DataSet, data: list[Path]) -> None:
    info, rows, episodes = found.info, found.rows, found.episodes
    assert info["total_frames"] == len(rows)
    assert info["total_episodes"] == len(episodes)
    assert info["total_tasks"] == len(found.tasks)
    assert list(info["splits"].values()) == [f"0:{len(episodes)}"]
    assert [row["index"] for row in rows] == list(range(len(rows)))
    groups = [
        pq.ParquetFile(path).metadata.row_group(n).num_rows
        for path in data
        for n in range(pq.ParquetFile(path).num_row_groups)
    ]
    assert groups == [episode["length"] for episode in episodes]
    for number, episode in enumerate(episodes):
        mine = rows[episode["dataset_from_index"] : episode["dataset_to_index"]]
        assert episode["episode_index"] == number
        assert {row["episode_index"] for row in mine} == {number}
        assert [row["frame_index"] for row in mine] == list(range(episode["length"]))
        assert {found.tasks[row["task_index"]] for row in mine} == set(episode["tasks"])
        path = data.index(
            found.folder
            / info["data_path"].format(
                chunk_index=episode["data/chunk_index"], file_index=episode["data/file_index"]
            )
        )
        assert number in pq.read_table(data[path])["episode_index"].to_pylist()
