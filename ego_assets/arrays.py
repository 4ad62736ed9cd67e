"""Turns columns and masks into the arrays and runs that rooms, exports and readers compute with.

Light: reading a lake needs it, too. Here: what knows of no table. Not here: geometry, pictures
(`ego_assets.vision`).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def array_of(column: pa.ChunkedArray) -> np.ndarray:
    """Turn a column of numbers, or of lists of one length, into an array: (rows, …).

    Rows that are null become NaN, which makes whole numbers floating.
    """
    known = pc.is_valid(column).to_numpy()
    values = column.drop_null().combine_chunks()
    shape = [len(values)]
    while pa.types.is_fixed_size_list(values.type):
        shape.append(values.type.list_size)
        values = values.flatten()
    found: np.ndarray = values.to_numpy(zero_copy_only=False).reshape(shape)
    if known.all():
        return found
    array = np.full((len(known), *shape[1:]), np.nan, np.result_type(found.dtype, np.float32))
    array[known] = found
    return array


def runs_of_true(mask: np.ndarray) -> list[tuple[int, int]]:
    """(first, one past the last) of each run of True in a mask (N,)."""
    edges = np.flatnonzero(np.diff(np.r_[0, mask.astype(np.int8), 0]))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
