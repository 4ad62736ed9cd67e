"""Names and shapes of the weights of full-size networks, written down in `tests/golden`.

`python tests/models/layouts.py` writes them again, from the networks as transformers builds them
(without any weights: on torch's meta device).
"""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).resolve().parents[1] / "golden"

Layout = dict[str, tuple[int, ...]]


def built(name: str) -> Layout:
    """Of sam3 (facebook/sam3) or owlv2 (google/owlv2-base-patch16-ensemble)."""
    import torch
    from transformers import (
        Owlv2Config,
        Owlv2ForObjectDetection,
        Sam3VideoConfig,
        Sam3VideoModel,
    )

    with torch.device("meta"):
        model: Any
        if name == "sam3":
            model = Sam3VideoModel(Sam3VideoConfig())
        else:
            model = Owlv2ForObjectDetection(Owlv2Config(vision_config={"image_size": 960}))
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


def read(name: str) -> Layout:
    """As written down: `a.{0-3}.b 2 3` is a (2, 3) weight of each of four layers."""
    found: Layout = {}
    for line in (GOLDEN / f"{name}_layout.txt").read_text().splitlines():
        pattern, *shape = line.split()
        span = re.search(r"\{(\d+)-(\d+)\}", pattern)
        first, last = (int(v) for v in span.groups()) if span else (0, 0)
        for layer in range(first, last + 1):
            found[re.sub(r"\{.*\}", str(layer), pattern)] = tuple(int(v) for v in shape)
    return found


def write(name: str) -> None:
    def parts(item: tuple[str, tuple[int, ...]]) -> tuple[str, int, str, tuple[int, ...]]:
        head, number, tail = re.match(r"(.*?\.)(\d+)(\..*)|(.*)", item[0]).group(1, 2, 3)  # type: ignore[union-attr]
        return (head, int(number), tail, item[1]) if head else (item[0], -1, "", item[1])

    listed = sorted(map(parts, built(name).items()), key=lambda p: (p[0], p[2], p[1]))
    lines = []
    for (head, tail, shape), same in groupby(listed, key=lambda p: (p[0], p[2], p[3])):
        numbers = [p[1] for p in same]
        if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
            raise ValueError(f"{head}*{tail}: layers {numbers} have gaps")
        span = f"{{{numbers[0]}-{numbers[-1]}}}" if numbers[0] >= 0 else ""
        lines.append(" ".join([f"{head}{span}{tail}", *map(str, shape)]))
    (GOLDEN / f"{name}_layout.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    for name in ("sam3", "owlv2"):
        write(name)
