"""Tells whether a run over a shard would have anything to do, without running it.

A shard is finished if each raw file is as it was read, and each unit that a run would plan is done,
or given up, under the fingerprint that it would have. In doubt it is not finished: a run finds out.
Here: the ledger and the lake. Not here: whether Dagster knows of it (`dagster_project.unfinished`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from ego_assets.engine.choices import ChoiceError, Part, share_out
from ego_assets.engine.plan import Group, ShardInputs, chain
from ego_assets.intake.sources import are_as_read, look_at
from resources.lake import LakeError
from resources.lake.s3.client import s3_errors
from resources.ledger import State
from resources.ledger.sources import Source
from resources.raw.presence import RawAwayError, RawGoneError, RawRefusedError


def has_work(inputs: ShardInputs, recipe: Sequence[Sequence[Part]]) -> bool:
    """Say whether a run would do something. recipe: the stages as the run would make them."""
    try:
        return _raw_files_changed(inputs) or any(
            _is_left(group, part.spec.tables, inputs)
            for parts in recipe
            for part, groups in share_out(parts, inputs)
            for group in groups
        )
    except (LakeError, ChoiceError, OSError):
        return True  # the run says what is wrong
    except s3_errors():
        return True


def _raw_files_changed(inputs: ShardInputs) -> bool:
    rows = inputs.rows_of_files
    known = inputs.sources
    if known.keys() == rows.keys() == {file.unit for file in inputs.files} and all(
        _is_untouched(known[file.unit], rows[file.unit]["sha256"]) for file in inputs.files
    ):
        return False
    return not are_as_read(inputs.lake, inputs.ledger, inputs.shard)


def _is_untouched(source: Source, sha256: str) -> bool:
    """Whether a file is in the state in which it was read, as one look tells."""
    if source.is_gone or not source.state or (source.sha256 or "") != sha256:
        return False
    with suppress(RawAwayError, RawGoneError, RawRefusedError, *s3_errors()):
        state, sidecar = look_at(source.uri)
        return (state.text, sidecar) == (source.state, source.sidecar)
    return False


def _is_left(group: Group, tables: Sequence[str], inputs: ShardInputs) -> bool:
    """Go through a take as a worker would (`Lane.run_take`): whether something is to be done."""
    previous: str | None = None
    for unit in group.units:
        known = [inputs.entries.get(table, {}).get(unit.unit_id) for table in tables]
        if unit.blocked:  # by what is given up, or what is left to do itself
            previous = None
            continue
        fingerprint = chain(unit.base_fingerprint, previous)
        states = {entry.state if entry else None for entry in known}
        source = inputs.sources.get(unit.file_id)
        if source is not None and source.is_gone and states == {State.DONE}:
            previous = None  # it cannot be made again: what was made of it stays
            continue
        if not states <= {State.DONE, State.QUARANTINED, State.DROPPED}:
            return True
        if any(e and e.state is not State.DROPPED and e.fingerprint != fingerprint for e in known):
            return True
        previous = fingerprint if states == {State.DONE} else None
    return False
