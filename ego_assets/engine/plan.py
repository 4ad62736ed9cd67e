"""What a stage has to do for a shard: units, their order, and the fingerprints they are done under.

Here: plain records that travel to worker processes, and their making from the lake and ledger.
Not here: running anything.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ego_assets.models import registry
from ego_assets.videos.settings import ClipSettings, ManifestSettings
from resources.lake import Lake, Provenance
from resources.ledger import Entry, Ledger
from resources.ledger.sources import Source, Sources
from resources.raw.places import RawFileOfShard, files_of
from resources.raw.reader import raw_version, sidecar_version

TASK_SETTINGS = {"probe": ManifestSettings, "split": ClipSettings}


def digest(*parts: Any) -> str:
    """SHA-256 over the JSON of `parts`, hex."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Unit:
    """One clip; or one video or raw file, for the stages before there are clips.

    base_fingerprint: of operator, settings, weights and inputs; the runner chains the unit
    before it in its group into the final fingerprint, since state is carried over.
    """

    unit_id: str
    video_id: str | None
    base_fingerprint: str
    input_hash: str
    cost: float
    video_s: float
    payload: dict[str, Any]
    blocked: str | None = None

    @property
    def file_id(self) -> str:
        """The unit of `video_manifest` whose raw file it is made from."""
        return self.payload.get("file") or self.unit_id


@dataclass(frozen=True)
class Group:
    """Units that run in order on one worker (a take). alone: one at a time, and none beside it,
    since it is not known which of several killed their worker."""

    units: tuple[Unit, ...]
    alone: bool = False

    @property
    def cost(self) -> float:
        return sum(u.cost for u in self.units)

    def has_any(self, named: Iterable[str]) -> bool:
        """Whether a clip or video of these is in it."""
        wanted = set(named)
        return any({u.unit_id, u.video_id} & wanted for u in self.units)


@dataclass(frozen=True)
class StageSpec:
    """All that a worker process needs to run a stage; plain values only.

    task: `probe`, `split` or `clip`; operator and backend name the registry entry of a clip stage;
    tables: what it publishes (each is a ledger stage of its own, so that a subset can be made);
    inputs: the upstream tables that the operator reads; weights_dir: where models' files lie on
    this machine: their hash, not their place, enters the fingerprint. lanes: takes that a worker
    has at a time; devices: dealt to the workers in turn, as CUDA_VISIBLE_DEVICES names them;
    device_share: what a worker may have of the memory of its own; publish_behind: while the next
    clip is computed, so that a device does not wait for it; bytes_in_flight: of pictures and
    results in a worker; provisional: why its results stand in for those of a backend that got no
    GPU; redo_stale: whether what is done under another fingerprint is done again.
    """

    task: str
    tables: tuple[str, ...]
    settings: dict[str, Any]
    lake_root: str
    ledger_url: str
    shard: str
    run_id: str
    operator: str = ""
    backend: str = ""
    operator_version: str = "1"
    weights_hash: str = ""
    weights_dir: str = ""
    inputs: tuple[str, ...] = ()
    max_attempts: int = 3
    max_deaths: int = 2
    max_lost: int = 10
    backoff_s: float = 0.5
    bytes_in_flight: int = 64 * 2**20
    force: bool = False
    redo_stale: bool = True
    units: tuple[str, ...] = field(default=())
    lanes: int = 1
    devices: tuple[str, ...] = ()
    provisional: str = ""
    hardware_decoding: bool = False
    device_share: float = 1.0
    publish_behind: bool = False

    @property
    def carried_stage(self) -> str:
        return self.operator or self.task

    @property
    def result_bytes(self) -> int:
        """Of the budget, what results of all lanes may take that wait to be published."""
        return self.bytes_in_flight // 2 if self.publish_behind else 0

    @property
    def frame_bytes(self) -> int:
        """Of the budget, what a lane's decoded pictures may take."""
        return (self.bytes_in_flight - self.result_bytes) // self.lanes


def chain(base: str, previous: str | None) -> str:
    """Fingerprint of a unit whose state was carried over from the unit done as `previous`."""
    return digest(base, previous)[:32] if previous else base[:32]


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
        return files_of(self.lake, self.shard)

    @cached_property
    def sources(self) -> dict[str, Source]:
        """What the ledger knows of the raw files, by their units."""
        return Sources(self.ledger).of_shard(self.shard)

    @cached_property
    def file_of(self) -> dict[str, str]:
        """{video: the unit of `video_manifest` that its row is of}, of those that are accepted."""
        rows = self.lake.rows_of_files(self.shard).items()
        return {row["video_id"]: unit for unit, row in rows if row["accepted"]}

    def rows(self, table: str) -> list[dict[str, Any]]:
        if table not in self._rows:
            self._rows[table] = self.lake.read(table, self.shard).to_pylist()
        return self._rows[table]

    def made(self, table: str) -> dict[str, Provenance]:
        """Where the rows of each unit come from."""
        if table not in self._made:
            self._made[table] = self.lake.provenances(table, self.shard)
        return self._made[table]

    @cached_property
    def entries(self) -> dict[str, dict[str, Entry]]:
        """The ledger's: {table: {unit: entry}}."""
        found: dict[str, dict[str, Entry]] = {}
        for entry in self.ledger.entries(shard=self.shard):
            found.setdefault(entry.stage, {})[entry.unit_id] = entry
        return found

    def results(self, table: str) -> dict[str, str]:
        """{unit: fingerprint} of what those who build on the table may use."""
        mine = self.entries.get(table, {})
        return {unit: e.fingerprint for unit, e in mine.items() if e.has_result}


def plan_probe(spec: StageSpec, inputs: ShardInputs) -> list[Group]:
    """One group a raw file of the shard."""
    groups = []
    for file in inputs.files:
        source = inputs.sources.get(file.unit)
        known = (source and source.inputs) or probe_inputs(file.uri)
        unit = Unit(
            unit_id=file.unit,
            video_id=None,
            base_fingerprint=probe_base(spec, known),
            input_hash=known,
            cost=float(file.byte_size),
            video_s=file.duration_s,
            payload={"uri": file.uri, "byte_size": file.byte_size},
        )
        groups.append(Group((unit,)))
    return _longest_first(groups)


def probe_base(spec: StageSpec, inputs: str) -> str:
    """Base fingerprint of a raw file with these `probe_inputs`."""
    runtime = ManifestSettings.runtime_fields()
    decisive = {k: v for k, v in spec.settings.items() if k not in runtime}
    return digest("probe", spec.operator_version, decisive, inputs)


def probe_inputs(uri: str, named: str = "") -> str:
    """Hash of what a raw file's row is made from: the file as it is when it is first looked at, and
    its calibration. It stays the row's for as long as the content is the same (`sources`).

    named: the uri that it had then.
    """
    return digest(named or uri, raw_version(uri), sidecar_version(uri))


def plan_split(spec: StageSpec, inputs: ShardInputs) -> list[Group]:
    """One group an accepted video of the shard."""
    made = inputs.made("video_manifest")
    groups = []
    for video in inputs.rows("video_manifest"):
        if not video["accepted"]:
            continue
        file = inputs.file_of.get(video["video_id"], "")
        known = digest(video["sha256"], _fingerprint(made, file))
        unit = Unit(
            unit_id=video["video_id"],
            video_id=video["video_id"],
            base_fingerprint=digest("split", spec.operator_version, spec.settings, known),
            input_hash=known,
            cost=_megapixels(video),
            video_s=video["duration_s"],
            payload={"video": video, "file": file},
        )
        groups.append(Group((unit,)))
    return _longest_first(groups)


def plan_clips(spec: StageSpec, inputs: ShardInputs) -> list[Group]:
    """One group a take; clips whose inputs are not done are blocked, with the reason."""
    videos = {v["video_id"]: v for v in inputs.rows("video_manifest") if v["accepted"]}
    split = inputs.made("clips")
    upstream = {t: inputs.results(t) for t in spec.inputs}
    settings = registry.decisive(spec.operator, spec.backend, spec.settings)
    takes: dict[str, list[Unit]] = {}
    for clip in sorted(inputs.rows("clips"), key=lambda c: (c["take_id"], c["index_in_take"])):
        video = videos.get(clip["video_id"])
        if video is None:
            continue
        missing = [t for t in spec.inputs if clip["clip_id"] not in upstream[t]]
        known = digest(
            video["sha256"],
            _fingerprint(split, clip["video_id"]),
            _without_cost(clip),
            [upstream[t].get(clip["clip_id"]) for t in spec.inputs],
        )
        base = digest(
            spec.operator,
            spec.backend,
            spec.operator_version,
            settings,
            spec.weights_hash,
            known,
        )
        unit = Unit(
            unit_id=clip["clip_id"],
            video_id=clip["video_id"],
            base_fingerprint=base,
            input_hash=known,
            cost=clip["estimated_cost"],
            video_s=clip["end_pts_s"] - clip["start_pts_s"],
            payload={"clip": clip, "video": video, "file": inputs.file_of.get(video["video_id"])},
            blocked=f"waits for {', '.join(missing)} of this clip" if missing else None,
        )
        takes.setdefault(clip["take_id"], []).append(unit)
    return _longest_first([Group(tuple(units)) for units in takes.values()])


def plan(spec: StageSpec, lake: Lake, ledger: Ledger) -> list[Group]:
    """The groups of a shard for a stage, the most expensive first."""
    return plan_from(spec, ShardInputs(lake, ledger, spec.shard))


def plan_from(spec: StageSpec, inputs: ShardInputs) -> list[Group]:
    """As `plan`, from what was read already."""
    plans = {"probe": plan_probe, "split": plan_split}
    return plans.get(spec.task, plan_clips)(spec, inputs)


def not_made(task: str, inputs: ShardInputs) -> str | None:
    """The table for want of which a stage has no units; None: there are none to have."""
    if task == "probe":
        return None
    videos = inputs.rows("video_manifest")
    if not videos:
        return "video_manifest" if inputs.files else None
    if task == "split" or not any(v["accepted"] for v in videos):
        return None
    return None if inputs.rows("clips") or inputs.entries.get("clips") else "clips"


def versions(
    task: str,
    operator: str,
    backend: str,
    settings: Mapping[str, Any] | None = None,
    weights_dir: str = "",
) -> tuple[str, str]:
    """(operator version, weights hash) of a stage, for the fingerprint. Raises WeightsError."""
    if task == "probe":
        from ego_assets.videos import inspection as probe

        return probe.VERSION, ""
    if task == "split":
        from ego_assets.videos.clips import ClipSplitter

        return ClipSplitter.version, ClipSplitter.weights_hash
    return registry.version(operator, backend, dict(settings or {}), weights_dir)


def lanes(operator: str, backend: str) -> tuple[int, bool]:
    """(takes that a worker may have at a time, whether it wants a device)."""
    return registry.lanes(operator, backend)


def uses_device(operator: str, backend: str) -> bool:
    """Whether a backend computes on a device if it has one."""
    return registry.uses_device(operator, backend)


def code_version(task: str, operator: str) -> str:
    """Version of a stage's default operator and of its default settings, as the UI shows it."""
    backend = registry.default(operator).name if operator else ""
    settings = registry.default(operator).settings if operator else TASK_SETTINGS[task]
    return f"{versions(task, operator, backend)[0]}-{digest(settings().model_dump())[:6]}"


def _fingerprint(made: Mapping[str, Provenance], unit: str) -> str | None:
    return made[unit].fingerprint if unit in made else None


def _without_cost(clip: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in clip.items() if k not in {"estimated_cost", "shard"}}


def _longest_first(groups: Iterable[Group]) -> list[Group]:
    return sorted(groups, key=lambda g: (-g.cost, g.units[0].unit_id))


def _megapixels(video: Mapping[str, Any]) -> float:
    return (video["width_px"] or 0) * (video["height_px"] or 0) * (video["frame_count"] or 0) / 1e6
