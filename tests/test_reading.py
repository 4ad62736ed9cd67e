"""Training code reads a lake with little installed, and gets each row and frame once."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ego_assets.catalog import TABLES
from ego_assets.reading import LakeError, decode_mask, encode_mask, open_lake, read_frames
from resources.lake import Lake, Provenance
from tests.support.rendered import render_sample

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden" / "lake_schema_2"
SHARD = "20260101-0000"
PROVENANCE = Provenance(
    *("run", 1, "stage", "operator", "1", "", "input", "f", "{}", "code", "then", "host", "{}")
)
NEEDED = {"pydantic", "pyarrow", "numpy", "av", "pycocotools"}
"""Modules of what `pip install ego-assets` brings."""

READ = """
import importlib.abc, sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in FORBIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

FORBIDDEN = set(sys.argv[3].split(","))
sys.meta_path.insert(0, Refuse())
from ego_assets.reading import decode_mask, encode_mask, open_lake, read_frames
import numpy as np

assert "av" not in sys.modules  # the slowest of what is needed, and only for frames
lake = open_lake(sys.argv[1])
print(*(lake.table(name).num_rows for name in lake.tables()))
mask = np.zeros((40, 30), bool)
mask[3:9, 4:20] = True
assert (decode_mask(encode_mask(mask), 40, 30) == mask).all()
print(*(frame.index for frame in read_frames(sys.argv[2], 3, 6)))
try:
    open_lake("s3://bucket/lake")
except ModuleNotFoundError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    return render_sample(folder, seed=0, duration_s=2, width=160, height=90)


def all_but_needed() -> set[str]:
    """Top-level modules of everything that is installed here and that reading may not need."""
    from importlib.metadata import packages_distributions

    found = set(packages_distributions()) - NEEDED
    kept = {"typing_extensions", "typing_inspection", "annotated_types", "pydantic_core"}
    ours = {"ego_assets", "resources", "samples", "sensors", "dagster_project"}
    return {name for name in found - kept - ours if name.isidentifier()}


def test_reading_needs_nothing_but_the_core(video: Path) -> None:
    forbidden = all_but_needed()
    assert {"dagster", "torch", "cv2", "scipy", "sqlalchemy", "polars", "boto3"} <= forbidden
    command = [sys.executable, "-c", READ, str(GOLDEN), str(video), ",".join(forbidden)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    rows, frames, s3 = done.stdout.splitlines()
    assert rows.split() == ["2"] * sum((GOLDEN / table).is_dir() for table in TABLES)
    assert frames == "3 4 5"
    assert "pip install 'ego-assets[s3]'" in s3


@pytest.fixture
def lake(tmp_path: Path, video: Path) -> Lake:
    """A lake in the middle of a run: two clips of a video, one compacted, one published since."""
    made = Lake(tmp_path / "lake")
    golden = Lake(GOLDEN)

    def publish(table: str, item: str, rows: list[dict[str, Any]], token: int) -> None:
        source = replace(PROVENANCE, token=token, fingerprint=f"f{token}")
        made.publish(table, SHARD, item, TABLES[table].from_rows(rows), source)

    row = golden.read("video_manifest", SHARD).to_pylist()[0]
    manifest = row | {"uri": str(video), "video_id": "v", "accepted": True, "frame_count": 60}
    publish("video_manifest", "file", [manifest], 1)
    clip = golden.read("clips", SHARD).to_pylist()[0] | {"video_id": "v", "shard": SHARD}
    first = clip | {"clip_id": "v-0000", "start_frame": 0, "end_frame": 35, "context_frames": 0}
    second = clip | {"clip_id": "v-0001", "start_frame": 30, "end_frame": 60, "context_frames": 5}
    publish("clips", "v", [first, second], 1)
    mask = golden.read("hand_masks", SHARD).to_pylist()[0] | {"video_id": "v", "shard": SHARD}

    def masks(of: dict[str, Any]) -> list[dict[str, Any]]:
        start = of["start_frame"]
        new = start + of["context_frames"]
        return [
            mask | {"clip_id": of["clip_id"], "frame_index": i, "is_context": i < new}
            for i in range(start, of["end_frame"])
        ]

    publish("hand_masks", "v-0000", masks(first)[:10], 1)
    publish("hand_masks", "v-0000", masks(first), 2)
    made.compact("hand_masks", SHARD, None)
    publish("hand_masks", "v-0001", masks(second), 3)
    return made


def test_rows_are_read_once_while_a_run_writes(lake: Lake) -> None:
    reader = open_lake(lake.location)
    assert reader.tables() == ["video_manifest", "clips", "hand_masks"]
    masks = reader.table("hand_masks")
    assert masks.schema.equals(TABLES["hand_masks"].arrow_schema())
    assert masks.num_rows == 35 + 30
    once = reader.table("hand_masks", columns=["frame_index"], context=False)
    assert once.column_names == ["frame_index"]
    assert sorted(once["frame_index"].to_pylist()) == list(range(60))
    assert [part.num_rows for part in reader.by_shard("hand_masks")] == [65]
    empty = reader.table("hand_poses", columns=["side"])
    assert (empty.num_rows, empty.column_names) == (0, ["side"])
    assert reader.table("hand_masks", shards=[]).num_rows == 0


def test_frames_of_clips_are_those_of_the_video(lake: Lake, video: Path) -> None:
    reader = pickle.loads(pickle.dumps(open_lake(lake.location)))  # noqa: S301 as data loaders do
    first, second = reader.table("clips").to_pylist()
    assert [f.index for f in reader.frames(first)] == list(range(35))
    alone = {f.index: f.image for f in read_frames(video, 30)}
    assert list(alone) == list(range(30, 60))
    frames = list(reader.frames(second, context=False))
    assert [f.index for f in frames] == list(range(35, 60))
    assert all(np.array_equal(f.image, alone[f.index]) for f in frames)
    small = next(iter(read_frames(str(video), max_side_px=80)))
    assert (small.image.shape, small.scale) == ((45, 80, 3), 0.5)


def test_what_is_not_there_is_said(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no lake at .*nothing"):
        open_lake(tmp_path / "nothing")
    reader = open_lake(lake.location)
    with pytest.raises(ValueError, match="did you mean hand_masks"):
        reader.by_shard("hand_mask")
    with pytest.raises(ValueError, match="did you mean height_px"):
        reader.table("hand_masks", columns=["hieght_px"])
    with pytest.raises(LakeError, match="no accepted video other"):
        next(reader.frames(reader.table("clips").to_pylist()[0] | {"video_id": "other"}))


def test_masks_are_the_same_without_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    from ego_assets.vision import rle

    rng = np.random.default_rng(3)
    masks = [rng.random((37, 53)) < share for share in (0.0, 0.1, 0.9, 1.0)]
    masks += [np.pad(np.ones((5, 7), bool), ((3, 9), (2, 1)))]
    fast = [encode_mask(mask) for mask in masks]
    monkeypatch.setattr(rle, "cv2", None)
    assert [encode_mask(mask) for mask in masks] == fast
    for mask, counts in zip(masks, fast, strict=True):
        assert np.array_equal(decode_mask(counts, *mask.shape), mask)


def test_ego_without_the_platform_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nsys.modules['dagster'] = None  # as if it were not installed\n"
    )
    call = "from dagster_project.entry import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", call, "--help"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "pip install 'ego-assets[platform]'" in line
