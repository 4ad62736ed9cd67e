"""`python -m samples OUT --count 3 --seed 0`: render sample videos into a folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from samples.render import render_sample


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m samples", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--duration-s", type=float, default=8.0)
    parser.add_argument("--scenes", type=int, default=1)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=360)
    given = parser.parse_args()
    for seed in range(given.seed, given.seed + given.count):
        path = render_sample(
            given.out, seed, given.duration_s, given.width, given.height, scenes=given.scenes
        )
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
