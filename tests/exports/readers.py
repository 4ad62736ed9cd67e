"""Reads every row of a numbered data set with a library of others, in an environment of its own.

    python readers.py lerobot-pyav|lerobot-torchcodec|ray|daft FOLDER

Prints as JSON: versions, rows read, and the rows whose pictures are not theirs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

import numpy as np
from bars import number_in  # beside this file; others install a package called `tests`

EGO, SIDE = "observation.images.ego", "observation.images.side"
Row = tuple[int, int, np.ndarray, np.ndarray]
"""Its place, its number, and its pictures as bytes."""


def with_lerobot(folder: str, backend: str) -> Iterator[Row]:
    from lerobot.datasets import LeRobotDataset
    from lerobot.utils.feature_utils import dataset_to_policy_features

    found = LeRobotDataset("local/numbered", root=folder, video_backend=backend, return_uint8=True)
    fed = set(dataset_to_policy_features(found.meta.features))
    assert fed == {EGO, SIDE, "observation.state", "action"}, fed
    assert set(found.meta.stats) == {
        key for key, f in found.meta.features.items() if f["dtype"] != "language"
    }
    for place in range(len(found)):
        item = found[place]
        assert item["task"].startswith("pick up thing "), item["task"]
        ego, side = (item[key].permute(1, 2, 0).numpy() for key in (EGO, SIDE))
        yield place, int(item["number"]), ego, side
    step = 1 / found.meta.fps
    wide = LeRobotDataset(
        "local/numbered",
        root=folder,
        video_backend=backend,
        return_uint8=True,
        delta_timestamps={EGO: [-step, 0.0, step], "number": [-step, 0.0, step]},
    )
    for place in range(0, len(wide), 7):
        item = wide[place]
        for number, picture in zip(item["number"], item[EGO], strict=True):
            assert number_in(picture.permute(1, 2, 0).numpy()) == int(number)


def with_ray(folder: str) -> Iterator[Row]:
    import ray

    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=300 * 2**20)
    for row in ray.data.read_lerobot(folder, concurrency=1).iter_rows():
        yield row["index"], row["number"], *(np.asarray(row[key]) for key in (EGO, SIDE))


def with_daft(folder: str) -> Iterator[Row]:
    from daft.datasets import lerobot

    for row in lerobot.read(folder, load_video_frames=True).iter_rows():
        yield row["index"], row["number"], *(np.asarray(row[key]) for key in (EGO, SIDE))


READERS: dict[str, tuple[tuple[str, ...], Callable[[str], Iterator[Row]]]] = {
    "lerobot-pyav": (("lerobot", "torch", "av"), lambda folder: with_lerobot(folder, "pyav")),
    "lerobot-torchcodec": (
        ("lerobot", "torch", "torchcodec"),
        lambda folder: with_lerobot(folder, "torchcodec"),
    ),
    "ray": (("ray", "lerobot", "torchcodec"), with_ray),
    "daft": (("daft", "av"), with_daft),
}


def main(name: str, folder: str) -> None:
    libraries, read = READERS[name]
    places: list[int] = []
    wrong: list[Any] = []
    for place, number, ego, side in read(folder):
        places.append(int(place))
        seen = number_in(ego), number_in(side)
        if seen != (number, 65535 - number):
            wrong.append([place, number, seen])
    versions = {library: version(library) for library in libraries}
    python = ".".join(map(str, sys.version_info[:3]))
    print(json.dumps(versions | {"python": python, "places": places, "wrong": wrong}))


if __name__ == "__main__":
    main(*sys.argv[1:])
