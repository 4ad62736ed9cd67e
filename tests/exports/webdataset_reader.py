"""Reads shards with the package webdataset, in an environment of its own.

    python webdataset_reader.py clips|frames FOLDER

Prints as JSON: versions, samples, frames, and the frames whose pictures are not theirs.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import av
import numpy as np
import webdataset
from bars import number_in  # beside this file


def pictures(sample: dict[str, Any]) -> Iterator[tuple[int, np.ndarray]]:
    """Each picture of a decoded sample, and the number that it should have."""
    if "mp4" in sample:
        with av.open(io.BytesIO(sample["mp4"])) as container:
            shown = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
        yield from zip(sample["npz"]["number"][:, 0].tolist(), shown, strict=True)
    else:
        yield sample["json"]["number"][0], sample["jpg"]


def main(content: str, folder: str) -> None:
    sizes = json.loads((Path(folder) / "sizes.json").read_text())
    urls = [f"{folder}/{name}" for name in sizes]
    data = webdataset.WebDataset(urls, shardshuffle=False)
    data = data.decode("rgb8", only=["json", "npz", "jpg"])
    samples, frames, wrong = 0, 0, []
    for sample in data:
        samples += 1
        for number, picture in pictures(sample):
            frames += 1
            if number_in(picture) != number:
                wrong.append([sample["__key__"], number])
    assert samples == sum(sizes.values()), (samples, sizes)
    libraries = {name: version(name) for name in ("webdataset", "av", "numpy")}
    print(json.dumps(libraries | {"samples": samples, "frames": frames, "wrong": wrong}))


if __name__ == "__main__":
    main(*sys.argv[1:])
