"""An MCAP file that messages are added to by topic."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from ego_assets.exports.files import naming
from ego_assets.exports.grid import ExportError


class McapLog:
    """Writes one file. Its bytes depend on the messages and on the version of `mcap` alone."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._schemas: dict[str, int] = {}
        self._channels: dict[str, int] = {}
        self._sequence: dict[int, int] = {}

    def __enter__(self) -> McapLog:
        from mcap.writer import Writer

        with naming(self._path):
            self._file = self._path.open("wb")
            self._writer: Any = Writer(self._file)
            self._writer.start(profile="", library="ego-assets")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with naming(self._path), self._file:
            if error is None:
                self._writer.finish()

    def say(self, name: str, said: Mapping[str, str]) -> None:
        """Add a record of metadata."""
        with naming(self._path):
            self._writer.add_metadata(name, dict(said))

    def add(self, topic: str, message: Any, time_ns: int) -> None:
        """Add a message of protobuf."""
        of = type(message).DESCRIPTOR
        if topic not in self._channels:
            from mcap_protobuf.schema import build_file_descriptor_set

            if of.full_name not in self._schemas:
                described = build_file_descriptor_set(type(message)).SerializeToString()
                self._register(of.full_name, "protobuf", described)
            self._open(topic, of.full_name, "protobuf")
        self._write(topic, message.SerializeToString(deterministic=True), time_ns)

    def add_json(
        self, topic: str, schema: Mapping[str, Any], value: Mapping[str, Any], time_ns: int
    ) -> None:
        """Add a value that the JSON schema describes, which is called by its `title`."""
        if topic not in self._channels:
            if schema["title"] not in self._schemas:
                self._register(schema["title"], "jsonschema", json.dumps(schema).encode())
            self._open(topic, schema["title"], "json")
        self._write(topic, json.dumps(value, sort_keys=True).encode(), time_ns)

    def _register(self, name: str, encoding: str, data: bytes) -> None:
        self._schemas[name] = self._writer.register_schema(name, encoding, data)

    def _open(self, topic: str, schema: str, encoding: str) -> None:
        number = self._writer.register_channel(topic, encoding, self._schemas[schema])
        self._channels[topic] = number
        self._sequence[number] = 0

    def _write(self, topic: str, data: bytes, time_ns: int) -> None:
        number = self._channels[topic]
        with naming(self._path):
            self._writer.add_message(number, time_ns, data, time_ns, self._sequence[number])
        self._sequence[number] += 1


def check_installed() -> None:
    """Raise ExportError unless the libraries are there."""
    try:
        import foxglove_schemas_protobuf
        import mcap
        import mcap_protobuf
    except ImportError as error:
        raise ExportError(
            f"{error.name} is not installed: pip install 'ego-assets[mcap]'"
        ) from error
    del foxglove_schemas_protobuf, mcap, mcap_protobuf
