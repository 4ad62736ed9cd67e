"""The contract refuses what does not fit, and says what and where."""

from __future__ import annotations

import io

import pyarrow.parquet as pq
import pytest

from ego_assets.catalog import TABLES
from resources.lake import Lake
from resources.lake.table import ContractError
from tests.contracts.test_schema_evolution import golden_rows
from tests.engine.stage_bench import SHARD, provenance


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


@pytest.mark.parametrize(
    "table", ["hand_poses", "object_poses", "robot_mappings", "scene_reconstruction"]
)
def test_reasons_are_a_closed_list_for_whoever_writes(table):
    model, (full, _) = TABLES[table], golden_rows(table)
    (column,) = (c for c in model.columns() if c.name == "invalid_reason")
    for reason in (*column.one_of, None):
        assert model.from_rows([full | {"invalid_reason": reason}]).num_rows == 1
    said = r"invalid_reason: \['because'\] not in .*: a backend says one of these \(docs/extending"
    with pytest.raises(ContractError, match=said):
        model.from_rows([full | {"invalid_reason": "because"}])


def test_what_an_older_release_said_is_read_and_compacted(tmp_path, monkeypatch):
    lake, model, (full, _) = Lake(tmp_path), TABLES["object_poses"], golden_rows("object_poses")
    said = full | {"invalid_reason": "3 known features are seen, 6 are needed"}
    with monkeypatch.context() as before:
        before.setattr(model, "validate_batch", lambda batch: None)
        lake.publish("object_poses", SHARD, "unit", model.from_rows([said]), provenance("old"))
    lake.compact("object_poses", SHARD, ["unit"])
    rows = lake.read("object_poses", SHARD)
    assert rows["invalid_reason"].to_pylist() == [said["invalid_reason"]]
    assert model.violations(rows) == []
    with pytest.raises(ContractError, match="invalid_reason"):
        lake.publish("object_poses", SHARD, "again", rows, provenance("now"))


def test_an_empty_batch_fits_every_table():
    for table in TABLES.values():
        assert table.from_rows([]).num_rows == 0
