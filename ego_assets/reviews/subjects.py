"""Lists what there is to judge, what is suspected first, and says what is known of it.

Here: the order, and facts in words. Not here: what people said (`standing`), pictures (`videos`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from ego_assets import catalog
from ego_assets.quality.failed import failed_checks
from ego_assets.quality.finding import Evidence, Finding, Offender, Probe
from ego_assets.reviews.fingerprints import ID, JUDGED
from ego_assets.reviews.store import Kind
from ego_assets.viewing.footage import parts_of_episode
from resources.lake import Lake

Facts = list[tuple[str, str]]
_SEVERITIES = ("error", "warn")


@dataclass(frozen=True)
class Fault:
    """A failed check that names a clip or an episode."""

    table: str
    check: str
    severity: str
    what: str


@dataclass(frozen=True)
class Subject:
    """An episode or a clip to judge. row: of its table; faults: of checks that name it."""

    kind: Kind
    name: str
    row: Mapping[str, Any]
    faults: tuple[Fault, ...]

    @property
    def shard(self) -> str:
        return str(self.row["shard"])

    @property
    def urgency(self) -> int:
        """0: an error names it; 1: a warning does; 2: nothing does."""
        severities = {fault.severity for fault in self.faults}
        return next((n for n, each in enumerate(_SEVERITIES) if each in severities), 2)


def list_subjects(lake: Lake, kind: Kind) -> list[Subject]:
    """All episodes or clips of a lake: those that failed checks name come first, errors before
    warnings; else in the order of their names."""
    failed = defaultdict(list)
    for check in failed_checks(lake, catalog.TABLES):
        failed[check["shard"]].append(check)
    found = [each for s in lake.shards() for each in subjects_of_shard(lake, kind, s, failed[s])]
    return sorted(found, key=lambda subject: (subject.urgency, subject.name))


def subjects_of_shard(
    lake: Lake, kind: Kind, shard: str, failed: list[dict[str, str]]
) -> Iterator[Subject]:
    """The episodes or clips of a shard. failed: its checks that failed, as of `failed_checks`."""
    rows = lake.read(JUDGED[kind][0], shard).to_pylist()
    faults = _faults(lake, shard, failed) if rows and failed else {}
    parts = clips_of_episodes(lake, shard, rows) if faults and kind == "episode" else {}
    for row in rows:
        name = row[ID[kind]]
        named = [f for each in (name, *parts.get(name, ())) for f in faults.get(each, ())]
        yield Subject(kind, name, row, tuple(named))


def own_frames(clip: Mapping[str, Any]) -> range:
    """Frames of a clip without those that the clip before has, too."""
    return range(clip["start_frame"] + clip["context_frames"], clip["end_frame"])


def clips_of_episodes(
    lake: Lake, shard: str, episodes: list[dict[str, Any]]
) -> dict[str, list[str]]:
    """{episode: the clips that it lies in}."""
    clips = lake.read("clips", shard).to_pylist()
    return {
        episode["episode_id"]: [clip["clip_id"] for clip in parts_of_episode(episode, clips, {})]
        for episode in episodes
    }


def _faults(lake: Lake, shard: str, failed: list[dict[str, str]]) -> dict[str, list[Fault]]:
    """{clip or episode: the failed checks that find it beyond their threshold}."""
    found: dict[str, list[Fault]] = defaultdict(list)
    for check in failed:
        for name, what in _named_by(lake, shard, check):
            fault = Fault(check["asset"], check["check"], check["severity"], what)
            found[name].append(fault)
    return found


def _named_by(lake: Lake, shard: str, check: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    probes = catalog.probes(check["asset"])
    probe = next((p for p in probes if p.name == check["check"]), None)
    if probe is None:  # of the contract, or of drift: names no clip
        return
    if (finding := finding_of(lake, shard, probe)) is None:
        return
    for offender in finding.worst:
        rest = offender.where.partition(" ")[2]
        at = "" if offender.frame is None else f" at frame {offender.frame}"
        value = f"{offender.value:.3g}, threshold {finding.threshold:g} {finding.unit}".strip()
        yield subject_of(offender), f"{rest} {value}{at}".strip()


def finding_of(lake: Lake, shard: str, probe: Probe) -> Finding | None:
    """What a probe says of a shard, with its default thresholds and without a look at pictures;
    None where it crashes."""
    tables = {
        table: lake.read(table, shard, columns=list(columns) or None)
        for table, columns in probe.reads.items()
    }
    settings = catalog.feature_of(probe.table).probe_settings()
    try:
        return probe(Evidence(probe.table, tables), settings)
    except Exception:  # of any kind: a probe that needs pictures, or somebody else's
        return None


def subject_of(offender: Offender) -> str:
    """The clip or episode that an offender belongs to; a track's name begins with its clip's."""
    return offender.where.partition(" ")[0]


class FactTeller:
    """Says in words what the tables know of subjects."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._files: dict[str, dict[str, str]] = {}

    def facts(self, subject: Subject) -> Facts:
        """Names and values, in the order in which a person wants them."""
        row = subject.row
        begin, end = row["start_pts_s"], row["end_pts_s"]
        place = f"{self._file(subject)}, {begin:.1f} s to {end:.1f} s ({end - begin:.1f} s)"
        tell = _of_episode if subject.kind == "episode" else self._of_clip
        return [("video", place), *tell(row)]

    def _file(self, subject: Subject) -> str:
        if subject.shard not in self._files:
            columns = ["video_id", "uri", "accepted"]
            rows = self._lake.read("video_manifest", subject.shard, columns=columns).to_pylist()
            self._files[subject.shard] = {
                row["video_id"]: Path(row["uri"]).name for row in rows if row["accepted"]
            }
        video = str(subject.row["video_id"])
        return self._files[subject.shard].get(video, video)

    def _of_clip(self, row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        own = own_frames(row)
        yield "frames", f"{own.start} to {own.stop - 1}"

        def read(table: str, *columns: str) -> Any:
            found = self._lake.read(
                table, row["shard"], items=[row["clip_id"]], columns=[*columns, "is_context"]
            )
            return found.filter(pc.invert(found["is_context"]))

        hands = read("hand_poses", "frame_index", "side", "is_valid", "invalid_reason").to_pylist()
        for side in ("left", "right"):
            mine = [hand for hand in hands if hand["side"] == side]
            valid = sum(hand["is_valid"] for hand in mine)
            frames = len({hand["frame_index"] for hand in mine})  # several people may have one
            shares = f"in {_percent(frames, len(own))} of the frames"
            yield f"{side} hand", f"{shares}, {_percent(valid, len(mine))} of them valid"
        reasons = Counter(hand["invalid_reason"] for hand in hands if not hand["is_valid"])
        if reasons:
            yield "not valid", ", ".join(f"{why} ({n})" for why, n in reasons.most_common(3))
        labels = read("object_masks", "label")["label"].unique().to_pylist()
        if labels:
            yield "objects", ", ".join(sorted(labels))


def _of_episode(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "instruction", f"{row['instruction']} (from {row['instruction_source']})"
    if row["objects"]:
        yield "objects", ", ".join(row["objects"])
    for side in ("left", "right"):
        yield f"{side} hand", f"in {_percent(row[f'{side}_hand_share'])} of the frames"
    yield (
        "hands",
        f"{_percent(row['valid_hand_share'])} valid, {_percent(row['filled_hand_share'])} filled, "
        f"{row['rejected_hand_rows']} outliers",
    )
    yield "cameras", f"{_percent(row['valid_camera_share'])} valid, scale {row['scale_kind']}"
    if row["jitter_after_mm"] is not None:
        before, after = row["jitter_before_mm"], row["jitter_after_mm"]
        yield "jitter", f"{before:.2f} mm/frame², {after:.2f} after cleaning"
    yield "split", row["split"]


def _percent(part: float, whole: float = 1.0) -> str:
    return f"{part / whole if whole else 0.0:.0%}".replace("%", " %")
