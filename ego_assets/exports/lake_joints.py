"""Finds a robot's joints that mimic the hands of an episode, in the tables of a lake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ego_assets.exports.grid import ExportError
from ego_assets.reading import LakeReader
from ego_assets.rows import SIDES

_KEY = ("clip_id", "track_id", "frame_index")
_BETWEEN = "\n"


@dataclass(frozen=True)
class JointsOfRobot:
    """Which joints are exported. names: by side, the same for all episodes of the lake, whichever
    of them are chosen; a side that the robot never mimics has none."""

    robot: str
    method: str
    names: Mapping[str, tuple[str, ...]]

    @classmethod
    def find(cls, reader: LakeReader, robot: str = "", method: str = "") -> JointsOfRobot:
        """Find the joints of a robot. Raises ExportError if it has to be said which."""
        found: dict[tuple[str, str, str], str] = {}
        for shard in reader.shards("robot_mappings"):
            columns = ["robot", "method", "side", "joint_names"]
            rows = reader.table("robot_mappings", columns=columns, shards=[shard])
            rows = rows.set_column(3, "joint_names", _text(rows["joint_names"]))
            kinds = rows.group_by(columns[:3], use_threads=False)
            for kind in kinds.aggregate([("joint_names", "first")]).to_pylist():
                key = kind["robot"], kind["method"], kind["side"]
                found.setdefault(key, kind["joint_names_first"])
        robot = _only(robot, {key[0] for key in found}, "the lake has joints of", "robot")
        methods = {key[1] for key in found if key[0] == robot}
        method = _only(method, methods, f"the lake has joints of {robot} by the method", "method")
        texts = {side: found.get((robot, method, side)) for side in SIDES}
        return cls(
            robot, method, {s: tuple(t.split(_BETWEEN)) if t else () for s, t in texts.items()}
        )

    def read(self, reader: LakeReader, shard: str) -> ShardJoints:
        """The joints of a shard."""
        columns = [*_KEY, "robot", "method", "joint_names", "joint_positions"]
        columns += ["solver_status", "is_valid"]
        rows = reader.table("robot_mappings", columns=columns, shards=[shard]).filter(
            (pc.field("robot") == self.robot)
            & (pc.field("method") == self.method)
            & (pc.field("solver_status") != "failed")
            # Null: of an older release.
            & (pc.field("is_valid") | pc.field("is_valid").is_null())
        )
        return ShardJoints.index(rows, self.names)


@dataclass(frozen=True)
class ShardJoints:
    """Joints of the hands of a shard, of R rows. tracks: (frames, rows) by clip and track, by
    frame; texts: names of joints, as a text; text: (R,) which of them a row has; values: of all
    rows, one behind the other, from starts (R,) on."""

    names: Mapping[str, tuple[str, ...]]
    tracks: Mapping[tuple[str, str], tuple[np.ndarray, np.ndarray]]
    texts: Sequence[str]
    text: np.ndarray
    starts: np.ndarray
    values: np.ndarray

    @classmethod
    def index(cls, rows: pa.Table, names: Mapping[str, tuple[str, ...]]) -> ShardJoints:
        """Index rows of one robot and method, without making an object of each."""
        clips, tracks = (rows[c].combine_chunks().dictionary_encode() for c in _KEY[:2])
        frames = rows["frame_index"].to_numpy()
        of = clips.indices.to_numpy().astype(np.int64) * max(1, len(tracks.dictionary))
        of += tracks.indices.to_numpy()
        order = np.lexsort((frames, of))
        kinds, firsts = np.unique(of[order], return_index=True)
        by_track = {}
        ends = [*firsts[1:], len(order)]
        for kind, first, end in zip(kinds.tolist(), firsts, ends, strict=False):
            part = order[first:end]
            clip, track = divmod(kind, len(tracks.dictionary))
            key = clips.dictionary[clip].as_py(), tracks.dictionary[track].as_py()
            by_track[key] = (frames[part], part)
        texts = _text(rows["joint_names"]).dictionary_encode()
        positions = rows["joint_positions"].combine_chunks()
        lengths = pc.list_value_length(positions).to_numpy(zero_copy_only=False)
        return cls(
            names,
            by_track,
            texts.dictionary.to_pylist(),
            texts.indices.to_numpy(),
            np.cumsum(lengths, dtype=np.int64) - lengths,
            positions.flatten().to_numpy(zero_copy_only=False).astype(np.float64),
        )

    def of(self, keys: Mapping[str, Sequence[tuple[str, str, int] | None]]) -> EpisodeJoints:
        """The joints of an episode. keys: by side, (clip, track, frame) of the hand in each frame.

        Raises ExportError if there are none, or they are others than those of the lake.
        """
        values, known = {}, []
        for side in SIDES:
            wanted: dict[tuple[str, str], list[tuple[int, int]]] = {}
            for n, key in enumerate(keys[side]):
                if key is not None:
                    wanted.setdefault(key[:2], []).append((n, key[2]))
            mine = np.full((len(keys[side]), len(self.names[side])), np.nan)
            is_known = np.zeros(len(mine), bool)
            for track, places in wanted.items():
                ns, rows = self._find(track, np.array(places))
                self._check(side, rows)
                mine[ns] = self.values[self.starts[rows][:, None] + np.arange(mine.shape[1])]
                is_known[ns] = np.isfinite(mine[ns]).all(axis=1)
            values[side] = mine
            known.append(is_known)
        if not np.any(known):
            raise ExportError(
                "no valid robot joints of its hands: materialize robot_mappings, or see there "
                "(invalid_reason) why they are not valid"
            )
        return EpisodeJoints(self.names, values, np.stack(known, axis=1))

    def _find(self, track: tuple[str, str], places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which of the places (n, frame) have a row, and the rows."""
        if track not in self.tracks:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        frames, rows = self.tracks[track]
        at = np.searchsorted(frames, places[:, 1]).clip(0, len(frames) - 1)
        is_there = frames[at] == places[:, 1]
        return places[is_there, 0], rows[at[is_there]]

    def _check(self, side: str, rows: np.ndarray) -> None:
        found = {self.texts[n] for n in np.unique(self.text[rows])}
        others = found - {_BETWEEN.join(self.names[side])}
        if others:
            said = ", ".join(others.pop().split(_BETWEEN))
            raise ExportError(
                f"the joints of its {side} robot hand are {said}, and those of the lake "
                f"{', '.join(self.names[side]) or 'none'}: materialize robot_mappings again"
            )


@dataclass(frozen=True)
class EpisodeJoints:
    """A robot's joints in the N frames of an episode. By side, their names, and (N, J) positions,
    NaN where not known; known: (N, 2)."""

    names: Mapping[str, tuple[str, ...]]
    values: Mapping[str, np.ndarray]
    known: np.ndarray


def _text(names: pa.ChunkedArray) -> pa.Array:
    """Lists of names as texts, which Arrow can group."""
    return pc.binary_join(names, _BETWEEN).combine_chunks()


def _only(wanted: str, there: set[str], said: str, kind: str) -> str:
    """The one that is wanted, or the only one."""
    if wanted in there or (not wanted and len(there) == 1):
        return wanted or next(iter(there))
    raise ExportError(
        f"{said} {', '.join(sorted(there)) or f'no {kind}'}"
        + (f", not of {wanted}" if wanted else f": say which {kind}")
    )
