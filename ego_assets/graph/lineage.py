"""Which columns of a table hold values of another table's column of the same name, unchanged.

They name videos, clips, frames and tracks through the graph. Columns that are computed are not
here: what they come from is said by the dependencies of the table, as a whole.
"""

from __future__ import annotations

import dagster as dg

from ego_assets import catalog


def column_lineage(table: str) -> dg.TableColumnLineage:
    """For the metadata of a table's asset."""
    return dg.TableColumnLineage(
        {
            column: [dg.TableColumnDep(asset_key=dg.AssetKey(origin), column_name=column)]
            for column, origin in catalog.info(table).lineage.items()
        }
    )
