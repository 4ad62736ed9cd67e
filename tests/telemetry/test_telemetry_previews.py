"""Pictures of telemetry and gravity: there where rows are, and without positions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ego_assets.catalog import TABLES, info
from ego_assets.feature import load
from ego_assets.telemetry import preview
from resources.lake import Lake
from resources.raw.reader import RawReader
from tests.engine.stage_bench import provenance
from tests.telemetry.made_telemetry import Motion
from tests.telemetry.test_gravity import SHARD, rows_of, tables


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    made = Lake(tmp_path_factory.mktemp("lake"))
    seen = tables(Motion(3))
    source = dict.fromkeys(TABLES["telemetry_sources"].model_fields)
    source |= {"video_id": "v", "shard": SHARD, "source": "gpmd", "place": "stream 3"}
    source |= {"axes": "camera", "sample_count": 4000, "outside_count": 0, "gps": "none"}
    source |= {"fault_count": 1, "faults": ["1.00 s: no key"]}
    for table, batch in (
        ("telemetry", seen["telemetry"]),
        ("telemetry_sources", TABLES["telemetry_sources"].from_rows([source])),
        ("gravity", TABLES["gravity"].from_rows(rows_of(seen))),
    ):
        made.publish(table, SHARD, "unit", batch, provenance("made"))
        made.compact(table, SHARD, ["unit"])
    return made


@pytest.mark.parametrize("table", ["telemetry", "telemetry_sources", "gravity"])
def test_rows_have_a_picture(lake: Lake, table: str, tmp_path: Path) -> None:
    draw = load(info(table).preview or "")
    media, data = draw(lake, table, SHARD, RawReader())
    assert media == "image/png" and 2_000 < len(data) < 200_000
    assert draw(Lake(tmp_path / "empty"), table, SHARD, RawReader()) is None


def test_long_series_are_thinned() -> None:
    times, values = preview._thinned(np.arange(100_001.0), np.zeros((100_001, 3)))
    assert len(times) == len(values) <= preview.MOST_POINTS
