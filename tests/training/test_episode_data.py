"""Samples of a lake with numbered pictures: the right ones, each once, also after a restart."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ego_assets as ego
from ego_assets.catalog import TABLES
from ego_assets.exports.grid import ExportError
from ego_assets.exports.lake_episodes import LakeEpisodes
from ego_assets.exports.settings import ContentSettings
from ego_assets.operator import BadInputError
from ego_assets.reading import LakeError
from ego_assets.training import (
    EpisodeDataset,
    EpisodeLoader,
    EpisodeStream,
    WindowSampler,
    WindowSettings,
)
from tests.episodes.made_footage import MadeVideo
from tests.exports.bars import number_in
from tests.exports.numbered_lake import NumberedLake, make, provenance, write_numbered

ROOT = Path(__file__).resolve().parents[2]
COUNTS = (64, 75, 61, 70)
WINDOWS = WindowSettings(observation=3, action=5, stride=2, size=(108, 192))
NO_PICTURES = WINDOWS.model_copy(update={"size": None})
Key = tuple[str, int]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> NumberedLake:
    videos = [MadeVideo(count=n, video_id=f"{i:016x}") for i, n in enumerate(COUNTS)]
    write = partial(write_numbered, keyframes=20)
    return make(tmp_path_factory.mktemp("lake"), *videos, shards=2, write=write)


@pytest.fixture
def few(tmp_path: Path) -> NumberedLake:
    videos = [MadeVideo(count=60, video_id=f"{i:016x}") for i in range(2)]
    return make(tmp_path, *videos, shards=2)


def numbers_in(pictures: torch.Tensor) -> list[int]:
    return [number_in(p.numpy().transpose(1, 2, 0)) for p in pictures]


def keys_of(batches: Any) -> list[Key]:
    found = []
    for batch in batches:
        found += list(zip(batch["episode_id"], batch["tick"].tolist(), strict=True))
    return found


def all_keys(made: NumberedLake) -> list[Key]:
    stream = EpisodeStream(ego.open(made.lake.location), NO_PICTURES)
    return sorted((e.episode_id, t) for e in stream.index for t in range(0, e.ticks, 2))


def test_every_picture_is_that_of_its_frame(made: NumberedLake) -> None:
    lake = ego.open(made.lake.location)
    dataset = EpisodeDataset(lake, WINDOWS)
    assert len(dataset) == sum(-(-n // 2) for n in COUNTS)
    states = {e.episode_id: e.columns["observation.state"] for e in dataset.episodes}
    samples = [dataset[n] for n in range(len(dataset))]
    samples += list(EpisodeStream(lake, WINDOWS, buffer=16))
    for sample in samples:
        tick, all_states = sample["tick"], states[sample["episode_id"]]
        seen = [max(tick + d, 0) for d in (-2, -1, 0)]
        assert numbers_in(sample["observation.images.ego"]) == seen
        assert sample["frame_index"] == tick
        assert np.array_equal(sample["observation.state"].numpy(), all_states[seen])
        last = len(all_states) - 1
        nexts = [min(tick + d + 1, last) for d in range(5)]
        assert np.array_equal(sample["action"].numpy(), all_states[nexts])
        assert sample["observation_is_pad"].tolist() == [tick + d < 0 for d in (-2, -1, 0)]
        assert sample["action_is_pad"].tolist() == [tick + d > last for d in range(5)]
    first = dataset[0]["observation.images.ego"]
    assert (first.dtype, tuple(first.shape)) == (torch.uint8, (3, 3, 108, 192))


def test_windows_in_any_order_have_their_pictures(made: NumberedLake) -> None:
    dataset = EpisodeDataset(ego.open(made.lake.location), WINDOWS, open_videos=1)
    for number in np.random.default_rng(0).permutation(len(dataset))[:40].tolist():
        sample = dataset[number]
        assert numbers_in(sample["observation.images.ego"])[-1] == sample["tick"]


def test_pictures_are_shrunk_into_the_middle(made: NumberedLake) -> None:
    lake = ego.open(made.lake.location)
    small = WindowSettings(size=(96, 96))
    picture = EpisodeDataset(lake, small)[20]["observation.images.ego"][0].numpy()
    assert picture.shape == (3, 96, 96)
    assert not picture[:, :21].any() and not picture[:, 75:].any()
    assert number_in(picture[:, 21:75].transpose(1, 2, 0)) == 40 // 2


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
@pytest.mark.parametrize("ranks", [1, 2])
def test_every_window_comes_once_over_workers_and_ranks(
    made: NumberedLake, workers: int, ranks: int
) -> None:
    lake = ego.open(made.lake.location)
    streamed: list[Key] = []
    sampled: list[Key] = []
    dataset = EpisodeDataset(lake, NO_PICTURES)
    for rank in range(ranks):
        of = {"rank": rank, "ranks": ranks, "seed": 4}
        stream = EpisodeStream(lake, NO_PICTURES, buffer=20, **of)
        for source, found in ((stream, streamed), (WindowSampler(dataset, **of), sampled)):
            loader = EpisodeLoader(source, batch_size=7, num_workers=workers)
            batches = list(loader)
            assert len(batches) == len(loader)
            found += keys_of(batches)
    assert sorted(streamed) == sorted(sampled) == all_keys(made)


def test_even_ranks_get_as_many_batches(made: NumberedLake) -> None:
    lake = ego.open(made.lake.location)
    found = []
    for rank in range(3):
        stream = EpisodeStream(lake, NO_PICTURES, even=True, rank=rank, ranks=3)
        found.append([len(b["tick"]) for b in EpisodeLoader(stream, batch_size=8, num_workers=2)])
    assert found[0] == found[1] == found[2]
    total = len(all_keys(made))
    assert sum(map(sum, found)) == total - total % 6


def test_the_same_seed_gives_the_same_order_and_another_one_another(made: NumberedLake) -> None:
    lake = ego.open(made.lake.location)

    def order(seed: int, epoch: int) -> list[Key]:
        stream = EpisodeStream(lake, NO_PICTURES, seed=seed, buffer=30)
        stream.set_epoch(epoch)
        return keys_of(EpisodeLoader(stream, batch_size=8, num_workers=2))

    first = order(0, 0)
    assert order(0, 0) == first
    for other in (order(1, 0), order(0, 1)):
        assert other != first and sorted(other) == sorted(first)


def test_a_stream_can_be_read_by_a_loader_of_torch_alone(made: NumberedLake) -> None:
    stream = EpisodeStream(ego.open(made.lake.location), NO_PICTURES, buffer=20)
    alone = [(s["episode_id"], s["tick"]) for s in stream]
    assert alone == [(s["episode_id"], s["tick"]) for s in stream]
    loaded = keys_of(torch.utils.data.DataLoader(stream, batch_size=8, num_workers=2))
    assert sorted(loaded) == sorted(alone) == all_keys(made) and loaded != alone


def test_shuffling_mixes_episodes(made: NumberedLake) -> None:
    stream = EpisodeStream(ego.open(made.lake.location), NO_PICTURES, buffer=64)
    batches = list(EpisodeLoader(stream, batch_size=32))
    assert all(len(set(b["episode_id"])) >= 2 for b in batches[:3])
    plain = EpisodeStream(ego.open(made.lake.location), NO_PICTURES, shuffle=False)
    listed = [(e.episode_id, t) for e in plain.index for t in range(0, e.ticks, 2)]
    assert keys_of(EpisodeLoader(plain, batch_size=8)) == listed


@pytest.mark.parametrize(
    "workers, kind",
    [(0, "stream"), (2, "stream"), (3, "stream"), (0, "sampler"), (2, "sampler")],
)
def test_an_epoch_goes_on_where_it_was_left(made: NumberedLake, workers: int, kind: str) -> None:
    lake = ego.open(made.lake.location)
    dataset = EpisodeDataset(lake, NO_PICTURES)

    def new() -> EpisodeLoader:
        stream = EpisodeStream(lake, NO_PICTURES, buffer=20, seed=2)
        source = stream if kind == "stream" else WindowSampler(dataset, seed=2)
        return EpisodeLoader(source, batch_size=6, num_workers=workers)

    whole = new()
    epochs = [keys_of(whole) for _ in range(2)]
    for left_at in (len(whole) // 2,) if workers else (0, 1, 8, len(whole) - 1):
        loader, before = new(), []
        for number, batch in enumerate(loader):
            before += keys_of([batch])
            if number == left_at:
                break
        state = pickle.loads(pickle.dumps(loader.state_dict()))  # noqa: S301 as checkpoints do
        again = new()
        again.load_state_dict(state)
        assert again.state_dict() == state
        assert before + keys_of(again) == epochs[0], left_at
        assert keys_of(again) == epochs[1]


def test_pictures_are_right_after_going_on(made: NumberedLake) -> None:
    lake = ego.open(made.lake.location)
    stream = EpisodeStream(lake, WINDOWS, buffer=20, seed=2)
    samples = iter(stream)
    before = [(s["episode_id"], s["tick"]) for s, _ in zip(samples, range(50), strict=False)]
    again = EpisodeStream(lake, WINDOWS, buffer=20, seed=2)
    again.load_state_dict(stream.state_dict() | {"delivered": {"0": 50}})
    after = list(again)
    for sample in after:
        assert numbers_in(sample["observation.images.ego"])[-1] == sample["tick"]
    found = before + [(s["episode_id"], s["tick"]) for s in after]
    assert sorted(found) == all_keys(made)


def test_a_state_of_another_order_is_refused(made: NumberedLake) -> None:
    lake = ego.open(made.lake.location)
    loader = EpisodeLoader(EpisodeStream(lake, NO_PICTURES), batch_size=4, num_workers=2)
    next(iter(loader))
    state = loader.state_dict()
    with pytest.raises(ValueError, match="seed 0, not 1"):
        EpisodeStream(lake, NO_PICTURES, seed=1).load_state_dict(state)
    alone = EpisodeStream(lake, NO_PICTURES)
    alone.load_state_dict(state)
    with pytest.raises(ValueError, match=r"2 readers .* these are 1"):
        next(iter(alone))


def test_the_index_is_what_episodes_have(made: NumberedLake) -> None:
    lake = ego.open(made.lake.location)
    for content in (
        ContentSettings(fps=10),
        ContentSettings(frame="world"),
        ContentSettings(hand="both"),
    ):
        episodes = LakeEpisodes(lake, content, 0)
        settings = episodes.resolved()
        listed: dict[str, int] = {}
        for shard in lake.shards("episodes"):
            listed |= episodes.lengths(shard, settings)
        assert listed == {e.episode_id: len(e) for e in episodes} and len(listed) == len(COUNTS)


def test_episodes_without_a_world_are_left_out_and_named(tmp_path: Path) -> None:
    lost = MadeVideo(count=90, video_id="00000000000000b2")
    lost.camera_valid[40:60] = False
    lake = ego.open(make(tmp_path, MadeVideo(count=90), lost).lake.location)
    content = ContentSettings(frame="world")
    stream = EpisodeStream(lake, NO_PICTURES, content)
    dataset = EpisodeDataset(lake, NO_PICTURES, content)
    assert [e.episode_id for e in stream.index] == [e.episode_id for e in dataset.episodes]
    assert stream.skipped == dataset.skipped and len(stream.skipped) == 1
    assert "not known in metres" in next(iter(stream.skipped.values()))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_raw_video_that_is_gone_is_named(few: NumberedLake, workers: int) -> None:
    lake = ego.open(few.lake.location)
    stream = EpisodeStream(lake, WINDOWS, buffer=0)
    dataset = EpisodeDataset(lake, WINDOWS)
    gone = few.folder / f"{1:016x}.mp4"
    gone.unlink()
    for source in (stream, WindowSampler(dataset)):
        with pytest.raises(FileNotFoundError, match=f"episode .*raw video {1:016x} of shard") as e:
            list(EpisodeLoader(source, batch_size=4, num_workers=workers))
        assert str(gone) in str(e.value)


def test_where_no_episode_fits_it_is_said_and_not_waited_for(few: NumberedLake) -> None:
    lake = ego.open(few.lake.location)
    loader = EpisodeLoader(EpisodeStream(lake, NO_PICTURES), batch_size=500, drop_last=True)
    with pytest.raises(ValueError, match=r"no batch of 500 in an epoch: windows are \[60\]"):
        next(iter(loader))
    rows = [row | {"world_from_hand_m": None} for row in few.tables["episode_hands"]]
    for shard in lake.shards("episodes"):
        here = TABLES["episode_hands"].from_rows([r for r in rows if r["shard"] == shard])
        few.lake.publish("episode_hands", shard, "unit", here, replace(provenance("unit"), token=1))
    for kind in (EpisodeStream, EpisodeDataset):
        with pytest.raises(ExportError, match="none of 2 episodes can be used; the first: 0000"):
            kind(lake, NO_PICTURES, ContentSettings(frame="world"))


def test_a_raw_video_that_is_damaged_is_named(few: NumberedLake) -> None:
    stream = EpisodeStream(ego.open(few.lake.location), WINDOWS, buffer=0)
    (few.folder / f"{1:016x}.mp4").write_bytes(b"no video" * 100)
    with pytest.raises(BadInputError, match=f"episode .*raw video {1:016x} of shard"):
        list(stream)


def test_a_shard_that_is_gone_is_named(few: NumberedLake) -> None:
    stream = EpisodeStream(ego.open(few.lake.location), NO_PICTURES)
    for path in few.lake.root.glob("episodes/**/20261130-0001/*"):
        path.unlink()
    with pytest.raises(LakeError, match=r"episode .* of shard 20261130-0001 is gone"):
        list(stream)


def test_forward_reads_decode_each_frame_once(
    made: NumberedLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ego_assets.media.decode import ClipFrames

    decoded: Counter[tuple[Path, int]] = Counter()
    bare = ClipFrames._walk

    def counted(self: ClipFrames, first: int, last: int) -> Any:
        for index, picture in bare(self, first, last):
            decoded[self.path, index] += 1
            yield index, picture

    monkeypatch.setattr(ClipFrames, "_walk", counted)
    lake = ego.open(made.lake.location)
    dataset = EpisodeDataset(lake, WINDOWS)
    assert len([dataset[n] for n in range(len(dataset))]) == len(dataset)
    frames = sum(n - (n % 2 == 0) for n in COUNTS)  # the last one of these is in no window
    assert (len(decoded), set(decoded.values())) == (frames, {1})
    decoded.clear()
    wide = WINDOWS.model_copy(update={"observation": 12})
    assert len(list(EpisodeStream(lake, wide, buffer=8))) == len(dataset)
    assert (len(decoded), set(decoded.values())) == (frames, {1})


WITHOUT_PLATFORM = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[2:]))  # as if they were not installed
import ego_assets as ego
from ego_assets.training import EpisodeLoader, EpisodeStream, WindowSettings

lake = ego.open(sys.argv[1])
stream = EpisodeStream(lake, WindowSettings(size=(54, 96)))
for batch in EpisodeLoader(stream, batch_size=8):
    print(*batch["observation.images.ego"].shape, *batch["action"].shape)
    break
"""


def test_training_needs_torch_and_the_core_alone(made: NumberedLake) -> None:
    absent = ["dagster", "cv2", "scipy", "polars", "boto3", "sqlalchemy", "click", "rich", "psutil"]
    command = [sys.executable, "-c", WITHOUT_PLATFORM, made.lake.location, *absent]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "8 1 3 54 96 8 16 48\n", done.stderr


def test_a_data_set_that_was_read_can_be_forked_and_pickled(made: NumberedLake) -> None:
    dataset = EpisodeDataset(ego.open(made.lake.location), WINDOWS)
    first = dataset[0]  # a decoder is open now
    other = pickle.loads(pickle.dumps(dataset))  # noqa: S301 as workers that are spawned do
    assert torch.equal(other[0]["action"], first["action"])
    sampler = WindowSampler(dataset, shuffle=False)
    batches = list(EpisodeLoader(sampler, batch_size=16, num_workers=2))
    for batch in batches:
        assert [numbers_in(p)[-1] for p in batch["observation.images.ego"]] == list(batch["tick"])
    stream = pickle.loads(pickle.dumps(EpisodeStream(dataset._maker._reader, NO_PICTURES)))  # noqa: S301
    assert len(list(stream)) == len(dataset)
