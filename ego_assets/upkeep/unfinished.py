"""Tells whether a run over a shard would have anything to do, without running it.

A shard is finished if each raw file is as it was read, and each item that a run would plan is done,
or given up, under the fingerprint that it would have. In doubt it is not finished: a run finds out.
Here: the ledger and the lake. Not here: whether Dagster knows of it (`dagster_project.unfinished`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from ego_assets.engine.choices import ChoiceError, Part, share_out
from ego_assets.engine.plan import Group, ShardInputs
from ego_assets.engine.todo import Step, walk
from ego_assets.intake.sources import are_as_read, look_at
from resources.lake import LakeError
from resources.lake.s3.client import s3_errors
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
    if known.keys() == rows.keys() == {file.item for file in inputs.files} and all(
        _is_untouched(known[file.item], rows[file.item]["sha256"]) for file in inputs.files
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
    """Tell whether something of a take is to be done."""

    def stays(step: Step) -> bool:
        source = inputs.sources.get(step.item.file_id)
        is_gone = source is not None and source.is_gone
        return step.is_given_up or (is_gone and step.is_done)  # it cannot be made again

    return any(
        not step.is_over
        and not (step.is_done and {e.fingerprint for e in step.known if e} == {step.fingerprint})
        for step in walk(group, tables, inputs.entries, leaves_out=stays)
    )
