"""The contract refuses what does not fit, and says what and where."""

from __future__ import annotations

import io

import pyarrow.parquet as pq
import pytest

from ego_assets.catalog import TABLES
from resources.lake.table import ContractError


def clip_row(**changes):
    row = {
        "video_id": "0123456789abcdef",
        "shard": "20260101-0000",
        "clip_id": "0123456789abcdef-0000",
        "clip_index": 0,
        "take_id": "0123456789abcdef-t000",
        "index_in_take": 0,
        "start_frame": 0,
        "end_frame": 30,
        "start_pts_s": 0.0,
        "end_pts_s": 1.0,
        "context_frames": 0,
        "split_reason": "start",
        "recording_id": "fedcba9876543210",
        "recording_start_s": 60.0,
        "damaged_frames": [[3, 5], [9, 10]],
        "estimated_cost": 1.0,
    }
    return row | changes


def test_every_column_has_a_description_and_every_key_exists():
    for name, table in TABLES.items():
        assert table.table == name
        assert set(table.key) <= set(table.arrow_schema().names)
        for column in table.columns():
            assert column.description, f"{name}.{column.name}"


def test_a_good_row_survives_parquet():
    batch = TABLES["clips"].from_rows([clip_row()])
    buffer = io.BytesIO()
    pq.write_table(batch, buffer)
    again = pq.read_table(io.BytesIO(buffer.getvalue()))
    TABLES["clips"].validate_batch(again)
    assert again.to_pylist() == [clip_row()]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"start_frame": -1}, "start_frame: 1 values outside"),
        ({"split_reason": "boredom"}, "split_reason"),
        ({"video_id": None}, "video_id: 1 nulls"),
        ({"start_pts_s": float("nan")}, "not finite"),
        ({"end_frame": "many"}, "clips"),
        ({"colour": 1}, "unknown columns"),
    ],
)
def test_a_bad_row_is_refused(changes, says):
    with pytest.raises(ContractError, match=says):
        TABLES["clips"].from_rows([clip_row(**changes)])


def test_a_repeated_key_is_refused():
    with pytest.raises(ContractError, match="repeat the key"):
        TABLES["clips"].from_rows([clip_row(), clip_row()])


def test_an_empty_batch_fits_every_table():
    for table in TABLES.values():
        assert table.from_rows([]).num_rows == 0
