"""The container of MCAP, whose lengths are not to be trusted.

It is read by the library `mcap`, with bounded records; chunks are unpacked here, since the library
makes as much of them as they say. Not here: what is in messages (`mcap_sidecar`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from itertools import islice
from typing import IO, Any

from ego_assets.telemetry.samples import TelemetryError

MAX_RECORD_BYTES = 64 * 2**20
MAX_MESSAGE_BYTES = 2**20
MAX_UNPACKED_BYTES, MAX_RECORDS = 2 * 2**30, 5_000_000
"""Of all chunks of a file, and of the file: less than a minute's work."""
_MAX_INDEXED = 100_000
"""Records of a summary that are looked at."""
_FOOTER_BYTES = 9 + 20 + 8
"""At the end of a file: opcode and length, the footer, the magic bytes."""


@dataclass
class Budget:
    """What may still be read of a file."""

    byte_count: int = field(default_factory=lambda: MAX_UNPACKED_BYTES)
    record_count: int = field(default_factory=lambda: MAX_RECORDS)

    def take_record(self) -> None:
        """Raises TelemetryError."""
        self.record_count -= 1
        if self.record_count < 0:
            raise TelemetryError(f"over {MAX_RECORDS} records")

    def take(self, data: bytes) -> bytes:
        """Raises TelemetryError for a chunk that unpacks to too much."""
        self.byte_count -= len(data)
        if len(data) > MAX_RECORD_BYTES:
            raise TelemetryError(f"a chunk of over {MAX_RECORD_BYTES // 2**20} MiB")
        if self.byte_count < 0:
            raise TelemetryError(f"chunks of over {MAX_UNPACKED_BYTES / 2**30:g} GiB in all")
        return data


def metadata_by_summary(file: IO[bytes], name: str) -> dict[str, str] | None:
    """The metadata record of a name, wherever in the file it is; None if there is no summary that
    leads to one. What is damaged is told by who reads all of the file."""
    from mcap.records import Footer, Metadata, MetadataIndex
    from mcap.stream_reader import StreamReader

    def records() -> Iterator[Any]:
        limit = MAX_MESSAGE_BYTES
        yield from StreamReader(file, True, emit_chunks=True, record_size_limit=limit).records

    with suppress(Exception):  # the library raises whatever damage leads to
        file.seek(-_FOOTER_BYTES, os.SEEK_END)
        footer = next(records())
        if not isinstance(footer, Footer) or not footer.summary_start:
            return None
        file.seek(footer.summary_start)
        for index in islice(records(), _MAX_INDEXED):
            if isinstance(index, MetadataIndex) and index.name == name:
                file.seek(index.offset)
                found = next(records())
                if isinstance(found, Metadata) and found.name == name:
                    return dict(found.metadata)
    return None


def unpacked(record: Any, budget: Budget) -> Iterator[Any]:
    """The records in a chunk, one after the other and with bounded memory; else the record. Raises
    TelemetryError."""
    from mcap.data_stream import ReadDataStream
    from mcap.opcode import Opcode
    from mcap.records import Channel, Chunk, Message, Schema

    if not isinstance(record, Chunk):
        budget.take_record()
        yield record
        return
    if record.compression == "zstd":
        import zstandard

        with zstandard.ZstdDecompressor().stream_reader(record.data) as packed:
            data = packed.read(MAX_RECORD_BYTES + 1)
    elif record.compression == "lz4":
        import lz4.frame

        data = lz4.frame.LZ4FrameDecompressor().decompress(
            record.data, max_length=MAX_RECORD_BYTES + 1
        )
    elif not record.compression:
        data = record.data
    else:
        raise TelemetryError("a chunk that is packed otherwise than by zstd or lz4")
    size = len(budget.take(data))
    stream = ReadDataStream(BytesIO(data))
    while stream.count < size:
        budget.take_record()
        opcode, length = stream.read1(), stream.read8()
        if opcode == Opcode.MESSAGE:
            yield Message.read(stream, length)
        elif opcode == Opcode.CHANNEL:
            yield Channel.read(stream)
        elif opcode == Opcode.SCHEMA:
            yield Schema.read(stream)
        else:
            stream.read(length)
