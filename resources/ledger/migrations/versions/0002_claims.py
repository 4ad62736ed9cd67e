"""Claims: fencing tokens, heartbeats, digests of what was published."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("work", sa.Column("lost", sa.Integer, nullable=False, server_default="0"))
    op.add_column("work", sa.Column("token", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("work", sa.Column("heartbeat_at", sa.Float(53)))
    op.add_column("work", sa.Column("digest", sa.String(64)))
    op.create_index("work_by_state", "work", ["state", "stage"])
