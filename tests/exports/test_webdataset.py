"""Shards of episodes: samples show their pictures, and the same episodes make the same bytes."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import pytest
from PIL import Image

from ego_assets.exports import video
from ego_assets.exports.episode import ExportEpisode
from ego_assets.exports.folder import damaged_files
from ego_assets.exports.settings import VideoSettings
from ego_assets.exports.webdataset.settings import WebDatasetSettings
from ego_assets.exports.webdataset.writer import write_shards
from tests.exports.bars import number_in
from tests.exports.lerobot_reader import tree
from tests.exports.numbered import EGO, SIDE, episode
from tests.exports.reader_environment import pip, run

CLIPS = WebDatasetSettings(shard_samples=2, threads=1)
FRAMES = WebDatasetSettings(content="frames", shard_samples=25)


def samples(folder: Path) -> dict[str, dict[str, bytes]]:
    """Fields by key, as WebDataset groups the files of the shards that the index names."""
    found: dict[str, dict[str, bytes]] = {}
    sizes = json.loads((folder / "sizes.json").read_text())
    assert set(sizes) == {path.name for path in folder.glob("*.tar")}
    for shard in sizes:
        with tarfile.open(folder / shard) as tar:
            before = ""
            keys = []
            for info in tar:
                key, _, name = info.name.partition(".")
                if key != before:
                    assert key not in found
                    found[key] = {}
                    keys.append(key)
                file = tar.extractfile(info)
                assert file is not None and name not in found[key]
                found[key][name] = file.read()
                before = key
            assert len(keys) == sizes[shard]
    return found


def numbers_of(video: bytes) -> list[int]:
    with av.open(io.BytesIO(video)) as container:
        return [number_in(f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]


def made(*numbers: int, **changes: Any) -> list[ExportEpisode]:
    return [episode(f"v1-t000-e{n:06d}", 10, 100 * n, **changes) for n in numbers]


def unreadable(whole: ExportEpisode) -> ExportEpisode:
    """The same episode, whose pictures must not be asked for again."""

    def refuse() -> Any:
        raise AssertionError(f"{whole.episode_id} is encoded again")

    return replace(whole, pictures=dict.fromkeys(whole.pictures, refuse))


def test_clips_have_their_pictures_and_the_numbers_beside_them(tmp_path: Path) -> None:
    report = write_shards(tmp_path, made(0, 1, 2), CLIPS)
    assert (report.episodes, report.frames, report.encoded) == (3, 30, 3)
    assert [p.name for p in sorted(tmp_path.glob("*.tar"))] == [
        "train-000000.tar",
        "train-000001.tar",
    ]
    for n, whole in enumerate(made(0, 1, 2)):
        sample = samples(tmp_path)[whole.episode_id]
        arrays = np.load(io.BytesIO(sample["npz"]))
        assert numbers_of(sample["mp4"]) == arrays["number"][:, 0].tolist()
        assert arrays["number"][0, 0] == 100 * n
        state = arrays["observation.state"]
        assert np.array_equal(state, whole.columns["observation.state"].values)
        assert arrays["source_frame"].tolist() == list(range(10))
        said = json.loads(sample["json"])
        assert said["task"] == whole.task and said["provenance"] == whole.provenance
        assert said["names"]["action"] == ["x", "y", "z"]


def test_frames_have_their_picture_and_its_row(tmp_path: Path) -> None:
    whole = made(0, 1, 2, cameras=(EGO, SIDE))
    write_shards(tmp_path, whole, FRAMES.model_copy(update={"every": 3}))
    found = samples(tmp_path)
    assert len(found) == 3 * 4
    for key, sample in found.items():
        said = json.loads(sample["json"])
        assert key == f"{said['episode_id']}-{said['tick']:06d}"
        ego, side = (
            number_in(np.asarray(Image.open(io.BytesIO(sample[name]))))
            for name in ("ego.jpg", "side.jpg")
        )
        assert said["number"] == [ego] and side == 65535 - ego
        assert said["source_frame"] == said["tick"] == ego % 100


@pytest.mark.parametrize("settings", [CLIPS, FRAMES])
def test_the_same_episodes_make_the_same_bytes(
    tmp_path: Path, settings: WebDatasetSettings
) -> None:
    write_shards(tmp_path / "a", made(0, 1, 2), settings)
    write_shards(tmp_path / "b", made(0, 1, 2), settings)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    with tarfile.open(tmp_path / "a" / "train-000000.tar") as tar:
        for info in tar:
            assert (info.mtime, info.uid, info.gid, info.mode) == (0, 0, 0, 0o644)
            assert not info.pax_headers


@pytest.mark.parametrize("codec", ["h264", "av1"])
def test_the_bytes_depend_on_no_cpu_and_on_no_setting_of_the_process(
    tmp_path: Path, codec: Literal["h264", "av1"]
) -> None:
    """One CPU and one thread for all, against all CPUs and what libraries take by themselves."""
    settings = WebDatasetSettings(codec=codec)
    whole = made(0, size=(98, 54))  # the functions that x264 has for some CPUs would differ here
    write_shards(tmp_path / "here", whole, settings)
    cpus = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    for name, affinity, threads in (("one", cpus.split(",")[0], 1), ("all", cpus, 7)):
        out = tmp_path / name
        given = str(out), codec, affinity, str(threads)
        subprocess.run(
            [sys.executable, "-m", "tests.exports.test_webdataset", *given],
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            check=True,
        )
        assert tree(out) == tree(tmp_path / "here")


def test_functions_that_only_some_cpus_have_change_no_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = video._options
    moving = np.random.default_rng(0).integers(0, 255, (94, 138, 3), np.uint8)
    pictures = [np.ascontiguousarray(moving[n : n + 54, 2 * n : 2 * n + 98]) for n in range(20)]
    made_with = set()
    for level in ("AVX512", "AVX2", "SSE2", "0"):

        def up_to(settings: VideoSettings, level: str = level) -> dict[str, str]:
            found = options(settings)
            return found | {"x264-params": f"{found['x264-params']}:asm={level}"}

        monkeypatch.setattr(video, "_options", up_to)
        path = tmp_path / f"{level}.mp4"
        video.encode(pictures, path, (98, 54), 30, CLIPS)
        made_with.add(path.read_bytes())
    assert len(made_with) == 1


def test_only_shards_that_an_episode_left_are_copied_and_nothing_is_encoded(
    tmp_path: Path,
) -> None:
    write_shards(tmp_path, made(0, 1, 2, 3), CLIPS)
    before = tree(tmp_path)
    again = write_shards(tmp_path, map(unreadable, made(0, 1, 2, 3)), CLIPS)
    assert again.written == [] and tree(tmp_path) == before
    kept = list(map(unreadable, made(0, 2, 3)))
    report = write_shards(tmp_path, [*kept, *made(4)], CLIPS)
    assert (report.kept, report.encoded, report.removed) == (3, 1, 1)
    after = tree(tmp_path)
    assert after["train-000001.tar"] == before["train-000001.tar"]
    write_shards(tmp_path / "alone", made(0), CLIPS)
    assert after["train-000000.tar"] == tree(tmp_path / "alone")["train-000000.tar"]
    found = samples(tmp_path)
    assert [int(key[-6:]) for key in found] == [0, 2, 3, 4]
    for key, sample in found.items():
        assert numbers_of(sample["mp4"])[0] == 100 * int(key[-6:])


def test_a_shard_that_was_cut_off_is_noticed_and_made_again(tmp_path: Path) -> None:
    write_shards(tmp_path, made(0, 1, 2), CLIPS)
    shard = tmp_path / "train-000000.tar"
    whole = shard.read_bytes()
    second = whole.index(b"v1-t000-e000001.mp4")
    shard.write_bytes(whole[:second])
    with tarfile.open(shard) as tar:
        assert len(tar.getnames()) == 3  # silently one sample short
    assert damaged_files(tmp_path) == {
        shard.name: f"has {second:,} bytes instead of {len(whole):,}"
    }
    shard.write_bytes(b"x" + whole[1:])
    assert damaged_files(tmp_path) == {shard.name: "has other bytes than were written"}
    shard.write_bytes(whole[:second])
    write_shards(tmp_path, [*made(0, 1), unreadable(made(2)[0])], CLIPS)
    assert damaged_files(tmp_path) == {} and len(samples(tmp_path)) == 3


def test_an_export_that_was_killed_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    """Killed after each of its steps in turn; what was encoded is not asked for again."""
    write_shards(tmp_path / "whole", made(0, 1, 2), CLIPS)
    for steps in range(1, 6):
        out = tmp_path / f"killed{steps}"
        done = subprocess.run(
            [sys.executable, "-m", "tests.exports.test_webdataset", str(out), str(steps)],
            capture_output=True,
            text=True,
        )
        assert done.returncode == -9, done.stderr
        assert not list(out.glob("*.tar"))
        encoded = int(done.stdout.split()[-1])
        all_of_them = made(0, 1, 2)
        write_shards(out, [*map(unreadable, all_of_them[:encoded]), *all_of_them[encoded:]], CLIPS)
        assert tree(out) == tree(tmp_path / "whole")


@pytest.mark.heavy
@pytest.mark.parametrize("settings", [CLIPS, FRAMES], ids=["clips", "frames"])
def test_the_package_webdataset_reads_every_frame(
    tmp_path: Path, settings: WebDatasetSettings
) -> None:
    """Its environment is made once a folder (EGO_WEBDATASET), which takes a network."""
    place = Path(tempfile.gettempdir()) / "ego-webdataset"
    python = Path(os.environ.get("EGO_WEBDATASET") or place) / "bin" / "python"
    if not python.exists():
        run(sys.executable, "-m", "venv", str(python.parents[1]))
        pip(python, "webdataset", "pillow", "av", "numpy")
    write_shards(tmp_path, made(*range(5)), settings)
    write_shards(tmp_path, made(0, 2, 3, 4, 5, 6), settings)
    script = Path(__file__).with_name("webdataset_reader.py")
    said = subprocess.run(
        [str(python), str(script), settings.content, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    print(said)
    found = json.loads(said)
    assert found["wrong"] == [] and found["frames"] == 60


def die_after(out: str, steps: str) -> None:
    left, encoded = int(steps), 0

    def progress(what: str, frames: int) -> None:
        nonlocal left, encoded
        left -= 1
        encoded += what == "encoded"
        if not left:
            print(encoded, flush=True)
            os.kill(os.getpid(), 9)

    write_shards(Path(out), made(0, 1, 2), CLIPS, progress=progress)


def write_under(out: str, codec: str, affinity: str, threads: str) -> None:
    import cv2
    import torch

    os.sched_setaffinity(0, set(map(int, affinity.split(","))))
    cv2.setNumThreads(int(threads))
    torch.set_num_threads(int(threads))
    settings = WebDatasetSettings.model_validate({"codec": codec})
    write_shards(Path(out), made(0, size=(98, 54)), settings)


@pytest.mark.parametrize("name", ["v1.t0", "a/b", "ä"])
def test_a_name_that_readers_would_cut_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="a key has letters"):
        write_shards(tmp_path, [episode(name, 5, 0)], CLIPS)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    write_shards(tmp_path / "a", made(0), CLIPS)
    validation = CLIPS.model_copy(update={"split": "validation"})
    with pytest.raises(ValueError, match="is of the split train"):
        write_shards(tmp_path / "a", made(0), validation)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine.txt").write_text("")
    with pytest.raises(ValueError, match="holds other files"):
        write_shards(tmp_path / "b", made(0), CLIPS)


if __name__ == "__main__":
    (die_after if len(sys.argv) == 3 else write_under)(*sys.argv[1:])
