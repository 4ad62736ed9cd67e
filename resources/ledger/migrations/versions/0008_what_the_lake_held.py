"""The state in which each file of the lake was found in agreement with the ledger."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    # The release without migrations is taken over table by table.
    if sa.inspect(op.get_bind()).has_table("facts"):
        return
    op.create_table(
        "lake_files",
        sa.Column("stage", sa.String(64), primary_key=True),
        sa.Column("shard", sa.String(32), primary_key=True),
        sa.Column("state", sa.String(64), nullable=False),
        sa.Column("units", sa.Integer, nullable=False),
    )
    op.create_table(
        "facts",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
