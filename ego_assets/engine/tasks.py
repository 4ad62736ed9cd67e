"""What a worker does with one work item: hands it to the operator, and takes what comes out.

A task turns an item into rows and arrays. It publishes nothing and keeps no state between items
apart from a loaded model: the worker does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from ego_assets.engine.plan import StageSpec, WorkItem
from ego_assets.feature import ItemKind
from ego_assets.intake.absence import SourceReader
from ego_assets.media.progress import moved
from ego_assets.models import registry
from ego_assets.operator import Carried, ClipInput, ClipOutput, TablesInput, intrinsics_of
from resources.lake import Lake, file_item_id
from resources.lake.table import TABLES
from resources.ledger import Ledger
from resources.ledger.contents import Contents
from resources.ledger.sources import Source, Sources
from resources.raw.presence import RawGoneError, RawRefusedError
from resources.raw.reader import (
    RawChangedError,
    RawReader,
    is_remote,
    look,
)
from resources.raw.sidecars import (
    find_beside,
    find_sidecar,
    hold_beside,
    read_footage_sidecars,
    sidecar_state,
    sidecar_version,
)
from resources.raw.uris import MAX_SIDECAR_BYTES

PROBE_TRIES = 3


class StageTask(Protocol):
    def process(self, item: WorkItem, carried: Carried | None) -> ClipOutput: ...


class FileTask:
    """A raw file → its row of `video_manifest`, accepted or rejected with the reason."""

    def __init__(self, spec: StageSpec, lake: Lake, ledger: Ledger) -> None:
        self.spec = spec
        self.lake = lake
        self.contents = Contents(ledger)
        self.sources = Sources(ledger)
        self.raw = RawReader(moved=moved)
        self.operator = build_operator(spec)

    def process(self, item: WorkItem, carried: Carried | None) -> ClipOutput:
        known = self.sources.find(item.item_id)
        uri = known.uri if known is not None else item.payload["uri"]
        try:
            row = self._probe(item, uri)
        except RawGoneError:
            if (handed_on := self._handed_on(item.item_id, uri)) is None:
                raise
            return ClipOutput(tables={"video_manifest": [handed_on]})
        if self.contents.is_forgotten(row["video_id"]):
            why = "its content was forgotten (`ego forget`): `ego verify --repair` erases this row"
            row |= self.operator.rejected("forgotten", why)
        if row["accepted"]:
            owner, shard = self._claim(row["video_id"], uri, item.item_id)
            if (owner, shard) != (uri, self.spec.shard):
                row["accepted"] = False
                row["reject_reason"] = "duplicate"
                row["reject_detail"] = f"same bytes as {owner} in shard {shard}"
        return ClipOutput(tables={"video_manifest": [row]})

    def _probe(self, item: WorkItem, uri: str) -> dict[str, Any]:
        """The row of a file as it is. One that changes meanwhile (it is touched, or still being
        written) is begun again, some times. Raises RawChangedError, RawAwayError, RawGoneError."""
        source = Source(item.item_id, self.spec.shard, uri, 0, "", inputs=item.input_hash)
        try:
            source, columns = self._read(source)
        except RawRefusedError as error:
            columns = self.operator.rejected("refused", str(error))
        self.sources.probed(source)
        row = {
            # Of a file that was not read, there is nothing but its name to make an id from.
            "video_id": source.video_id or file_item_id(uri),
            "shard": self.spec.shard,
            "uri": uri,
            "byte_size": source.byte_size,
            "sha256": source.sha256,
        }
        return row | columns

    def _read(self, source: Source) -> tuple[Source, dict[str, Any]]:
        """What a file holds: as a source, and as columns of its row."""
        uri = source.uri
        for is_last in (False,) * (PROBE_TRIES - 1) + (True,):
            state, sidecar = look(uri), sidecar_state(uri)
            try:
                sha256, size, columns = self._probe_file(uri, state.byte_size)
            except RawChangedError:
                if is_last:
                    raise
                continue
            if (look(uri).identity, sidecar_state(uri)) == (state.identity, sidecar):
                break
            if is_last:
                raise RawChangedError(f"{uri}, or a file beside it, changes again and again")
        read = replace(source, byte_size=size, sha256=sha256, state=state.text, sidecar=sidecar)
        return read, columns

    def _probe_file(self, uri: str, byte_size: int) -> tuple[str, int, dict[str, Any]]:
        """Inspect a file; nothing of what is too large is fetched."""
        if is_remote(uri) and (rejected := self.operator.reject_by_size(byte_size)) is not None:
            return "", byte_size, rejected
        with self.raw.hold(uri) as path:
            sha256, size, columns = self.operator.inspect(path)
            if columns["accepted"]:
                columns = self.operator.describe(columns, read_footage_sidecars(uri))
            if columns["accepted"]:
                columns |= self.operator.recording(uri, path, self._recording_of)
        beside = sidecar_version(uri) if is_remote(uri) and columns["accepted"] else None
        if beside is not None and int(beside[0]) > MAX_SIDECAR_BYTES:
            limit = f"{MAX_SIDECAR_BYTES // 2**20} MiB"
            detail = f"{find_sidecar(uri)} is larger than {limit}: it was not fetched"
            columns = self.operator.rejected("bad_calibration", detail)
        return sha256, size, columns

    def _recording_of(self, uris: Iterable[str]) -> str | None:
        """The recording that the rows of some files have; None: there is none."""
        for source in self.sources.at(uris):
            rows = self.lake.read("video_manifest", source.shard, items=[source.item_id])
            if found := next(filter(None, rows["recording_id"].to_pylist()), None):
                return str(found)
        return None

    def _claim(self, video_id: str, uri: str, item_id: str) -> tuple[str, str]:
        """The (uri, shard) that owns this content."""
        owner = self.contents.claim(video_id, uri, self.spec.shard, item_id)
        if owner != (uri, self.spec.shard) and self.contents.let_go(video_id):
            owner = self.contents.claim(video_id, uri, self.spec.shard, item_id)
        return owner

    def _handed_on(self, item_id: str, uri: str) -> dict[str, Any] | None:
        """The row of a file that is not there any more, and whose content has another file."""
        rows = self.lake.read("video_manifest", self.spec.shard, items=[item_id]).to_pylist()
        row: dict[str, Any] | None = next((r for r in rows if r["accepted"]), None)
        if row is None:
            return None
        owner = self.contents.owner(row["video_id"])
        if owner == (uri, self.spec.shard):
            return None
        where = f": same bytes as {owner[0]} in shard {owner[1]}" if owner else ""
        changes = {"accepted": False, "reject_reason": "duplicate"}
        return row | changes | {"reject_detail": f"moved away{where}"}


class VideoTask:
    """An accepted video → the rows of an operator."""

    def __init__(self, spec: StageSpec, lake: Lake, ledger: Ledger) -> None:
        self.spec = spec
        self.raw = SourceReader(ledger)
        self.operator = build_operator(spec)
        self.max_bytes = spec.bytes_in_flight

    def process(self, item: WorkItem, carried: Carried | None) -> ClipOutput:
        video = item.payload["video"]
        with ExitStack() as held:
            path = held.enter_context(self.raw.hold(item.file_id, video["uri"], video["sha256"]))
            uri = self.raw.uri_of(item.file_id, video["uri"])
            beside = {
                version[0]: held.enter_context(
                    hold_beside(self.raw.raw, each, version, video["sha256"])
                )
                for each, version in find_beside(uri, self.spec.beside).items()
            }
            output: ClipOutput = self.operator.process(video, path, self.max_bytes, beside)
            return output


class ClipTask:
    """A clip → the rows of an operator, built once and kept for the worker's life."""

    def __init__(self, spec: StageSpec, lake: Lake, ledger: Ledger) -> None:
        self.spec = spec
        self.lake = lake
        self.raw = SourceReader(ledger)
        self.operator = build_operator(spec)

    def process(self, item: WorkItem, carried: Carried | None) -> ClipOutput:
        video = item.payload["video"]
        with self.raw.hold(item.file_id, video["uri"], video["sha256"]) as path:
            clip = self.clip_input(item, path)
            output: ClipOutput = self.operator.process(clip, carried)
            _leave_out_damaged(output, clip)
        if self.spec.hardware_decoding:
            output.notes["decoded by"] = getattr(clip.frames, "decoded_by", "")
        return output

    def clip_input(self, item: WorkItem, path: Path) -> ClipInput:
        from ego_assets.media.decode import ClipFrames

        clip, video = item.payload["clip"], item.payload["video"]
        tables, arrays = {}, {}
        self.lake.must_be_there()
        for name in self.spec.inputs:
            rows = self.lake.read(name, self.spec.shard, items=[item.item_id])
            if "frame_index" in rows.column_names:
                rows = rows.sort_by("frame_index")
            tables[name] = rows
            if (column := TABLES[name].arrays_column()) is not None:
                keys = {k for k in rows[column].to_pylist() if k}
                arrays[name] = self.lake.read_arrays(keys.pop()) if keys else {}
        self.lake.must_be_there()
        frames = ClipFrames(
            path,
            clip["start_frame"],
            clip["end_frame"],
            max_bytes_in_flight=self.spec.frame_bytes,
            hardware=self.spec.hardware_decoding,
            stream_index=video.get("video_stream_index"),
        )
        return ClipInput(clip, video, frames, intrinsics_of(video), tables, arrays)


def _leave_out_damaged(output: ClipOutput, clip: ClipInput) -> None:
    """Drop rows of frames that are not to be trusted: operators may fill gaps from both sides."""
    damaged = {
        frame for start, end in clip.clip.get("damaged_frames") or () for frame in range(start, end)
    }.union(getattr(clip.frames, "damaged", ()))
    for name, rows in output.tables.items() if damaged else ():
        if "frame_index" in TABLES[name].model_fields:
            assert isinstance(rows, list)  # a table of pictures has few enough
            output.tables[name] = [r for r in rows if r["frame_index"] not in damaged]


class TablesTask:
    """A shard, or the whole lake → the rows that an operator makes of its tables."""

    def __init__(self, spec: StageSpec, lake: Lake, ledger: Ledger) -> None:
        self.spec = spec
        self.lake = lake
        self.operator = build_operator(spec)

    def process(self, item: WorkItem, carried: Carried | None) -> ClipOutput:
        self.lake.must_be_there()
        reads = getattr(self.operator, "reads", {})
        shards: list[str] = item.payload["shards"]
        tables = TablesInput(
            self.spec.shard,
            {
                shard: {
                    name: self.lake.read(name, shard, columns=reads.get(name))
                    for name in self.spec.inputs
                }
                for shard in shards
            },
            {
                shard: {
                    name: frozenset(self.lake.provenances(name, shard)) for name in self.spec.inputs
                }
                for shard in shards
            },
            item.payload.get("wearers", {}),
        )
        self.lake.must_be_there()
        output: ClipOutput = self.operator.process(tables)
        return output


def build_operator(spec: StageSpec) -> Any:
    """The operator of a stage, by its backend. Raises what `registry.build` does."""
    return registry.build(
        spec.operator, spec.backend, spec.settings, spec.weights_dir, spec.device_share
    )


_TASKS: dict[ItemKind, Callable[[StageSpec, Lake, Ledger], StageTask]] = {
    "file": FileTask,
    "video": VideoTask,
    "clip": ClipTask,
    "shard": TablesTask,
    "lake": TablesTask,
}


def build_task(spec: StageSpec, lake: Lake, ledger: Ledger) -> StageTask:
    return _TASKS[spec.item](spec, lake, ledger)
