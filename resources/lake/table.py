"""One definition of a table: the pydantic model, its pyarrow schema and its checks.

Here: `Table`, the column types, the conversion and validation of whole batches, and which tables
this process knows. Not here: the tables themselves (`tables.py` of each room, registered by
`ego_assets.catalog`) and anything that reads or writes files.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

import annotated_types
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo

SCHEMA_VERSION = "6"


class ContractError(ValueError):
    """A batch does not fit its table's schema; the message names table, column and rows."""


class SchemaError(ValueError):
    """A file of another release that this one cannot read; the message says why, and what to do."""


@dataclass(frozen=True)
class Arrow:
    """Annotation: the pyarrow type of a column."""

    type: pa.DataType


@dataclass(frozen=True)
class Unit:
    """Annotation: the unit or frame of a column, for the generated documentation."""

    text: str


@dataclass(frozen=True)
class Plausible:
    """Annotation: what values can be in this world. Wider than what is good: probes ask that."""

    low: float
    high: float


@dataclass(frozen=True)
class MayBeAbsent:
    """Annotation: null wherever a backend, a camera or a world has no such value. No failure."""


@dataclass(frozen=True)
class SaidBeside:
    """Annotation: what people say of a video in a file beside it. The value may change while the
    row keeps its fingerprint, so that what is made of the pictures stays; what is made from such a
    column has its values in its own fingerprint."""


@dataclass(frozen=True)
class Formerly:
    """Annotation: values that older releases wrote, by what they are called now."""

    names: Mapping[str, str]


@dataclass(frozen=True)
class OneOf:
    """Annotation: all that a writer may say. What older releases wrote is read as it is."""

    values: tuple[str, ...]


@dataclass(frozen=True)
class ArraysKey:
    """Annotation: the column names the file of arrays that belongs to the row's work item."""


def fixed(length: int, item: pa.DataType | None = None) -> pa.DataType:
    """A fixed-size list type, float32 unless told otherwise."""
    return pa.list_(item if item is not None else pa.float32(), length)


Int32 = Annotated[int, Arrow(pa.int32())]
Int64 = Annotated[int, Arrow(pa.int64())]
Float32 = Annotated[float, Arrow(pa.float32())]
Float64 = Annotated[float, Arrow(pa.float64())]
Bool = Annotated[bool, Arrow(pa.bool_())]
Text = Annotated[str, Arrow(pa.string())]
Bytes = Annotated[bytes, Arrow(pa.binary())]
Texts = Annotated[list[str], Arrow(pa.list_(pa.string()))]
Floats = Annotated[list[float], Arrow(pa.list_(pa.float32()))]
Vec3 = Annotated[list[float], Arrow(fixed(3))]
Stretches = Annotated[list[list[int]], Arrow(pa.list_(fixed(2, pa.int32())))]
"""Of frames: [first, one past the last], in order and apart."""
Box = Annotated[list[float], Arrow(fixed(4)), Unit("pixels: x_min, y_min, x_max, y_max")]
Quaternion = Annotated[list[float], Arrow(fixed(4)), Unit("unit quaternion, xyzw")]
Joints2D = Annotated[list[list[float]], Arrow(fixed(21, fixed(2)))]
Joints3D = Annotated[list[list[float]], Arrow(fixed(21, fixed(3)))]


@dataclass(frozen=True)
class Column:
    """What the contract says of one column."""

    name: str
    type: pa.DataType
    nullable: bool
    unit: str
    description: str
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...] | None
    plausible: Plausible | None = None
    may_be_absent: bool = False
    names_arrays: bool = False
    is_said_beside: bool = False
    formerly: Mapping[str, str] | None = None
    one_of: tuple[str, ...] | None = None


class Table(BaseModel):
    """Base of every table. A subclass is a row; the class methods speak of whole batches.

    `key` names the columns that identify a row within a shard; `item_column` is the one that says
    of which work item a row is.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    table: ClassVar[str]
    key: ClassVar[tuple[str, ...]]
    item_column: ClassVar[str] = "clip_id"
    renamed: ClassVar[Mapping[str, str]] = {}
    """{name that older releases wrote: name now}."""

    @classmethod
    def columns(cls) -> list[Column]:
        return [_column(name, info) for name, info in cls.model_fields.items()]

    @classmethod
    @cache
    def arrays_column(cls) -> str | None:
        """Name the column that holds the key of a work item's arrays; None if there are none."""
        return next((c.name for c in cls.columns() if c.names_arrays), None)

    @classmethod
    @cache
    def said_beside(cls) -> tuple[str, ...]:
        """Name the columns that a file beside a video says."""
        return tuple(c.name for c in cls.columns() if c.is_said_beside)

    @classmethod
    @cache
    def formerly(cls) -> Mapping[str, Mapping[str, str]]:
        """{column: {value that older releases wrote: value now}}."""
        return {c.name: c.formerly for c in cls.columns() if c.formerly}

    @classmethod
    @cache
    def arrow_schema(cls) -> pa.Schema:
        return pa.schema([pa.field(c.name, c.type, nullable=c.nullable) for c in cls.columns()])

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
        """Build and validate a batch. A column that has a default may be left out of a row, so
        that a new one breaks no backend. Raises `ContractError`."""
        schema = cls.arrow_schema()
        known = set(schema.names)
        defaults = {n: cls._default(n) for n, i in cls.model_fields.items() if not i.is_required()}
        rows = [defaults | dict(row) for row in rows]
        for index, row in enumerate(rows):
            extra, missing = set(row) - known, known - set(row)
            if extra or missing:
                raise ContractError(
                    f"{cls.table}: row {index} has unknown columns {sorted(extra)} "
                    f"and lacks {sorted(missing)}"
                )
        try:
            batch = pa.Table.from_pylist(rows, schema=schema)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise ContractError(f"{cls.table}: {error}") from error
        cls.validate_batch(batch)
        return batch

    @classmethod
    def stored_names(cls, stored: pa.Schema, wanted: Sequence[str] | None = None) -> list[str]:
        """What the columns `wanted` (default: all) are called in a file; new ones are not there."""
        old = {new: name for name, new in cls.renamed.items()}
        names = cls.arrow_schema().names if wanted is None else wanted
        found = (n if n in stored.names else old.get(n, n) for n in names)
        return [n for n in found if n in stored.names]

    @classmethod
    def upgrade(
        cls, batch: pa.Table, wanted: Sequence[str] | None = None, version: str = SCHEMA_VERSION
    ) -> pa.Table:
        """Rows that an older release wrote, with the columns `wanted` (default: all) of this one.

        Renamed columns are found, dropped ones left out; new ones are null, or have their default;
        types are widened. version: of the schema that the rows were written under. Raises
        SchemaError.
        """
        if int(version) > int(SCHEMA_VERSION):
            raise SchemaError(
                f"{cls.table} was written under schema {version} and this release knows "
                f"{SCHEMA_VERSION} at most: update ego-assets here"
            )
        batch = batch.rename_columns([cls.renamed.get(n, n) for n in batch.column_names])
        schema = cls.arrow_schema()
        names = schema.names if wanted is None else list(wanted)
        fields = [schema.field(n) for n in names]
        if batch.schema.equals(pa.schema(fields)) and not any(n in cls.formerly() for n in names):
            return batch
        columns = [cls._upgrade_column(batch, field) for field in fields]
        if not columns:
            return batch.select([])
        return pa.Table.from_arrays(columns, schema=pa.schema(fields))

    @classmethod
    def _upgrade_column(cls, batch: pa.Table, field: pa.Field) -> pa.ChunkedArray:
        if field.name in batch.column_names:
            column = batch.column(field.name)
            try:
                return _renamed_values(column.cast(field.type), cls.formerly().get(field.name, {}))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
                raise SchemaError(
                    f"{cls.table}.{field.name} was written as {column.type} and is {field.type} "
                    f"now ({error}): materialize {cls.table} of this shard again"
                ) from error
        info = cls.model_fields[field.name]
        if not field.nullable and info.is_required():
            raise SchemaError(
                f"{cls.table}.{field.name} is not in a file of an older release, and has no "
                f"default: materialize {cls.table} of this shard again"
            )
        value = None if info.is_required() else cls._default(field.name)
        filled = pa.array([value] * batch.num_rows, field.type)
        return pa.chunked_array([filled])

    @classmethod
    def _default(cls, name: str) -> Any:
        return cls.model_fields[name].get_default(call_default_factory=True)

    @classmethod
    def validate_batch(cls, batch: pa.Table) -> None:
        """Raise `ContractError` unless `batch` may be written: it fits the contract, and columns
        with a list (`OneOf`) say nothing else."""
        problems = cls.violations(batch) or [
            f"{said}: a backend says one of these (docs/extending.md)"
            for c, known in ((c, c.one_of) for c in cls.columns() if c.one_of)
            for said in _unknown(c, batch.column(c.name), known)
        ]
        if problems:
            raise ContractError(f"{cls.table}: " + "; ".join(problems))

    @classmethod
    def violations(cls, batch: pa.Table) -> list[str]:
        """Every way in which `batch` breaks the contract, as sentences."""
        expected = cls.arrow_schema()
        if not batch.schema.equals(expected, check_metadata=False):
            return [_schema_difference(batch.schema, expected)]
        problems = [p for c in cls.columns() for p in _column_violations(c, batch.column(c.name))]
        if not problems and batch.num_rows:
            unique = batch.group_by(list(cls.key)).aggregate([]).num_rows
            if unique != batch.num_rows:
                problems.append(f"{batch.num_rows - unique} rows repeat the key {cls.key}")
        return problems


def _renamed_values(data: pa.ChunkedArray, names: Mapping[str, str]) -> pa.ChunkedArray:
    for old, new in names.items():
        is_old = pc.equal(data, old)
        if pc.any(is_old).as_py():
            data = pc.if_else(is_old, pa.scalar(new, data.type), data)
    return data


def _strip_optional(annotation: Any) -> tuple[Any, bool]:
    if get_origin(annotation) in (Union, types.UnionType):
        inner = [a for a in get_args(annotation) if a is not type(None)]
        if len(inner) == 1:
            return inner[0], True
    return annotation, False


def _column(name: str, info: FieldInfo) -> Column:
    annotation, nullable = _strip_optional(info.annotation)
    metadata = list(info.metadata)
    if get_origin(annotation) is Annotated:
        annotation, *inner = get_args(annotation)
        metadata += inner
    arrow = next((m.type for m in metadata if isinstance(m, Arrow)), None)
    choices: tuple[str, ...] | None = None
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        choices, arrow = tuple(e.value for e in annotation), pa.string()
    elif get_origin(annotation) is Literal:
        choices, arrow = get_args(annotation), pa.string()
    if arrow is None:
        raise TypeError(f"column {name} has no Arrow type: use the aliases of resources.lake.table")
    minimum = next((m.ge for m in metadata if isinstance(m, annotated_types.Ge)), None)
    maximum = next((m.le for m in metadata if isinstance(m, annotated_types.Le)), None)
    unit = "; ".join(m.text for m in metadata if isinstance(m, Unit))
    return Column(
        name=name,
        type=arrow,
        nullable=nullable,
        unit=unit,
        description=info.description or "",
        minimum=minimum,  # type: ignore[arg-type]
        maximum=maximum,  # type: ignore[arg-type]
        choices=choices,
        plausible=next((m for m in metadata if isinstance(m, Plausible)), None),
        may_be_absent=any(isinstance(m, MayBeAbsent) for m in metadata),
        names_arrays=any(isinstance(m, ArraysKey) for m in metadata),
        is_said_beside=any(isinstance(m, SaidBeside) for m in metadata),
        formerly=next((m.names for m in metadata if isinstance(m, Formerly)), None),
        one_of=next((m.values for m in metadata if isinstance(m, OneOf)), None),
    )


def _schema_difference(actual: pa.Schema, expected: pa.Schema) -> str:
    lacks = [n for n in expected.names if n not in actual.names]
    extra = [n for n in actual.names if n not in expected.names]
    other = [
        f"{n} is {actual.field(n)} and should be {expected.field(n)}"
        for n in expected.names
        if n in actual.names and actual.field(n) != expected.field(n)
    ]
    return f"schema differs: lacks {lacks}, extra {extra}, {other or 'order of columns'}"


def _leaves(column: pa.ChunkedArray) -> pa.ChunkedArray:
    flat = pc.drop_null(column)
    while pa.types.is_fixed_size_list(flat.type) or pa.types.is_list(flat.type):
        flat = pc.list_flatten(flat)
    return flat


def _column_violations(column: Column, data: pa.ChunkedArray) -> list[str]:
    problems = []
    if not column.nullable and data.null_count:
        problems.append(f"{column.name}: {data.null_count} nulls")
    leaves = _leaves(data)
    if leaves.null_count:
        problems.append(f"{column.name}: {leaves.null_count} nulls inside lists")
    if pa.types.is_floating(leaves.type):
        bad = len(leaves) - (pc.sum(pc.is_finite(leaves)).as_py() or 0) - leaves.null_count
        if bad:
            problems.append(f"{column.name}: {bad} values are not finite (use null)")
    if column.minimum is not None or column.maximum is not None:
        outside = _outside(leaves, column.minimum, column.maximum)
        if outside:
            problems.append(
                f"{column.name}: {outside} values outside [{column.minimum}, {column.maximum}]"
            )
    if column.choices is not None:
        problems += _unknown(column, leaves, column.choices)
    return problems


def _unknown(column: Column, values: pa.ChunkedArray, known: Sequence[str]) -> list[str]:
    values = pc.drop_null(values)
    is_known = pc.is_in(values, value_set=pa.array(list(known), pa.string()))
    unknown = pc.unique(values.filter(pc.invert(is_known)))
    return [f"{column.name}: {unknown.to_pylist()} not in {list(known)}"] if len(unknown) else []


def _outside(leaves: pa.ChunkedArray, low: float | None, high: float | None) -> int:
    count = 0
    if low is not None:
        count += pc.sum(pc.less(leaves, low)).as_py() or 0
    if high is not None:
        count += pc.sum(pc.greater(leaves, high)).as_py() or 0
    return count


class _Tables(dict[str, type[Table]]):
    def __missing__(self, name: str) -> type[Table]:
        known = ", ".join(self) or "none: import ego_assets.catalog, which registers them"
        raise KeyError(f"no table {name!r} is known; there are {known}")


TABLES: dict[str, type[Table]] = _Tables()
"""Every table that this process knows, in the order of the graph."""


def register(model: type[Table]) -> None:
    """Make a table known to the lake. Raises ValueError if another has its name."""
    if TABLES.get(model.table, model) is not model:
        raise ValueError(f"two tables are called {model.table}: {TABLES[model.table]} and {model}")
    TABLES[model.table] = model
