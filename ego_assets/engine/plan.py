"""What a stage has to do for a shard: its work items, their order, and their fingerprints.

Here: plain records that travel to worker processes, and their making from the lake and ledger.
Not here: running anything.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ego_assets.feature import LAKE, ItemKind
from ego_assets.intake.chapters import wearers_elsewhere
from ego_assets.models import registry
from resources.lake import Lake, Provenance
from resources.lake.table import TABLES
from resources.ledger import Entry, Ledger
from resources.ledger.sources import Source, Sources
from resources.raw.limits import BYTES_IN_FLIGHT
from resources.raw.places import RawFileOfShard, files_of
from resources.raw.reader import raw_version
from resources.raw.sidecars import beside_state, sidecar_version


def digest(*parts: Any) -> str:
    """SHA-256 over the JSON of `parts`, hex."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class WorkItem:
    """A work item: a clip, mostly; else a raw file, a video, a shard or the lake.

    base_fingerprint: of operator, settings, weights and inputs; the runner chains the item
    before it in its group into the final fingerprint, since state is carried over.
    """

    item_id: str
    video_id: str | None
    base_fingerprint: str
    input_hash: str
    cost: float
    video_s: float
    payload: dict[str, Any]
    blocked: str | None = None

    @property
    def file_id(self) -> str:
        """The item of `video_manifest` whose raw file it is made from."""
        return self.payload.get("file") or self.item_id

    @property
    def reads_a_file(self) -> bool:
        """Whether it is made from a raw file, and not from tables alone."""
        return bool({"uri", "video"} & self.payload.keys())


@dataclass(frozen=True)
class Group:
    """Items that run in order on one worker (a take). alone: one at a time, and none beside it,
    since it is not known which of several killed their worker."""

    items: tuple[WorkItem, ...]
    alone: bool = False

    @property
    def cost(self) -> float:
        return sum(u.cost for u in self.items)

    def has_any(self, named: Iterable[str]) -> bool:
        """Whether a clip or video of these is in it."""
        wanted = set(named)
        return any({u.item_id, u.video_id} & wanted for u in self.items)


@dataclass(frozen=True)
class StageSpec:
    """All that a worker process needs to run a stage; plain values only.

    name: of the step; item: what it does at a time; operator and backend name the registry entry
    (what clips carry on, and what is chosen for shards, lies under the operator's name); tables:
    what it publishes (each is a ledger stage of its own, so that a subset can be made); inputs,
    beside: the upstream tables, and files beside videos, that the operator reads; weights_dir: of
    this machine: weights_hash enters the fingerprint. lanes: takes that a worker has at a time;
    devices: dealt to the workers in turn, as CUDA_VISIBLE_DEVICES names them; device_share: what a
    worker may have of the memory of its own; publish_behind: while the next clip is computed, so
    that a device does not wait for it; bytes_in_flight: of pictures and results in it; provisional:
    why its results stand in for those of a backend that got no GPU; redo_stale: whether what is
    done under another fingerprint is done again; profile: name of the settings, where a person
    chose them.
    """

    name: str
    item: ItemKind
    tables: tuple[str, ...]
    settings: dict[str, Any]
    lake_root: str
    ledger_url: str
    shard: str
    run_id: str
    operator: str
    backend: str
    operator_version: str
    weights_hash: str = ""
    weights_dir: str = ""
    inputs: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    max_attempts: int = 3
    max_deaths: int = 2
    max_lost: int = 10
    backoff_s: float = 0.5
    bytes_in_flight: int = BYTES_IN_FLIGHT
    force: bool = False
    redo_stale: bool = True
    items: tuple[str, ...] = field(default=())
    lanes: int = 1
    devices: tuple[str, ...] = ()
    provisional: str = ""
    hardware_decoding: bool = False
    device_share: float = 1.0
    publish_behind: bool = False
    profile: str = ""

    def digest_of(self, *inputs: Any) -> str:
        """Base fingerprint of one of its files, videos, shards or lakes."""
        which = [self.operator]
        if self.backend != registry.default(self.operator).name or self.weights_hash:
            which += [self.backend, self.weights_hash]
        settings = registry.decisive(self.operator, self.backend, self.settings)
        return digest(*which, self.operator_version, settings, *inputs)

    @property
    def result_bytes(self) -> int:
        """Of the budget, what results of all lanes may take that wait to be published."""
        return self.bytes_in_flight // 2 if self.publish_behind else 0

    @property
    def frame_bytes(self) -> int:
        """Of the budget, what a lane's decoded pictures may take."""
        return (self.bytes_in_flight - self.result_bytes) // self.lanes


def chain(base: str, previous: str | None) -> str:
    """Fingerprint of an item whose state was carried over from the item done as `previous`."""
    return digest(base, previous)[:32] if previous else base[:32]


def entries_of(ledger: Ledger, shard: str) -> dict[str, dict[str, Entry]]:
    """{table: {item: entry}} of all that the ledger knows of a shard."""
    found: dict[str, dict[str, Entry]] = {}
    for entry in ledger.entries(shard=shard):
        found.setdefault(entry.stage, {})[entry.item_id] = entry
    return found


class ShardInputs:
    """What plans over a shard are made from. Each thing is read once, when it is first asked for,
    however many stages are planned."""

    def __init__(self, lake: Lake, ledger: Ledger, shard: str) -> None:
        self.lake = lake
        self.ledger = ledger
        self.shard = shard
        self._rows: dict[str, list[dict[str, Any]]] = {}
        self._made: dict[str, dict[str, Provenance]] = {}

    @cached_property
    def files(self) -> list[RawFileOfShard]:
        """The raw files of the shard."""
        if self.shard == LAKE:
            return []
        return files_of(self.lake, self.shard)

    @cached_property
    def sources(self) -> dict[str, Source]:
        """What the ledger knows of the raw files, by their items."""
        return Sources(self.ledger).of_shard(self.shard)

    @cached_property
    def rows_of_files(self) -> dict[str, dict[str, Any]]:
        """The rows of `video_manifest`, by their items."""
        return self.lake.rows_of_files(self.shard)

    @cached_property
    def file_of(self) -> dict[str, str]:
        """{video: the item of `video_manifest` that its row is of}, of those that are accepted."""
        rows = self.rows_of_files.items()
        return {row["video_id"]: item for item, row in rows if row["accepted"]}

    def rows(self, table: str) -> list[dict[str, Any]]:
        if table == "video_manifest":
            return list(self.rows_of_files.values())
        if table not in self._rows:
            self._rows[table] = self.lake.read(table, self.shard).to_pylist()
        return self._rows[table]

    def made(self, table: str) -> dict[str, Provenance]:
        """Where the rows of each item come from."""
        if table not in self._made:
            self._made[table] = self.lake.provenances(table, self.shard)
        return self._made[table]

    @cached_property
    def entries(self) -> dict[str, dict[str, Entry]]:
        """The ledger's: {table: {item: entry}}."""
        return entries_of(self.ledger, self.shard)

    def read_ledger(self) -> None:
        """Read all that is the ledger's now, and not when it is first asked for."""
        _ = self.sources, self.entries

    def said_beside(self, tables: Iterable[str]) -> list[Any]:
        """What files beside videos say in rows of these tables: fingerprints do not tell."""
        columns = ((table, TABLES[table].said_beside()) for table in tables)
        rows = ((row, said) for table, said in columns if said for row in self.rows(table))
        found = ((row["video_id"], *map(row.get, said)) for row, said in rows)
        return sorted((each for each in found if any(each[1:])), key=str)

    def results(self, table: str) -> dict[str, str]:
        """{item: fingerprint} of what those who build on the table may use."""
        mine = self.entries.get(table, {})
        return {item: e.fingerprint for item, e in mine.items() if e.has_result}


def plan_files(spec: StageSpec, inputs: ShardInputs) -> list[Group]:
    """One group a raw file of the shard."""
    groups = []
    for file in inputs.files:
        source = inputs.sources.get(file.item)
        known = (source and source.inputs) or probe_inputs(file.uri)
        item = WorkItem(
            item_id=file.item,
            video_id=None,
            base_fingerprint=spec.digest_of(known),
            input_hash=known,
            cost=float(file.byte_size),
            video_s=file.duration_s,
            payload={"uri": file.uri, "byte_size": file.byte_size},
        )
        groups.append(Group((item,)))
    return _longest_first(groups)


def probe_inputs(uri: str, named: str = "") -> str:
    """Hash of what a raw file's row is made from: the file as it is when it is first looked at
    (named: by which uri), and its calibration. It stays the row's for as long as the content is the
    same (`sources`)."""
    return digest(named or uri, raw_version(uri), sidecar_version(uri))


def plan_videos(spec: StageSpec, inputs: ShardInputs) -> list[Group]:
    """One group an accepted video of the shard."""
    made = inputs.made("video_manifest")
    groups = []
    for video in inputs.rows("video_manifest"):
        if not video["accepted"]:
            continue
        file = inputs.file_of.get(video["video_id"], "")
        uri = inputs.sources[file].uri if file in inputs.sources else video["uri"]
        beside = beside_state(uri, spec.beside)
        # What cannot be seen now is taken to be as it was.
        was = inputs.made(spec.tables[0]).get(video["video_id"]) if beside is None else None
        known = digest(video["sha256"], _fingerprint(made, file), *(beside or ()))
        known = was.input_hash if was else known
        item = WorkItem(
            item_id=video["video_id"],
            video_id=video["video_id"],
            base_fingerprint=spec.digest_of(known),
            input_hash=known,
            cost=_megapixels(video),
            video_s=video["duration_s"],
            payload={"video": video, "file": file},
        )
        groups.append(Group((item,)))
    return _longest_first(groups)


def plan_clips(spec: StageSpec, inputs: ShardInputs) -> list[Group]:
    """One group a take; clips whose inputs are not done are blocked, with the reason."""
    videos = {v["video_id"]: v for v in inputs.rows("video_manifest") if v["accepted"]}
    split = inputs.made("clips")
    upstream = {t: inputs.results(t) for t in spec.inputs}
    settings = registry.decisive(spec.operator, spec.backend, spec.settings)
    takes: dict[str, list[WorkItem]] = {}
    for clip in sorted(inputs.rows("clips"), key=lambda c: (c["take_id"], c["index_in_take"])):
        if (video := videos.get(clip["video_id"])) is None:
            continue
        missing = [t for t in spec.inputs if clip["clip_id"] not in upstream[t]]
        known = digest(
            video["sha256"],
            _fingerprint(split, clip["video_id"]),
            _without_cost(clip),
            [upstream[t].get(clip["clip_id"]) for t in spec.inputs],
        )
        of_spec = (spec.operator, spec.backend, spec.operator_version)
        base = digest(*of_spec, settings, spec.weights_hash, known)
        item = WorkItem(
            item_id=clip["clip_id"],
            video_id=clip["video_id"],
            base_fingerprint=base,
            input_hash=known,
            cost=clip["estimated_cost"],
            video_s=clip["end_pts_s"] - clip["start_pts_s"],
            payload={"clip": clip, "video": video, "file": inputs.file_of.get(video["video_id"])},
            blocked=f"waits for {', '.join(missing)} of this clip" if missing else None,
        )
        takes.setdefault(clip["take_id"], []).append(item)
    return _longest_first([Group(tuple(items)) for items in takes.values()])


def plan_shard(spec: StageSpec, inputs: ShardInputs) -> list[Group]:
    """One group of one item: the shard, made from what there is of its inputs."""
    made = {table: sorted(inputs.results(table).items()) for table in spec.inputs}
    accepted = [v for v in inputs.rows("video_manifest") if v["accepted"]]
    wearers = wearers_elsewhere(inputs.lake, inputs.ledger, inputs.shard, accepted)
    known = digest(inputs.shard, made, *inputs.said_beside(spec.inputs), *sorted(wearers.items()))
    missing = [t for t in spec.inputs if not inputs.entries.get(t)] if accepted else []
    item = WorkItem(
        item_id=inputs.shard,
        video_id=None,
        base_fingerprint=spec.digest_of(known),
        input_hash=known,
        cost=sum(_megapixels(v) for v in accepted),
        video_s=sum(v["duration_s"] or 0.0 for v in accepted),
        payload={"shards": [inputs.shard], "wearers": wearers},
        blocked=f"waits for {', '.join(missing)} of this shard" if missing else None,
    )
    return [Group((item,))]


def plan_lake(spec: StageSpec, inputs: ShardInputs) -> list[Group]:
    """One group of one item: the lake, made from what there is of its inputs in all shards."""
    shards = inputs.lake.shards()
    made = {s: ShardInputs(inputs.lake, inputs.ledger, s) for s in shards}
    known = digest(
        [[s, t, sorted(made[s].results(t).items())] for s in shards for t in spec.inputs],
        *(said for s in shards for said in made[s].said_beside(spec.inputs)),
    )
    item = WorkItem(
        item_id=LAKE,
        video_id=None,
        base_fingerprint=spec.digest_of(known),
        input_hash=known,
        cost=0.0,
        video_s=0.0,
        payload={"shards": shards},
    )
    return [Group((item,))]


_PLANS: dict[ItemKind, Callable[[StageSpec, ShardInputs], list[Group]]] = {
    "file": plan_files,
    "video": plan_videos,
    "clip": plan_clips,
    "shard": plan_shard,
    "lake": plan_lake,
}


def plan(spec: StageSpec, lake: Lake, ledger: Ledger) -> list[Group]:
    """The groups of a shard for a stage, the most expensive first."""
    return plan_from(spec, ShardInputs(lake, ledger, spec.shard))


def plan_from(spec: StageSpec, inputs: ShardInputs) -> list[Group]:
    """As `plan`, from what was read already."""
    return _PLANS[spec.item](spec, inputs)


def not_made(item: ItemKind, inputs: ShardInputs) -> str | None:
    """Name the table without which a stage has no work items; None if there are none to have."""
    if item in ("file", "lake"):
        return None
    videos = inputs.rows("video_manifest")
    if not videos:
        return "video_manifest" if inputs.files else None
    if item != "clip" or not any(v["accepted"] for v in videos):
        return None
    return None if inputs.rows("clips") or inputs.entries.get("clips") else "clips"


def _fingerprint(made: Mapping[str, Provenance], item: str) -> str | None:
    return made[item].fingerprint if item in made else None


def _without_cost(clip: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in clip.items() if k not in {"estimated_cost", "shard"}}


def _longest_first(groups: Iterable[Group]) -> list[Group]:
    return sorted(groups, key=lambda g: (-g.cost, g.items[0].item_id))


def _megapixels(video: Mapping[str, Any]) -> float:
    return (video["width_px"] or 0) * (video["height_px"] or 0) * (video["frame_count"] or 0) / 1e6
