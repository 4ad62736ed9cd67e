"""Statistics of a whole data set are those of its rows, not means of means."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ego_assets.exports.lerobot import statistics
from ego_assets.exports.lerobot.statistics import Aggregate, PictureCounter, of_pictures, of_rows
from ego_assets.exports.lerobot.writer import write_dataset
from tests.exports.numbered import EGO, episode


def assert_same(found: dict[str, object], rows: np.ndarray, rank: float = 0.0) -> None:
    assert np.allclose(found["min"], rows.min(axis=0))
    assert np.allclose(found["max"], rows.max(axis=0))
    assert np.allclose(found["mean"], rows.mean(axis=0), rtol=1e-12)
    assert np.allclose(found["std"], rows.std(axis=0), rtol=1e-9)
    assert found["count"] == [len(rows)]
    for name, share in statistics.QUANTILES.items():
        low, high = (np.quantile(rows, np.clip(share + d, 0, 1), axis=0) for d in (-rank, rank))
        assert (low - 1e-12 <= np.array(found[name])).all()
        assert (np.array(found[name]) <= high + 1e-12).all()


def test_parts_of_very_different_sizes_and_places_add_up_exactly() -> None:
    random = np.random.default_rng(0)
    parts = [random.normal(1e6 * n, 1e-3, (1 + 700 * n, 2)) for n in range(5)]
    whole = Aggregate(sum(map(len, parts)), {"a": 2})
    for part in parts:
        whole.add({"a": part})
    rows = np.concatenate(parts)
    assert_same(whole.result()["a"], rows)


def test_a_spread_far_from_zero_is_not_lost() -> None:
    rows = 1e8 + np.random.default_rng(0).normal(0, 1e-3, (10_000, 1))
    whole = Aggregate(len(rows), {"a": 1})
    for part in np.split(rows, 100):
        whole.add({"a": part})
    assert whole.result()["a"]["std"][0] == pytest.approx(1e-3, rel=0.05)


def test_quantiles_of_many_rows_come_from_a_fair_share_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(statistics, "SAMPLED_VALUES", 1)
    # Sorted, and with a rhythm of the step: a plain stride would see one phase only.
    rows = np.stack([np.arange(300_000) / 1e5, np.arange(300_000) % 15], axis=1)
    whole = Aggregate(len(rows), {"a": 2})
    for part in np.array_split(rows, 77):
        whole.add({"a": part})
    assert_same(whole.result()["a"], rows, rank=0.01)


def test_pictures_are_counted_between_0_and_1() -> None:
    pictures = [np.full((300, 400, 3), (0, 51 * n, 255), np.uint8) for n in range(6)]
    counter = PictureCounter(6)
    assert len(list(counter.watch(pictures))) == 6
    found = of_pictures(counter.bins, counter.pictures)
    assert found["count"] == [6]
    assert np.array(found["mean"]).shape == (3, 1, 1)
    assert np.ravel(found["min"]).tolist() == [0, 0, 1]
    assert np.ravel(found["max"]).tolist() == [0, 1, 1]
    assert np.ravel(found["mean"]) == pytest.approx([0, 0.5, 1])
    assert np.ravel(found["std"]) == pytest.approx([0, np.std(np.arange(6) / 5), 0])
    assert np.ravel(found["q50"])[1] == pytest.approx(0.4)


def test_one_row_and_flags_have_statistics() -> None:
    found = of_rows(np.array([[True, False]]))
    assert (found["min"], found["std"], found["q99"]) == ([1, 0], [0, 0], [1, 0])


def test_those_of_a_data_set_are_those_of_its_rows(tmp_path: Path) -> None:
    made = [episode(f"e{n}", 5 + 30 * n, 1000 * n, size=(64, 36)) for n in range(4)]
    write_dataset(tmp_path, made[:2])
    write_dataset(tmp_path, made[1:])
    said = json.loads((tmp_path / "meta/stats.json").read_text())
    rows = pq.read_table(tmp_path / "data")
    for key in ("observation.state", "number", "index", "timestamp", "is_held"):
        values = np.array(rows[key].to_pylist(), np.float64).reshape(rows.num_rows, -1)
        assert_same(said[key], values)
    assert said[EGO]["count"] == [35 + 65 + 95]
    each = pq.read_table(tmp_path / "meta/episodes").to_pylist()
    assert [row["stats/number/max"] for row in each] == [[1034], [2064], [3094]]
    assert [row["stats/index/min"] for row in each] == [[0], [35], [100]]
    assert np.array(each[0][f"stats/{EGO}/mean"]).shape == (3, 1, 1)
