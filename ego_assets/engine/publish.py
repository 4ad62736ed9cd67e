"""What an operator made of a clip, on its way into the lake: encoded, described, written.

Here: the order of the files of one item. Not here: when that happens (`results`), what the ledger
says of it (`lane`), bytes on disk (`resources.lake`).
"""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime

import pyarrow as pa

from ego_assets.catalog import TABLES
from ego_assets.engine.claims import Claim
from ego_assets.engine.errors import ErrorKind, PublishRefusedError, classify
from ego_assets.engine.plan import StageSpec, WorkItem
from ego_assets.models.device import describe_device
from ego_assets.operator import Batch, ClipOutput, Rows
from resources.environment import visible_devices
from resources.lake import Lake, LakeError, Provenance, Published
from resources.lake.provenance import code_version, host, package_versions
from resources.lake.table import ContractError
from resources.ledger.states import WAITS_FOR_GPU


class OutdoneError(RuntimeError):
    """What was published counts for nothing: the lake holds a later attempt at the item, or was
    rolled back. The ledger does not know of it, or this attempt is late."""


def publish(
    lake: Lake, spec: StageSpec, item: WorkItem, fingerprint: str, claim: Claim, output: ClipOutput
) -> dict[str, Published]:
    """{table: what is there now}. Raises ContractError, PublishRefusedError, OutdoneError."""
    try:
        return _publish(lake, spec, item, fingerprint, claim, output)
    except (ContractError, OutdoneError):
        raise
    except Exception as error:
        if classify(error) is ErrorKind.PERMANENT:
            raise PublishRefusedError(f"{type(error).__name__}: {error}") from error
        raise


def rows_of(batch: Batch) -> Rows:
    """Those of a table one by one."""
    return batch if isinstance(batch, list) else batch.to_pylist()


def _batch(table: str, rows: Batch) -> pa.Table:
    if isinstance(rows, list):
        return TABLES[table].from_rows(rows)
    TABLES[table].validate_batch(rows)
    return rows


def _publish(
    lake: Lake, spec: StageSpec, item: WorkItem, fingerprint: str, claim: Claim, output: ClipOutput
) -> dict[str, Published]:
    """Arrays, then what is carried, then the rows: a row never points at nothing."""
    lake.must_be_there()
    attempts = claim.attempts
    rows = dict(output.tables)
    for name, arrays in output.arrays.items():
        if name not in attempts:
            continue
        token = attempts[name].token
        key = lake.publish_arrays(name, spec.shard, item.item_id, arrays, token)
        # Not in the rows themselves: what is carried may share them, and the next clip reads it.
        column = TABLES[name].arrays_column()
        if column is None:
            raise ContractError(f"{name} has arrays and no column that names them (ArraysKey)")
        rows[name] = [row | {column: key} for row in rows_of(rows[name])]
    batches: dict[str, pa.Table] = {t: _batch(t, rows[t]) for t in attempts}
    place = (spec.operator, spec.shard, item.item_id)
    is_newest = lake.write_carried(*place, output.carried, claim.token, fingerprint)
    # Who makes another table of the stage leaves the same.
    if not is_newest and lake.read_carried(*place, fingerprint) is None:
        raise OutdoneError(
            f"a later attempt than {claim.token} has left state after {item.item_id} in "
            f"{lake.location}/_carried/{spec.operator}/{spec.shard}"
        )
    published = {}
    for table, batch in batches.items():
        provenance = Provenance(
            run_id=spec.run_id,
            attempt=attempts[table].number,
            stage=table,
            operator=f"{spec.operator}:{spec.backend}",
            operator_version=spec.operator_version,
            weights_hash=spec.weights_hash,
            input_hash=item.input_hash,
            fingerprint=fingerprint,
            settings=json.dumps(spec.settings, sort_keys=True, default=str),
            code_version=code_version(),
            created_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            host=host(),
            device=visible_devices() or "cpu",
            packages=package_versions(),
            accelerator=describe_device() or output.notes.get("accelerator", ""),
            token=attempts[table].token,
            provisional=f"{WAITS_FOR_GPU}: {spec.provisional}" if spec.provisional else "",
            profile=spec.profile,
        )
        published[table] = lake.publish(table, spec.shard, item.item_id, batch, provenance)
    for table, attempt in attempts.items():
        # Of a file that is damaged the end of the stage will tell.
        with suppress(LakeError):
            if lake.is_outdone(table, spec.shard, item.item_id, attempt.token):
                raise OutdoneError(
                    f"{table} of shard {spec.shard} holds a later attempt at {item.item_id} than "
                    f"{attempt.token}"
                )
    return published
