"""The container of MCAP: what it unpacks to is bounded, for each chunk and for a file."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from ego_assets.telemetry.formats import mcap_records
from ego_assets.telemetry.formats.mcap_records import MAX_RECORD_BYTES, Budget, unpacked
from ego_assets.telemetry.samples import TelemetryError
from tests.telemetry.test_beside import beside, messages, write_mcap


def test_a_chunk_that_unpacks_to_gigabytes_is_left_packed(tmp_path: Path) -> None:
    pytest.importorskip("mcap")
    import zstandard
    from mcap.records import Chunk

    packer = zstandard.ZstdCompressor().compressobj()
    block, parts = bytes(2**20), []
    for _ in range(MAX_RECORD_BYTES // 2**20 + 8):
        parts.append(packer.compress(block))
    data = b"".join([*parts, packer.flush()])
    assert len(data) < 2**20
    chunk = Chunk("zstd", data, 0, 0, 0, 10)
    with pytest.raises(TelemetryError, match="over 64 MiB"):
        next(unpacked(chunk, Budget()))


@pytest.mark.parametrize("compression", ["ZSTD", "LZ4", "NONE"])
@pytest.mark.parametrize(
    ("limit", "value", "words"),
    [("MAX_RECORDS", 50, "over 50 records"), ("MAX_UNPACKED_BYTES", 2**12, "in all")],
)
def test_what_is_unpacked_of_a_file_is_bounded(
    tmp_path: Path,
    limit: str,
    value: int,
    words: str,
    compression: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = write_mcap(tmp_path / "m", messages("json"), compression=compression)
    monkeypatch.setattr(mcap_records, limit, value)
    output = beside(tmp_path, "v.telemetry.mcap", data)
    (source,) = output.tables["telemetry_sources"]
    assert source["fault_count"] == 1 and words in source["faults"][0]
    assert source["sample_count"] < 50 and (limit == "MAX_RECORDS") == (source["sample_count"] > 0)


def test_a_chunk_is_unpacked_record_by_record() -> None:
    pytest.importorskip("mcap")
    from mcap.records import Chunk

    message = b"\x05" + struct.pack("<QHIQQ", 22, 1, 0, 5, 5)
    budget = Budget()
    found = unpacked(Chunk("", message * 1000, 0, 0, 0, 10), budget)
    before = budget.record_count
    assert next(found).log_time == 5 and budget.record_count == before - 1
    assert len(list(found)) == 999
