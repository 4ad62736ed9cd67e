"""Computes what a review was given for: fingerprints of the rows of an episode or a clip.

A fingerprint is of what the rows say, not of how they lie in files or which attempt wrote them: a
run that makes the same rows again changes none. Columns that only tell where arrays lie are left
out, and so is the split, which nobody judges.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ego_assets.catalog import TABLES
from ego_assets.reviews.store import Kind
from ego_assets.viewing.shown import SHOWN
from resources.lake import Lake

JUDGED: Mapping[Kind, tuple[str, ...]] = {
    "episode": ("episodes", "episode_frames", "episode_hands"),
    "clip": ("clips", *SHOWN),
}
"""Tables that say what a subject is; the first has a row for each."""
ID: Mapping[Kind, str] = {"episode": "episode_id", "clip": "clip_id"}
_NOT_JUDGED = frozenset({"split"})
_KEPT_SHARDS = 32


class Fingerprints:
    """Fingerprints of the subjects of a lake, computed a shard at a time, and remembered."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._known: OrderedDict[tuple[Kind, str], tuple[str, dict[str, str]]] = OrderedDict()

    def made_by(self, kind: Kind, shard: str) -> str:
        """Tells the attempts whose rows a shard has from others; reads no rows."""
        digest = hashlib.sha256()
        for table in JUDGED[kind]:
            made = self._lake.provenances(table, shard)
            for item, provenance in sorted(made.items()):
                words = (table, item, str(provenance.token), provenance.fingerprint)
                digest.update("\0".join(words).encode() + b"\n")
        return digest.hexdigest()

    def of(self, kind: Kind, shard: str) -> tuple[str, dict[str, str]]:
        """What made the rows of a shard, and the fingerprint of each subject in it."""
        made_by = self.made_by(kind, shard)
        known = self._known.get((kind, shard))
        if known is None or known[0] != made_by:
            known = made_by, self._compute(kind, shard)
            self._known[kind, shard] = known
            while len(self._known) > _KEPT_SHARDS:
                self._known.popitem(last=False)
        return known

    def _compute(self, kind: Kind, shard: str) -> dict[str, str]:
        digests: dict[str, Any] = {}
        for number, table in enumerate(JUDGED[kind]):
            for subject, rows in _by_subject(self._rows(table, shard), table, ID[kind]):
                if number == 0:
                    digests[subject] = hashlib.sha256()
                if (digest := digests.get(subject)) is not None:
                    digest.update(f"{table} {rows.num_rows}\n".encode())
                    for name in rows.column_names:
                        digest.update(f"{name}\n".encode())
                        _add(digest, rows[name].combine_chunks())
        return {subject: digest.hexdigest() for subject, digest in digests.items()}

    def _rows(self, table: str, shard: str) -> pa.Table:
        names = TABLES[table].arrow_schema().names
        judged = [n for n in names if not n.endswith("_uri") and n not in _NOT_JUDGED]
        return self._lake.read(table, shard, columns=judged)


def _by_subject(rows: pa.Table, table: str, column: str) -> Iterator[tuple[str, pa.Table]]:
    """Yield the rows of each subject, ordered by the key of the table."""
    keys = [column, *(name for name in TABLES[table].key if name != column)]
    rows = rows.sort_by([(name, "ascending") for name in keys])
    ids = rows[column].to_numpy()
    cuts = [0, *(np.flatnonzero(ids[1:] != ids[:-1]) + 1), len(ids)] if len(ids) else []
    for start, end in pairwise(cuts):
        yield ids[start], rows.slice(int(start), int(end - start))


def _add(digest: Any, values: Any) -> None:
    """Add what values say to a digest, however Arrow lays them out in memory."""
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)
    digest.update(values.is_valid().cast(pa.uint8()).to_numpy(zero_copy_only=False).tobytes())
    values = values.drop_null()
    kind = values.type
    if pa.types.is_dictionary(kind):
        values, kind = values.dictionary_decode(), kind.value_type
    if pa.types.is_fixed_size_list(kind):
        _add(digest, values.flatten())
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        _add(digest, pc.list_value_length(values))
        _add(digest, values.flatten())
    elif pa.types.is_struct(kind):
        for part in values.flatten():
            _add(digest, part)
    elif pa.types.is_primitive(kind):
        numbers = values.cast(pa.uint8()) if pa.types.is_boolean(kind) else values
        digest.update(numbers.to_numpy(zero_copy_only=False).tobytes())
    else:  # texts and bytes
        _add(digest, pc.binary_length(values))
        for value in values.to_pylist():
            digest.update(value.encode() if isinstance(value, str) else value)
